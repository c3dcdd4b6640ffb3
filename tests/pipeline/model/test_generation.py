"""Generated texts, compared token by token with full forward passes and with peft."""

import functools
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor

from pipeline.errors import UserError
from pipeline.model.backbone import Backbone
from pipeline.model.generation import GREEDY, Decoding, generate
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt, PromptBank, SoftPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.model.scale_shift import new_scale_shift
from pipeline.pretrained.families import ENCODER_DECODERS, FAMILIES
from tests.support import tiny

CAUSAL = sorted(name for name, family in FAMILIES.items() if family.causal)
END = 2
NEW_TOKENS = 6
SOURCES = [[7, 9, 4, 11, 30, 8], [5, 6], [12, 40, 41, 13]]
Prompt = DeepPrompt | SoftPrompt | PromptBank | None
BEAMS = Decoding(num_beams=3)


@functools.cache
def decoder(family: str) -> Backbone:
    """A tiny decoder or encoder-decoder. No test may change it."""
    return tiny.encoder_decoder(family) if family in ENCODER_DECODERS else tiny.decoder(family)


def given(backbone: Backbone, source: list[int]) -> list[int]:
    """The tokens up to the first one to generate; in an encoder-decoder, two of the decoder."""
    first = [backbone.config.decoder_start_token_id, 1] if backbone.is_encoder_decoder else []
    return source + first


def model_of(backbone: Backbone, prompt: Prompt, tasks: int = 1) -> PromptedModel:
    heads = Heads(["language_model"] * tasks, [0] * tasks, backbone.hidden_size, 0, [()] * tasks)
    return PromptedModel(backbone, prompt, heads, train_backbone=False).eval()


def texts(
    model: PromptedModel,
    sources: list[list[int]] = SOURCES,
    tasks: int | Tensor = 0,
    decoding: Decoding = GREEDY,
) -> list[list[int]]:
    return generate(
        model,
        [given(model.backbone, source) for source in sources],
        tasks,
        END,
        NEW_TOKENS,
        decoding,
    )


def logits(model: PromptedModel, source: list[int], text: list[int]) -> Tensor:
    """The logits [vocabulary] of the next token, by a forward pass without a cache."""
    row = torch.tensor([given(model.backbone, source) + text])
    types = torch.zeros_like(row)
    if model.backbone.is_encoder_decoder:
        types[:, len(source) :] = 1
    prompt: Any = model.prompt
    if isinstance(prompt, DeepPrompt):
        prompt = prompt()
    with torch.no_grad():
        hidden = model.backbone(row, torch.ones_like(row), types, prompt)
        return model.backbone.word_logits(hidden[:, -1:], None)[0, 0]


def greedy(model: PromptedModel, source: list[int]) -> list[int]:
    ids = list[int]()
    for _ in range(NEW_TOKENS):
        token = int(logits(model, source, ids).argmax())
        if token == END:
            break
        ids.append(token)
    return ids


def beam_search(model: PromptedModel, source: list[int], width: int) -> list[int]:
    """The text with the best mean log-probability per token, the end token included."""
    beams, finished = [(0.0, list[int]())], list[tuple[float, list[int]]]()
    for _ in range(NEW_TOKENS):
        candidates = []
        for score, ids in beams:
            log_probabilities = logits(model, source, ids).log_softmax(-1)
            candidates += [
                (score + float(value), [*ids, token])
                for token, value in enumerate(log_probabilities)
            ]
        candidates = sorted(candidates, key=lambda pair: -pair[0])[: 2 * width]
        finished += [
            (score / len(ids), ids[:-1]) for score, ids in candidates[:width] if ids[-1] == END
        ]
        beams = [pair for pair in candidates if pair[1][-1] != END][:width]
        best = sorted((score for score, _ in finished), reverse=True)[:width]
        if len(best) == width and beams[0][0] / len(beams[0][1]) <= best[-1]:
            return max(finished)[1]
    finished += [(score / len(ids), ids) for score, ids in beams]
    return max(finished)[1]


def shifted(prompt: Prompt) -> DeepPrompt:
    assert isinstance(prompt, DeepPrompt)
    return DeepPrompt(prompt.key_values, position_offset=3)


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        *((family, "deep") for family in (*CAUSAL, *ENCODER_DECODERS)),
        *(
            (family, kind)
            for family in ("bart", "t5")
            for kind in ("upper", "soft", "none", "empty")
        ),
        *(
            (family, kind)
            for family in ("gpt2", "llama", "mistral")
            for kind in ("upper", "shifted", "soft", "none", "empty")
        ),
    ],
)
def test_greedy_texts_are_those_of_full_forward_passes(family: str, kind: str) -> None:
    """The cache, the padding on the left and the other rows of the batch change nothing."""
    backbone = decoder(family)
    deep = tiny.prompt_for("deep", backbone)
    prompts: dict[str, Prompt] = {
        "deep": deep,
        "upper": DeepPrompt(deep.key_values[1:], first_layer=1),
        "shifted": shifted(deep),
        "soft": tiny.prompt_for("soft", backbone),
        "none": None,
        "empty": DeepPrompt(torch.zeros(backbone.prompt_shape(0))),
    }
    model = model_of(backbone, prompts[kind])
    expected = [greedy(model, source) for source in SOURCES]
    assert texts(model) == expected
    assert [texts(model, [source])[0] for source in SOURCES] == expected
    plain = model_of(backbone, None)
    assert (texts(plain) == expected) == (kind in ("none", "empty")), "the prompt has an effect"


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("bart", "deep"),
        ("bart", "none"),
        ("gpt2", "deep"),
        ("gpt2", "none"),
        ("llama", "deep"),
        ("llama", "soft"),
        ("mistral", "deep"),
        ("t5", "deep"),
        ("t5", "soft"),
    ],
)
def test_beam_search_is_that_of_full_forward_passes(family: str, kind: str) -> None:
    backbone = decoder(family)
    model = model_of(backbone, None if kind == "none" else tiny.prompt_for(kind, backbone))
    expected = [beam_search(model, source, 3) for source in SOURCES]
    assert texts(model, decoding=BEAMS) == expected
    assert [texts(model, [source], decoding=BEAMS)[0] for source in SOURCES] == expected
    assert expected != texts(model)


@pytest.mark.parametrize("decoding", [GREEDY, BEAMS])
@pytest.mark.parametrize("family", ["bart", "gpt2", "llama", "t5"])
def test_a_batch_of_several_tasks_equals_the_tasks_alone(family: str, decoding: Decoding) -> None:
    """The prompts differ in length, layers and shift of positions; one task has none."""
    backbone = decoder(family)
    first = tiny.prompt_for("deep", backbone)
    long = tiny.prompt_for("deep", backbone, count=5, seed=2)
    assert isinstance(first, DeepPrompt)
    assert isinstance(long, DeepPrompt)
    prompts = [
        shifted(first) if backbone.family.can_shift else DeepPrompt(-first.key_values),
        DeepPrompt(long.key_values[2:], first_layer=2),
        None,
        first,
    ]
    together = model_of(backbone, PromptBank(prompts), len(prompts))
    sources = [SOURCES[0]] * 4 + SOURCES
    tasks = [0, 1, 2, 3, 3, 1, 0]
    alone = [
        texts(model_of(backbone, prompts[task]), [source], decoding=decoding)[0]
        for source, task in zip(sources, tasks, strict=True)
    ]
    assert texts(together, sources, torch.tensor(tasks), decoding) == alone
    assert len({tuple(text) for text in alone[:4]}) >= 3


def test_scales_and_shifts_act_on_every_token() -> None:
    backbone = tiny.decoder("llama")
    layers = range(backbone.num_layers)
    scale_shift = new_scale_shift(backbone.scaled_modules(), layers)
    scale_shift += 0.3 * torch.randn(scale_shift.shape, generator=torch.Generator().manual_seed(3))
    prompt = tiny.prompt_for("deep", backbone)
    assert isinstance(prompt, DeepPrompt)
    model = model_of(backbone, DeepPrompt(prompt.key_values, scale_shift=scale_shift))
    expected = [greedy(model, source) for source in SOURCES]
    assert texts(model) == expected
    assert texts(model_of(backbone, prompt)) != expected


def test_the_cache_holds_the_text_and_never_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    model, lengths = model_of(decoder("llama"), tiny.prompt_for("deep", decoder("llama"))), []
    plain = type(model.backbone).call_model

    def call(backbone: Backbone, *args: Any, **inputs: Any) -> Any:
        output = plain(backbone, *args, **inputs)
        lengths.append(inputs["past_key_values"].get_seq_length())
        return output

    monkeypatch.setattr(Backbone, "call_model", call)
    (text,) = texts(model, [SOURCES[0]])
    assert lengths == [len(SOURCES[0]) + step for step in range(len(text))]


def test_a_text_ends_at_the_end_token() -> None:
    model = model_of(decoder("llama"), tiny.prompt_for("deep", decoder("llama")))
    whole = texts(model)
    end = whole[0][3]
    stopped = generate(model, SOURCES, 0, end, NEW_TOKENS)
    assert stopped == [text[: text.index(end)] if end in text else text for text in whole]
    assert generate(model, SOURCES, 0, END, 2) == [text[:2] for text in whole]


def test_samples_are_a_function_of_the_seed() -> None:
    model = model_of(decoder("gpt2"), tiny.prompt_for("deep", decoder("gpt2")))
    torch.manual_seed(1)
    state = torch.get_rng_state()
    samples = [texts(model, decoding=Decoding(do_sample=True, seed=seed)) for seed in (3, 4, 3)]
    assert samples[0] == samples[2] != samples[1]
    assert torch.equal(state, torch.get_rng_state()), "the state of the process is unchanged"
    nearly_greedy = Decoding(do_sample=True, temperature=1e-4)
    assert texts(model, decoding=nearly_greedy) == texts(model)
    assert texts(model, decoding=Decoding(do_sample=True, top_p=1e-6)) == texts(model)


def test_threads_get_the_samples_of_their_seeds() -> None:
    model = model_of(decoder("gpt2"), tiny.prompt_for("deep", decoder("gpt2")))

    def sampled(seed: int) -> list[list[int]]:
        return texts(model, decoding=Decoding(do_sample=True, seed=seed))

    expected = [sampled(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(sampled, range(8))) == expected


def test_defaults_of_the_backbone_are_not_used() -> None:
    """A folder may ask for sampling or penalties in its generation_config.json."""
    backbone = tiny.decoder("llama")
    model = model_of(backbone, tiny.prompt_for("deep", backbone))
    expected = texts(model)
    lm_head: Any = backbone.lm_head
    lm_head.generation_config.update(
        do_sample=True, repetition_penalty=9.0, eos_token_id=expected[0][1]
    )
    assert texts(model) == expected


def test_wrong_settings_are_listed_together() -> None:
    with pytest.raises(UserError) as caught:
        Decoding(num_beams=0, temperature=0.0, top_p=2.0, max_new_tokens=0)
    assert [problem.split(" is ")[0] for problem in caught.value.problems[:4]] == [
        f"decoding: {name}" for name in ("num_beams", "temperature", "top_p", "max_new_tokens")
    ]
    wrong: Any = {"num_beams": "3", "max_new_tokens": 2.5}
    with pytest.raises(UserError, match="num_beams is '3'; give a whole number above 0"):
        Decoding(**wrong)
    with pytest.raises(UserError, match="have no effect without do_sample"):
        Decoding(temperature=0.5)


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
@pytest.mark.parametrize("decoding", [GREEDY, BEAMS])
@pytest.mark.parametrize("family", ["gpt2", "gpt_neox", "llama", "qwen2"])
def test_texts_are_those_of_prefix_tuning_of_peft(family: str, decoding: Decoding) -> None:
    backbone = decoder(family)
    prompt = shifted(tiny.prompt_for("deep", backbone))
    torch.manual_seed(0)
    auto: Any = transformers.AutoModelForCausalLM
    model = auto.from_config(tiny.config(family)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    config = peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3)
    peft_model = peft.get_peft_model(model, config).eval()
    layers, two, heads, count, size = prompt.shape
    table = prompt.key_values.permute(3, 0, 1, 2, 4).reshape(count, layers * two * heads * size)
    with torch.no_grad():
        peft_model.prompt_encoder["default"].embedding.weight.copy_(table)
    for source in SOURCES:
        ids = torch.tensor([source])
        output = peft_model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=NEW_TOKENS,
            num_beams=decoding.num_beams,
            do_sample=False,
            eos_token_id=END,
            pad_token_id=END,
        )
        tokens = output[0, len(source) :].tolist()
        expected = tokens[: tokens.index(END)] if END in tokens else tokens
        assert texts(model_of(backbone, prompt), [source], decoding=decoding) == [expected]


def test_a_decoder_without_the_weights_of_its_lm_head_is_refused(tmp_path: Path) -> None:
    auto: Any = transformers.AutoModel
    auto.from_config(tiny.config("llama")).save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match="does not contain a language modeling head, which"
    ) as error:
        Backbone.load(tmp_path, lm_head=True)
    assert "lm_head.weight missing; use other weights" in str(error.value)

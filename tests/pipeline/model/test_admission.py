"""Families without a reference test: what is let in works, and what is not says why."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.errors import UserError
from pipeline.model import attach_checks, attention
from pipeline.model.attention import ATTENTION
from pipeline.model.backbone import Backbone
from pipeline.model.layers import layers_of
from pipeline.model.lora import add_lora
from pipeline.model.pretrained_model import quiet_transformers
from pipeline.model.prompt import DeepPrompt, stack_prompts
from pipeline.pretrained.families import ENCODER_DECODERS, FAMILIES, family_of
from tests.support import tiny
from tests.support.all_types import ADMITTED, outcome, save_tiny_model
from tests.support.paths import ROOT

PAGE = (ROOT / "docs/backbones.md").read_text(encoding="utf-8")
# They differ in positions (rotary, learned, learned from 2, none), layers (tuples, tensors),
# attention (causal or not, grouped, windows) and in whether modules know their layer index.
ADMITTED_TYPES = ["esm", "gemma3_text", "gpt_bigcode", "nomic_bert", "olmo2", "opt", "phi3"]
REFUSED = {
    "bart": "it is an encoder-decoder",
    "bloom": "none of its layers calls the attention interface",
    "diffllama": "a layer calls its attention more than once",
    "doge": "a text as a prompt differs from the text itself by",
    "falcon": "its classes do not use the attention interface",
    "fnet": "it has no attention",
    "gemma4_text": "its layers have keys of different sizes",
    "gpt_oss": "its attention takes s_aux, which prompts ignore",
    "mobilebert": "a padded text differs from the text alone by",
}


def saved(model_type: str, folder: Path) -> Path:
    with quiet_transformers():
        save_tiny_model(model_type, folder)
    return folder


@pytest.fixture(params=ADMITTED_TYPES)
def backbone(request: pytest.FixtureRequest, tmp_path: Path) -> Backbone:
    return Backbone.load(saved(request.param, tmp_path)).requires_grad_(False)


def texts(backbone: Backbone, lengths: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    ids, mask, types = tiny.texts(lengths, pad_token_id=backbone.config.pad_token_id or 0)
    return ids, mask, types if backbone.token_types > 1 else torch.zeros_like(types)


def test_an_admitted_backbone_trains_mixes_and_recomputes(backbone: Backbone) -> None:
    """Rows with different prompts equal single rows; checkpointing gives the same gradients."""
    prompt, longer = tiny.prompt_for("deep", backbone, 4), tiny.prompt_for("deep", backbone, 9, 5)
    upper = DeepPrompt(tiny.prompt_for("deep", backbone, 2, 8).key_values[1:], first_layer=1)
    inputs, prompts = texts(backbone, [9, 4, 7, 1]), [prompt, longer, None, upper]
    mixed = backbone(*inputs, stack_prompts(prompts, torch.tensor([1, 0, 2, 3])))
    for row, (chosen, length) in enumerate(
        zip([longer, prompt, None, upper], [9, 4, 7, 1], strict=True)
    ):
        single = backbone(*(part[row : row + 1, :length] for part in inputs), chosen and chosen())
        torch.testing.assert_close(mixed[row, :length], single[0], atol=1e-4, rtol=1e-4)
    expected = tiny.prompt_gradient(backbone(*inputs, prompt()), inputs[1], prompt)
    assert expected.abs().amax((1, 2, 3, 4)).gt(0).all()
    step = 1e-2 * torch.nn.functional.normalize(expected.flatten(), dim=0).view_as(expected)
    difference = _projection(backbone, inputs, prompt.key_values + step) - _projection(
        backbone, inputs, prompt.key_values - step
    )
    assert float(difference) == pytest.approx(2e-2 * float(expected.norm()), rel=0.05)
    backbone.checkpoint_layers()
    actual = tiny.prompt_gradient(backbone(*inputs, prompt()), inputs[1], prompt)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def _projection(backbone: Backbone, inputs: Any, key_values: Tensor) -> Tensor:
    """The sum whose gradient `gradient` computes."""
    with torch.no_grad():
        hidden = backbone(*inputs, DeepPrompt(key_values)())
    generator = torch.Generator().manual_seed(3)
    direction = torch.randn(hidden.shape, generator=generator) * inputs[1][..., None]
    return (hidden.double() * direction).sum()


def test_an_admitted_backbone_has_the_facts_that_others_read(backbone: Backbone) -> None:
    family = backbone.family
    assert family.route == "traced"
    assert len(list(layers_of(backbone.model, family))) == backbone.num_layers
    assert family.causal == family_of(backbone.config.model_type).causal
    ids, mask, types = texts(backbone, [5])
    soft = tiny.prompt_for("soft", backbone)
    assert backbone(ids, mask, types, soft).shape == (1, 5, backbone.hidden_size)
    if family.positions == "absolute":
        backbone(*texts(backbone, [backbone.max_positions]))
    upper = DeepPrompt(tiny.prompt_for("deep", backbone).key_values[2:], first_layer=2)
    if backbone.supports_lower_cache(upper()):
        lower = backbone.lower_hidden_states(ids, mask, types, upper())
        cached = backbone(ids, mask, types, upper(), cached_hidden=lower)
        torch.testing.assert_close(cached, backbone(ids, mask, types, upper()))
    if family.query_value:
        add_lora(backbone, rank=2, alpha=4.0, seed=0)


@pytest.mark.parametrize("model_type", ["gemma3_text", "nomic_bert", "phi3", "qwen3_moe"])
def test_logits_of_hidden_states_equal_those_of_the_language_model(
    model_type: str, tmp_path: Path
) -> None:
    saved(model_type, tmp_path)
    causal = family_of(model_type).causal
    auto: Any = transformers.AutoModelForCausalLM if causal else transformers.AutoModelForMaskedLM
    with quiet_transformers():
        model = auto.from_pretrained(tmp_path).eval()
        model.save_pretrained(tmp_path)
    ids = torch.tensor([[4, 9, 5, 8]])
    expected = model(input_ids=ids).logits
    backbone = Backbone.load(tmp_path, lm_head=True)
    assert backbone.checks[-1].name == "the language modeling head"
    hidden = backbone(ids, torch.ones_like(ids), torch.zeros_like(ids))
    logits = backbone.word_logits(hidden, range(expected.shape[-1]))
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_a_head_that_needs_more_than_hidden_states_is_refused(tmp_path: Path) -> None:
    saved("opt", tmp_path)
    with quiet_transformers():
        transformers.AutoModelForCausalLM.from_pretrained(tmp_path).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"'opt' model.* cannot compute logits of hidden states"):
        Backbone.load(tmp_path, lm_head=True)


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_refused_type_says_why(model_type: str) -> None:
    reason = outcome(model_type)
    assert reason.startswith(REFUSED[model_type]) or REFUSED[model_type] in reason
    line = re.search(rf"^\| `{model_type}` \| (.*) \|$", PAGE, re.MULTILINE)
    assert line, f"{model_type} is missing in docs/backbones.md: make backbones"
    assert REFUSED[model_type] in line[1]


def test_the_page_has_as_many_types_as_it_says() -> None:
    counts = {name: int(number) for name, number in re.findall(r"^## (.*): (\d+)$", PAGE, re.M)}
    refused, not_run = PAGE.partition("## Refused")[2].split("## Not run")
    assert counts == {
        "Compared with a reference": len(FAMILIES),
        "Whole encoder-decoders": len(ENCODER_DECODERS),
        "Admitted by checks": len(
            re.findall(r"`", PAGE.split("## Refused")[0].split("is checked itself.")[1])
        )
        // 2,
        "Refused": len(re.findall(r"^\| `", refused, re.M)),
        "Not run": len(re.findall(r"^\| `", not_run, re.M)),
    }
    assert all(f"`{name}`" in PAGE for name in ADMITTED_TYPES)
    assert outcome("phi3") == ADMITTED
    assert f"transformers {transformers.__version__} " in " ".join(PAGE.split())


def broken(change: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Break the attention of traced models in one way."""
    inner = attention.attend

    def attend(*args: Any, **kwargs: Any) -> Any:
        module, query, key, value, mask = args
        prompt = kwargs.get("deep_prompt")
        if change == "scale":
            query = 1.01 * query
        if change == "padding" and prompt is None and mask is not None:
            mask = torch.ones_like(mask)
        if change == "prompt" and prompt is not None:
            kwargs["deep_prompt"] = prompt._replace(key_values=1.01 * prompt.key_values)
        if change == "layer" and prompt is not None and module.layer_idx == 1:
            kwargs["deep_prompt"] = None
        if change == "noise":
            value = value + 0.01 * torch.randn_like(value)
        return inner(module, query, key, value, mask, **kwargs)

    monkeypatch.setattr(attention, "attend", attend)


@pytest.mark.parametrize(
    ("change", "model_type", "message"),
    [
        ("scale", "phi3", "the hidden states differ from those of its own attention"),
        ("padding", "nomic_bert", "without a prompt, a padded text differs from the text alone"),
        ("prompt", "phi3", "a text as a prompt differs from the text itself"),
        ("prompt", "nomic_bert", "a prompt with the keys of the text itself has an effect"),
        ("layer", "phi3", r"no effect in layers \[1\]"),
        ("noise", "phi3", "two forward passes of the same text differ"),
    ],
)
def test_small_errors_of_the_attention_are_detected(
    change: str, model_type: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saved(model_type, tmp_path)
    broken(change, monkeypatch)
    with pytest.raises(UserError, match=message):
        Backbone.load(folder)


def test_a_failed_check_says_by_how_much(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        Backbone.load(saved("doge", tmp_path))
    assert re.search(
        r"by 0\.\d+ of the largest value: this 'doge' model is not admitted \(at most 0.0001\), "
        r"because .*; use another backbone$",
        caught.value.problems[0],
    )


def test_a_prompt_without_measurable_effect_is_refused(tmp_path: Path) -> None:
    folder = saved("phi3", tmp_path)
    weights = load_file(folder / "model.safetensors")
    for name, values in weights.items():
        if "o_proj" in name:
            weights[name] = values * 1e-7
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="no check can prove that prompts work"):
        Backbone.load(folder)


def test_bfloat16_is_checked_in_float32(tmp_path: Path) -> None:
    folder = saved("phi3", tmp_path)
    backbone = Backbone.load(folder, precision="bfloat16")
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.bfloat16}
    assert all(check.tolerance == attach_checks.ADMISSION_TOLERANCE for check in backbone.checks)
    model = transformers.AutoModel.from_pretrained(
        folder, attn_implementation=ATTENTION, dtype=torch.bfloat16
    )
    with pytest.raises(UserError, match="the checks of its family need float32"):
        Backbone(model)


def test_a_wrong_fact_of_the_tokenizer_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tokenizer reads `causal` and `first_position` before the model is loaded."""
    from pipeline.pretrained import families

    monkeypatch.setitem(families._TRACED_CAUSAL, "phi3", False)
    with pytest.raises(UserError, match="its attention is causal, but the tokenizer assumes bidir"):
        Backbone.load(saved("phi3", tmp_path / "a"))
    monkeypatch.setitem(families._TRACED_FIRST_POSITION, "opt", 1)
    with pytest.raises(UserError, match="its first position is 0, but the tokenizer assumes 1"):
        Backbone.load(saved("opt", tmp_path / "b"))


def test_lora_needs_known_projections(tmp_path: Path) -> None:
    backbone = Backbone.load(saved("ctrl", tmp_path))
    assert backbone.family.query_value == ()
    with pytest.raises(UserError, match="the names of the projections of this 'ctrl' model are"):
        add_lora(backbone, rank=2, alpha=4.0, seed=0)


def test_too_few_learned_positions_are_refused(tmp_path: Path) -> None:
    folder = saved("gpt_bigcode", tmp_path)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation=ATTENTION)
    model.config.max_position_embeddings = 65
    with pytest.raises(UserError, match="has no position 64, the last one according to its config"):
        Backbone(model)

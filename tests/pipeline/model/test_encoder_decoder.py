"""Deep prompts in whole encoder-decoders, against tests/support/references.py.

A row is a source and a target, or a text alone. The references compute each row by itself, without
padding.
"""

import copy
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.errors import UserError
from pipeline.interop.peft import lora_to_peft
from pipeline.interop.ptuning_v2 import from_ptuning_v2
from pipeline.mixing.batches import collate
from pipeline.model import attention
from pipeline.model.attention_mass import AttentionMass
from pipeline.model.backbone import Backbone
from pipeline.model.encoder_decoder import EncoderDecoder
from pipeline.model.heads import Heads
from pipeline.model.lora import add_lora, lora_factors
from pipeline.model.pretrained_model import quiet_transformers
from pipeline.model.prompt import (
    DeepPrompt,
    LayerPrompts,
    Projection,
    SoftPrompt,
    TaskFactors,
    stack_prompts,
)
from pipeline.pretrained.families import ENCODER_DECODERS
from tests.support import tiny
from tests.support.references import WHOLE_REFERENCES

Row = tuple[list[int], list[int]]
ENCODER_LAYERS, DECODER_LAYERS = 3, 2
LAYERS = ENCODER_LAYERS + 2 * DECODER_LAYERS
# Sources of different lengths with targets, and two texts alone.
ROWS: list[Row] = [
    ([7, 9, 4, 11, 30, 8, 5], [21, 22]),
    ([5, 6], [0, 40, 41, 13, 9, 8]),
    ([12, 40, 41], [2]),
    ([33, 8, 9, 10, 11, 12], []),
    ([17], []),
]
ALL = pytest.mark.parametrize("family", sorted(ENCODER_DECODERS))


@functools.cache
def backbone_of(family: str) -> Backbone:
    """A tiny encoder-decoder. No test may change it."""
    return tiny.encoder_decoder(family)


def inputs_of(rows: list[Row]) -> tuple[Tensor, Tensor, Tensor]:
    """The ids, the mask and the token types [B, T] of rows."""
    length = max(len(source + target) for source, target in rows)
    padding = [length - len(source + target) for source, target in rows]
    parts = zip(rows, padding, strict=True)
    ids, mask, types = zip(
        *(
            (
                source + target + [0] * pad,
                [1] * (length - pad) + [0] * pad,
                [0] * len(source) + [1] * len(target) + [0] * pad,
            )
            for (source, target), pad in parts
        ),
        strict=True,
    )
    return torch.tensor(ids), torch.tensor(mask), torch.tensor(types)


def states(backbone: Backbone, rows: list[Row], prompt: Any = None) -> list[Tensor]:
    """The states [N, C] of the target of each row, or of its text."""
    hidden = backbone(*inputs_of(rows), prompt)
    return [
        values[len(source) if target else 0 : len(source + target)]
        for values, (source, target) in zip(hidden, rows, strict=True)
    ]


def reference(backbone: Backbone, row: Row, prompt: Any) -> Tensor:
    source, target = row
    start = backbone.config.decoder_start_token_id
    ids = torch.tensor([source]), torch.tensor([target or [start, *source[:-1]]])
    output: Tensor = WHOLE_REFERENCES[backbone.config.model_type](backbone.model, *ids, prompt)[0]
    return output


def prompt_of(backbone: Backbone, count: int = 3, seed: int = 1) -> DeepPrompt:
    prompt = tiny.prompt_for("deep", backbone, count, seed)
    assert isinstance(prompt, DeepPrompt)
    return prompt


def gradient(hidden: list[Tensor], prompt: DeepPrompt) -> Tensor:
    """The prompt's gradient of a random projection of the states."""
    generator = torch.Generator().manual_seed(3)
    total = sum((row * torch.randn(row.shape, generator=generator)).sum() for row in hidden)
    assert isinstance(total, Tensor)
    return torch.autograd.grad(total, prompt.key_values)[0]


def assert_close(actual: list[Tensor], expected: list[Tensor]) -> None:
    """Compare in float32, relative to the size of the values."""
    for left, right in zip(actual, expected, strict=True):
        scale = max(1.0, float(right.detach().abs().max()))
        torch.testing.assert_close(left / scale, right / scale, atol=3e-5, rtol=0.0)


@ALL
def test_hidden_states_are_those_of_the_reference(family: str) -> None:
    backbone = backbone_of(family)
    prompt = prompt_of(backbone)
    assert backbone.prompt_shape(3) == (LAYERS, 2, 4, 3, 4)
    expected = [reference(backbone, row, prompt.key_values) for row in ROWS]
    assert_close(states(backbone, ROWS, prompt()), expected)
    assert_close([states(backbone, [row], prompt())[0] for row in ROWS], expected)
    no_tokens = [layer[:, :, :0] for layer in prompt.key_values]
    plain = [reference(backbone, row, no_tokens) for row in ROWS]
    assert_close(states(backbone, ROWS), plain)
    empty = DeepPrompt(torch.zeros(backbone.prompt_shape(0)))
    assert_close(states(backbone, ROWS, empty()), plain)


@ALL
def test_gradients_of_all_attentions_are_those_of_the_reference(family: str) -> None:
    backbone = backbone_of(family)
    prompt = prompt_of(backbone)
    for rows in (ROWS, ROWS[:1], ROWS[3:4]):
        actual = gradient(states(backbone, rows, prompt()), prompt)
        expected = gradient([reference(backbone, row, prompt.key_values) for row in rows], prompt)
        scale = expected.abs().amax((1, 2, 3, 4), keepdim=True)
        assert (scale > 1e-4).all(), "the prompt of every attention has an effect"
        torch.testing.assert_close(actual / scale, expected / scale, atol=1e-4, rtol=0.0)


@ALL
def test_the_plain_model_is_that_of_transformers(family: str) -> None:
    """Texts alone as its own heads read them, and logits of the LM head."""
    backbone, model = backbone_of(family), tiny.sequence_to_sequence(family, attention="sdpa")
    for source, target in ROWS:
        start = backbone.config.decoder_start_token_id
        ids, decoder_ids = torch.tensor([source]), torch.tensor([target or [start, *source[:-1]]])
        logits = model(input_ids=ids, decoder_input_ids=decoder_ids).logits
        (hidden,) = states(backbone, [(source, target)])
        assert_close([backbone.word_logits(hidden[None], None)], [logits])


@ALL
def test_a_prompt_enters_one_kind_of_attention_alone(family: str) -> None:
    """The order: the encoder's layers, then self- and cross-attention of each decoder layer."""
    backbone = backbone_of(family)
    prompt = prompt_of(backbone)
    for layer in range(LAYERS):
        mask = torch.zeros(1, LAYERS, 3, dtype=torch.bool)
        mask[:, layer] = True
        only = [values[:, :, : 3 * (i == layer)] for i, values in enumerate(prompt.key_values)]
        expected = [reference(backbone, row, only) for row in ROWS]
        assert_close(states(backbone, ROWS, prompt()._replace(token_mask=mask)), expected)
        upper = DeepPrompt(prompt.key_values[layer:], first_layer=layer)
        only = [values[:, :, : 3 * (i >= layer)] for i, values in enumerate(prompt.key_values)]
        expected = [reference(backbone, row, only) for row in ROWS]
        assert_close(states(backbone, ROWS, upper()), expected)


@ALL
def test_rows_with_different_prompts_equal_the_rows_alone(family: str) -> None:
    backbone = backbone_of(family)
    prompts = [
        prompt_of(backbone, 4),
        prompt_of(backbone, 9, seed=5),
        None,
        DeepPrompt(prompt_of(backbone, 2).key_values[4:], first_layer=4),
    ]
    index = torch.tensor([1, 0, 2, 3, 1])
    mixed = states(backbone, ROWS, stack_prompts(prompts, index))
    for row, number, actual in zip(ROWS, index.tolist(), mixed, strict=True):
        prompt = prompts[number]
        assert_close([actual], states(backbone, [row], prompt and prompt()))


@ALL
def test_a_soft_prompt_precedes_the_source(family: str) -> None:
    """It equals input embeddings of words, if its vectors are those of words."""
    backbone = backbone_of(family)
    embeddings = backbone.model.get_input_embeddings()
    prompt = SoftPrompt(embeddings(torch.tensor([31, 32])).detach())
    rows = ROWS[:3]
    longer = [([31, 32, *source], target) for source, target in rows]
    assert_close(states(backbone, rows, prompt), states(backbone, longer))


@ALL
def test_checkpointing_gives_the_same_gradients(family: str) -> None:
    backbone = tiny.encoder_decoder(family)
    prompt = prompt_of(backbone)
    expected = gradient(states(backbone, ROWS, prompt()), prompt)
    backbone.checkpoint_layers()
    torch.testing.assert_close(gradient(states(backbone, ROWS, prompt()), prompt), expected)


@ALL
def test_copies_are_independent(family: str) -> None:
    backbone = backbone_of(family)
    prompt = prompt_of(backbone)
    expected = states(backbone, ROWS, prompt())
    clone = copy.deepcopy(backbone)
    with torch.no_grad():
        for parameter in clone.model.parameters():
            parameter.mul_(1.1)
    assert not torch.allclose(states(clone, ROWS, prompt())[0], expected[0], atol=1e-2)
    assert_close(states(backbone, ROWS, prompt()), expected)


@ALL
def test_loading(family: str, tmp_path: Path) -> None:
    """With and without LM head, in float32 and bfloat16; not as an encoder."""
    with quiet_transformers():
        tiny.sequence_to_sequence(family).save_pretrained(tmp_path)
    expected = states(backbone_of(family), ROWS)
    loaded = Backbone.load(tmp_path, lm_head=True, decoder=True)
    assert_close(states(loaded, ROWS), expected)
    assert_close(states(Backbone.load(tmp_path, decoder=True), ROWS), expected)
    rounded = Backbone.load(tmp_path, lm_head=True, precision="bfloat16", decoder=True)
    prompt = prompt_of(rounded)
    hidden = [row.detach() for row in states(rounded, ROWS, prompt())]
    assert {row.dtype for row in hidden} == {torch.bfloat16}
    exact = torch.cat(states(backbone_of(family), ROWS, prompt())).detach()
    difference = (torch.cat(hidden).float() - exact).norm() / exact.norm()
    assert float(difference) < 0.3
    with pytest.raises(UserError, match="set decoder: true for the backbone"):
        Backbone.load(tmp_path, lm_head=True)


def test_other_models_have_no_decoder(tmp_path: Path) -> None:
    with quiet_transformers():
        tiny.model("bert").save_pretrained(tmp_path)
    with pytest.raises(UserError, match="'bert' is not one of the encoder-decoders bart, mt5, t5"):
        Backbone.load(tmp_path, decoder=True)


def test_a_config_without_the_first_token_of_the_decoder_is_refused() -> None:
    model = tiny.sequence_to_sequence("t5")
    model.config.decoder_start_token_id = None
    with pytest.raises(UserError, match="has no decoder_start_token_id"):
        EncoderDecoder(model)


@ALL
@pytest.mark.parametrize("kind", ["encoder", "decoder", "cross"])
def test_a_prompt_without_effect_in_one_kind_of_attention_is_refused(
    family: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    layers = {"encoder": [0, 1, 2], "decoder": [3, 5], "cross": [4, 6]}[kind]
    inner = attention.attend

    def without_effect(
        module: Any, *args: Any, deep_prompt: LayerPrompts | None = None, **kwargs: Any
    ) -> Any:
        hidden = None if module.prompt_layer in layers else deep_prompt
        return inner(module, *args, deep_prompt=hidden, **kwargs)

    monkeypatch.setattr(attention, "attend", without_effect)
    with pytest.raises(UserError, match=rf"no effect in layers \[{', '.join(map(str, layers))}\]"):
        tiny.encoder_decoder(family)


@ALL
def test_the_first_prompt_is_the_keys_of_a_text_in_all_attentions(family: str) -> None:
    """Encoder and decoder read the whole text, so a target does not matter."""
    backbone = backbone_of(family)
    ids, mask, types = inputs_of([ROWS[0], ROWS[3]])
    key_values = backbone.text_key_values(ids, mask, types, 10)
    assert key_values.shape == backbone.prompt_shape(10)
    recorded: dict[int, Tensor] = {}
    backbone.run_rows([ids[0].tolist()], recorded_key_values=recorded)
    expected = [recorded[layer][:, 0] for layer in range(LAYERS)]
    assert_close([layer[:, :, :9] for layer in key_values], expected)


def test_prompts_of_an_mlp_and_of_factors_enter_all_attentions() -> None:
    """They equal the prompt with the keys and values that they compute."""
    backbone = backbone_of("bart")
    key_values, width = prompt_of(backbone).key_values, 2 * LAYERS * 4 * 4
    factors = TaskFactors(2, 3, 2, width, 0)
    torch.nn.init.normal_(factors.v)
    for options in (
        {"projection": Projection(torch.randn(3, 16), 8, width, 0)},
        {"factors": factors},
    ):
        prompt = DeepPrompt(key_values, **options)
        plain = DeepPrompt(prompt.materialize(1))
        assert_close(states(backbone, ROWS, prompt(1)), states(backbone, ROWS, plain()))
        for attention_values in plain.key_values - key_values:
            assert attention_values.abs().max() > 0


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_int8_weights_are_within_the_bound(family: str, tmp_path: Path) -> None:
    pytest.importorskip("torchao")
    with quiet_transformers():
        tiny.sequence_to_sequence(family).save_pretrained(tmp_path)
    backbone = Backbone.load(tmp_path, lm_head=True, precision="int8", decoder=True)
    assert backbone.checks[-1].name == "prompt gradients in float32"
    assert backbone.checks[-1].passed


def test_attention_to_the_prompt_is_averaged_over_the_tokens_that_attend() -> None:
    """A source attends in the encoder, a target in the decoder."""
    backbone = backbone_of("bart")
    prompt, attention_by_layer = prompt_of(backbone), dict[int, Tensor]()
    ids, mask, types = inputs_of(ROWS[:3])
    backbone(ids, mask, types, prompt(), attention_by_layer)
    masks = backbone.query_masks(mask, types)
    lengths = [[7, 2, 3]] * ENCODER_LAYERS + [[2, 6, 1]] * (2 * DECODER_LAYERS)
    assert [layer.sum(1).tolist() for layer in masks] == lengths
    together = AttentionMass()
    together.add(attention_by_layer, masks)
    rows = [AttentionMass() for _ in ROWS[:3]]
    for row, mass in zip(ROWS, rows, strict=False):
        ids, mask, types = inputs_of([row])
        attention_by_layer.clear()
        backbone(ids, mask, types, prompt(), attention_by_layer)
        mass.add(attention_by_layer, backbone.query_masks(mask, types))
    for layer, values in together.mean().items():
        counts = torch.tensor(lengths[layer], dtype=torch.float64)
        alone = torch.tensor([mass.mean()[layer] for mass in rows], dtype=torch.float64)
        expected = (counts[:, None] * alone).sum(0) / counts.sum()
        torch.testing.assert_close(
            torch.tensor(values, dtype=torch.float64), expected, rtol=1e-5, atol=0.0
        )


def test_checkpoints_of_p_tuning_v2_are_refused() -> None:
    with pytest.raises(UserError, match="P-tuning v2 has no 'bart' models"):
        from_ptuning_v2(Path("x.safetensors"), backbone_of("bart"))


@ALL
def test_lora_reaches_all_attentions(family: str) -> None:
    pytest.importorskip("peft")
    backbone = tiny.encoder_decoder(family)
    add_lora(backbone, rank=2, alpha=4.0, seed=0)
    assert len(lora_factors(backbone)) == 2 * 2 * LAYERS
    with pytest.raises(UserError, match="were not compared with those of peft"):
        lora_to_peft(Path("adapter"), backbone, "base")


@pytest.mark.parametrize("second", ["language_model", "positions"])
@ALL
def test_a_prompt_learns_tags_and_texts_or_spans(family: str, second: Any, tmp_path: Path) -> None:
    """One prompt for both; the same decoder reads them."""
    model = tiny.prompted("multitask", family, second="language_model")
    model.heads = Heads(["classes", second], [3, 2], model.backbone.hidden_size, 0, [(), ()])
    kinds = ("classes", "target" if second == "language_model" else "positions")
    batches = [
        collate(tiny.table(tmp_path, kind, 6, task), np.arange(6), task, 0)
        for task, kind in enumerate(kinds)
    ]
    optimizer = torch.optim.Adam(model.trainable_state().values(), lr=0.05)
    losses = []
    for _ in range(20):
        current = [model.heads.loss(model(batch), batch) for batch in batches]
        optimizer.zero_grad()
        torch.stack(current).sum().backward()
        optimizer.step()
        losses.append([float(loss.detach()) for loss in current])
    assert losses[-1][0] < 0.9 * losses[0][0], "tags"
    assert losses[-1][1] < 0.9 * losses[0][1], second


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing. is deprecated:FutureWarning")
def test_prompts_in_the_self_attention_of_the_decoder_are_those_of_peft() -> None:
    """peft adds none to the encoder, and drops those of the cross-attention.

    It also shifts the positions of the decoder, so here the first P of them are removed.
    """
    peft = pytest.importorskip("peft")
    backbone, count = tiny.encoder_decoder("bart"), 3
    positions = backbone.model.decoder.embed_positions.weight
    with torch.no_grad():
        positions[2:-count] = positions[2 + count :].clone()
    prompt = prompt_of(backbone, count)
    layers = range(ENCODER_LAYERS, LAYERS, 2)
    mask = torch.zeros(1, LAYERS, count, dtype=torch.bool)
    mask[:, layers] = True
    config = peft.PrefixTuningConfig(task_type="SEQ_2_SEQ_LM", num_virtual_tokens=count)
    model = peft.get_peft_model(tiny.sequence_to_sequence("bart", attention="eager"), config).eval()
    # peft repeats its table, and every second layer of it is the prompt of a cross-attention.
    table = torch.zeros(ENCODER_LAYERS, 2, 4, count, 4)
    table[[0, 2]] = prompt.key_values[layers].detach()
    with torch.no_grad():
        embedding = model.prompt_encoder["default"].embedding.weight
        embedding.copy_(table.permute(3, 0, 1, 2, 4).flatten(1))
        for source, target in ROWS[:3]:
            ids = torch.tensor([source])
            expected = model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                decoder_input_ids=torch.tensor([target]),
            ).logits
            (hidden,) = states(backbone, [(source, target)], prompt()._replace(token_mask=mask))
            assert_close([backbone.word_logits(hidden[None], None)], [expected])


def test_scales_and_shifts_and_a_cache_of_states_are_refused() -> None:
    backbone = backbone_of("bart")
    with pytest.raises(UserError, match="set scale_shift: false"):
        backbone.scaled_modules()
    upper = DeepPrompt(prompt_of(backbone).key_values[4:], first_layer=4)
    assert not backbone.supports_lower_cache(upper())

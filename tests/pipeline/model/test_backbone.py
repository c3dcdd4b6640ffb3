"""A prompt's effect, against references written by hand from the weights: none of the project's attention is in them."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pipeline.errors import UserError
from pipeline.model.attention import ATTENTION
from pipeline.model.backbone import Backbone
from pipeline.model.prompt import DeepPrompt, LayerPrompts, SoftPrompt
from pipeline.pretrained.families import FAMILIES
from tests.support import tiny

Weights = dict[str, Tensor]
Reference = Callable[..., Tensor]


def heads_of(values: Tensor, heads: int) -> Tensor:
    """[B, T, heads * D] as [B, heads, T, D]."""
    return values.unflatten(-1, (heads, -1)).transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, token_mask: Tensor) -> Tensor:
    """Plain attention: query [B, H, T, D], key and value [B, H, S, D], `token_mask` [B, T, S]; the result is [B, T, H * D]."""
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~token_mask.unsqueeze(1), -math.inf).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def with_prompt(
    prompt: Tensor | None, layer: int, key: Tensor, value: Tensor, token_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The layer's prompt in front of all keys and values, token_mask to every token."""
    if prompt is None:
        return key, value, token_mask
    front = prompt[layer][:, None].repeat(1, key.shape[0], 1, 1, 1)
    everyone = torch.ones(*token_mask.shape[:2], prompt.shape[3], dtype=torch.bool)
    return (
        torch.cat([front[0], key], 2),
        torch.cat([front[1], value], 2),
        torch.cat([everyone, token_mask], 2),
    )


def bert(
    made: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Tensor | None = None,
    soft: Tensor | None = None,
) -> Tensor:
    """BERT's encoder (Devlin et al. 2019) out of its weights; `soft` [P, C] goes in front of the word embeddings."""
    weights, config = dict(made.named_parameters()), made.config

    def linear(name: str, values: Tensor) -> Tensor:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, values: Tensor) -> Tensor:
        centered = values - values.mean(-1, keepdim=True)
        scaled = (
            centered / (centered.square().mean(-1, keepdim=True) + config.layer_norm_eps).sqrt()
        )
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    words, count = weights["embeddings.word_embeddings.weight"][ids], 0
    positions = torch.arange(ids.shape[1])
    if soft is not None:
        count = soft.shape[0]
        words = torch.cat([soft.repeat(ids.shape[0], 1, 1), words], dim=1)
        positions = torch.cat([torch.zeros(count, dtype=torch.long), positions])
        types = torch.cat([torch.zeros(ids.shape[0], count, dtype=torch.long), types], dim=1)
        mask = torch.cat([torch.ones(ids.shape[0], count, dtype=torch.long), mask], dim=1)
    hidden = words + weights["embeddings.position_embeddings.weight"][positions]
    hidden = norm(
        "embeddings.LayerNorm", hidden + weights["embeddings.token_type_embeddings.weight"][types]
    )
    token_mask = mask.bool()[:, None, :].repeat(1, mask.shape[1], 1)
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            heads_of(linear(f"{name}.attention.self.{part}", hidden), config.num_attention_heads)
            for part in ("query", "key", "value")
        )
        mixed = attend(query, *with_prompt(prompt, layer, key, value, token_mask))
        hidden = norm(
            f"{name}.attention.output.LayerNorm",
            hidden + linear(f"{name}.attention.output.dense", mixed),
        )
        inner = linear(f"{name}.intermediate.dense", hidden)
        inner = inner * (1 + torch.erf(inner / math.sqrt(2))) / 2
        hidden = norm(f"{name}.output.LayerNorm", hidden + linear(f"{name}.output.dense", inner))
    return hidden[:, count:]


def llama(
    made: Any, ids: Tensor, mask: Tensor, types: Tensor, prompt: Tensor | None = None
) -> Tensor:
    """Llama's decoder (Touvron et al. 2023) out of its weights: every token sees the prompt, and itself and those before it."""
    weights, config = dict(made.named_parameters()), made.config
    size = config.hidden_size // config.num_attention_heads
    angles = torch.arange(ids.shape[1])[:, None] * 10000.0 ** (-torch.arange(0, size, 2) / size)

    def rotate(values: Tensor) -> Tensor:
        left, right = values[..., : size // 2], values[..., size // 2 :]
        cos, sin = angles.cos(), angles.sin()
        return torch.cat([left * cos - right * sin, right * cos + left * sin], dim=-1)

    def norm(name: str, values: Tensor) -> Tensor:
        return (
            values
            / (values.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()
            * weights[f"{name}.weight"]
        )

    hidden = weights["embed_tokens.weight"][ids]
    length = ids.shape[1]
    token_mask = mask.bool()[:, None, :] & (
        torch.arange(length)[None, :] <= torch.arange(length)[:, None]
    )
    shared = config.num_attention_heads // config.num_key_value_heads
    for layer in range(config.num_hidden_layers):
        name = f"layers.{layer}"
        inner = norm(f"{name}.input_layernorm", hidden)
        query = rotate(
            heads_of(
                inner @ weights[f"{name}.self_attn.q_proj.weight"].T, config.num_attention_heads
            )
        )
        key = rotate(
            heads_of(
                inner @ weights[f"{name}.self_attn.k_proj.weight"].T, config.num_key_value_heads
            )
        )
        value = heads_of(
            inner @ weights[f"{name}.self_attn.v_proj.weight"].T, config.num_key_value_heads
        )
        key, value, seen = with_prompt(prompt, layer, key, value, token_mask)
        mixed = attend(
            query, key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1), seen
        )
        hidden = hidden + mixed @ weights[f"{name}.self_attn.o_proj.weight"].T
        inner = norm(f"{name}.post_attention_layernorm", hidden)
        gate = functional.silu(inner @ weights[f"{name}.mlp.gate_proj.weight"].T)
        hidden = (
            hidden
            + (gate * (inner @ weights[f"{name}.mlp.up_proj.weight"].T))
            @ weights[f"{name}.mlp.down_proj.weight"].T
        )
    return norm("norm", hidden)


REFERENCES: dict[str, Reference] = {"bert": bert, "llama": llama}
BATCHES = pytest.mark.parametrize(
    "lengths", [[7], [6, 6, 6], [9, 4, 7, 1]], ids=["one", "equal", "padded"]
)


def assert_close(found: Tensor, expected: Tensor, mask: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found[mask.bool()], expected[mask.bool()], atol=tolerance, rtol=1e-4)


def given(prompt: DeepPrompt | SoftPrompt) -> LayerPrompts | SoftPrompt:
    """What the backbone takes."""
    return prompt() if isinstance(prompt, DeepPrompt) else prompt


def moved(found: Tensor, plain: Tensor, mask: Tensor) -> bool:
    """Whether every real token's state differs."""
    return bool(((found - plain).abs().amax(-1) > 1e-3)[mask.bool()].all())


# Against the references


@BATCHES
def test_minilm_under_a_deep_prompt_is_the_reference(minilm: Backbone, lengths: list[int]) -> None:
    prompt = tiny.prompt_for("deep", minilm, 5)
    ids, mask, types = tiny.texts(lengths)
    ids = torch.where(mask.bool(), ids + 2000, 0)
    found = minilm(ids, mask, types, prompt())
    reference = bert(minilm.model, ids, mask, types, prompt.key_values)
    assert_close(found, reference, mask, 2e-5)
    direction = torch.randn(found.shape) * mask[..., None]
    (mine,) = torch.autograd.grad((found * direction).sum(), prompt.key_values)
    (expected,) = torch.autograd.grad((reference * direction).sum(), prompt.key_values)
    torch.testing.assert_close(mine, expected, atol=1e-4, rtol=1e-3)


@BATCHES
def test_a_soft_prompt_is_the_references(lengths: list[int]) -> None:
    backbone = tiny.backbone()
    prompt = tiny.prompt_for("soft", backbone, 4)
    ids, mask, types = tiny.texts(lengths)
    found = backbone(ids, mask, types, prompt)
    assert found.shape == (*ids.shape, backbone.hidden_size)
    expected = bert(backbone.model, ids, mask, types, soft=prompt.vectors)
    assert_close(found, expected, mask)
    direction = torch.randn(found.shape) * mask[..., None]
    (mine,) = torch.autograd.grad((found * direction).sum(), prompt.vectors)
    (reference,) = torch.autograd.grad((expected * direction).sum(), prompt.vectors)
    torch.testing.assert_close(mine, reference, atol=1e-5, rtol=1e-4)
    assert moved(found, backbone(ids, mask, types), mask)


def test_a_soft_prompt_leaves_robertas_positions(monkeypatch: pytest.MonkeyPatch) -> None:
    """RoBERTa counts from 2; a virtual token is at the first position, as the first token of the text."""
    backbone = tiny.backbone("roberta")
    ids, mask, types = tiny.texts([5, 3], pad_token_id=1)
    seen: dict[str, Tensor] = {}
    inner = backbone._hidden
    monkeypatch.setattr(
        backbone, "_hidden", lambda *given, **inputs: seen.update(inputs) or inner(*given, **inputs)
    )
    backbone(ids, mask, types, tiny.prompt_for("soft", backbone, 2))
    assert seen["position_ids"].tolist() == [[2, 2, 2, 3, 4, 5, 6]] * 2
    one = torch.zeros(1, 1, dtype=torch.long) + 7
    words = backbone.model.get_input_embeddings()(one)[0]
    twice = backbone(one, torch.ones_like(one), one * 0, SoftPrompt(words))
    assert_close(twice, backbone(one, torch.ones_like(one), one * 0), torch.ones_like(one))


# Every family


EVERY = pytest.mark.parametrize("family", sorted(FAMILIES))
KINDS = pytest.mark.parametrize("kind", ["deep", "soft"])


@EVERY
@KINDS
def test_padding_does_not_change_a_row(family: str, kind: str) -> None:
    backbone = tiny.backbone(family)
    prompt = tiny.prompt_for(kind, backbone)
    ids, mask, types = tiny.texts([12, 5, 9], pad_token_id=backbone.config.pad_token_id or 0)
    together = backbone(ids, mask, types, given(prompt))
    for row, length in enumerate([12, 5, 9]):
        cut = slice(row, row + 1), slice(0, length)
        assert_close(
            backbone(ids[cut], mask[cut], types[cut], given(prompt))[0],
            together[row, :length],
            torch.ones(length),
        )


@EVERY
@KINDS
def test_weights_of_the_model_need_no_gradient_for_the_prompts(family: str, kind: str) -> None:
    backbone = tiny.backbone(family).requires_grad_(False)
    prompt = tiny.prompt_for(kind, backbone)
    backbone(*tiny.texts([6, 4], pad_token_id=backbone.config.pad_token_id or 0), given(prompt))[
        ..., 0
    ].sum().backward()
    gradient = next(prompt.parameters()).grad
    assert gradient is not None
    assert (gradient.flatten(1).abs().amax(1) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


# Where a prompt starts


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_text_key_values_are_the_models_own_cache(family: str) -> None:
    """The native cache holds the same keys and values, of the real tokens in order."""
    backbone = tiny.backbone(family)
    ids, mask, types = tiny.texts([5, 3, 6])
    found = backbone.text_key_values(ids, mask, types, 10)
    assert found.shape == backbone.prompt_shape(10)
    if family == "llama":
        cache = tiny.model("llama", attention="sdpa")(
            input_ids=ids, attention_mask=mask, use_cache=True
        ).past_key_values
        layers = [torch.stack([layer.keys, layer.values]) for layer in cache.layers]
    else:
        layers = [torch.stack(pair) for pair in bert_key_values(backbone.model, ids, mask, types)]
    expected = torch.stack(
        [
            torch.cat([layer[:, 0, :, :5], layer[:, 1, :, :3], layer[:, 2, :, :2]], 2)
            for layer in layers
        ]
    )
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def bert_key_values(
    made: Any, ids: Tensor, mask: Tensor, types: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Each layer's keys and values, by hooks on BERT's own projections."""
    seen: dict[str, Tensor] = {}
    hooks = [
        made.get_submodule(f"encoder.layer.{layer}.attention.self.{part}").register_forward_hook(
            lambda _, __, output, name=f"{layer}{part}": seen.update(
                {name: heads_of(output, made.config.num_attention_heads)}
            )
        )
        for layer in range(made.config.num_hidden_layers)
        for part in ("key", "value")
    ]
    made(input_ids=ids, attention_mask=mask, token_type_ids=types)
    for hook in hooks:
        hook.remove()
    return [
        (seen[f"{layer}key"], seen[f"{layer}value"])
        for layer in range(made.config.num_hidden_layers)
    ]


def test_a_text_prompted_by_its_own_keys_and_values_is_unchanged() -> None:
    """In a bidirectional model: everything to be seen is there twice, with the weights it had."""
    backbone = tiny.backbone()
    ids, mask, types = tiny.texts([8])
    prompt = DeepPrompt(backbone.text_key_values(ids, mask, types, 8))
    assert_close(backbone(ids, mask, types, prompt()), backbone(ids, mask, types), mask)


def test_a_causal_model_goes_on_from_the_keys_and_values_of_the_beginning() -> None:
    backbone = tiny.backbone("llama")
    ids, mask, types = tiny.texts([9])
    prompt = DeepPrompt(backbone.text_key_values(ids, mask, types, 4), position_offset=4)
    rest = backbone(ids[:, 4:], mask[:, 4:], types[:, 4:], prompt())
    assert_close(rest, backbone(ids, mask, types)[:, 4:], mask[:, 4:])


def test_text_key_values_of_more_tokens_than_there_are() -> None:
    backbone = tiny.backbone()
    ids, mask, types = tiny.texts([5, 3])
    backbone.text_key_values(ids, mask, types, 8)
    with pytest.raises(
        UserError,
        match="num_virtual_tokens is 9, but the text to start from has 8 tokens; make it smaller",
    ):
        backbone.text_key_values(ids, mask, types, 9)


def test_text_embeddings_are_those_of_the_real_tokens() -> None:
    backbone = tiny.backbone()
    ids, mask, _ = tiny.texts([5, 3, 6])
    found = backbone.text_embeddings(ids, mask, 9)
    chosen = [*ids[0, :5].tolist(), *ids[1, :3].tolist(), int(ids[2, 0])]
    assert torch.equal(found, backbone.model.embeddings.word_embeddings.weight[chosen])
    assert not found.requires_grad


# Guards, and freezing


def test_a_refused_family_is_named_before_its_weights_are_read(tmp_path: Path) -> None:
    tiny.config("t5").save_pretrained(tmp_path)
    with pytest.raises(
        UserError,
        match=r"do not work on 't5' models \(an encoder-decoder.*; use one of albert, bert, camembert",
    ):
        Backbone.load(tmp_path)


def test_a_model_with_a_layer_of_another_attention_is_refused() -> None:
    made = tiny.model()
    made.config = type(made.config)(**made.config.to_dict())
    made.config._attn_implementation = ATTENTION
    other = type(made.config)(**made.config.to_dict())
    other._attn_implementation = "sdpa"
    made.encoder.layer[1].attention.self.config = other
    with pytest.raises(UserError, match=r"reaches layers \[0, 2\] of this 'bert' model, not all 3"):
        Backbone(made)


def test_a_prompt_without_effect_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = tiny.model()
    for layer in made.encoder.layer:
        torch.nn.init.zeros_(layer.attention.output.dense.weight)
    with pytest.raises(
        UserError,
        match=r"no effect in layers \[0, 1, 2\] of this 'bert' model; it cannot be trained",
    ):
        Backbone(made)


@pytest.mark.parametrize("seed", range(8))
def test_a_model_fresh_from_its_configuration_is_not_refused(seed: int) -> None:
    """Small weights make small effects; the check must not mistake rounding for one, or one for rounding."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.BertConfig(**{**tiny.SIZES, "initializer_range": 0.02})
    Backbone(transformers.AutoModel.from_config(config, attn_implementation=ATTENTION))


def test_an_unreadable_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no backbone can be read there") as caught:
        Backbone.load(tmp_path / "nothing")
    assert str(tmp_path / "nothing") in str(caught.value)


def test_layers_below_a_prompt_build_no_graph() -> None:
    """A prompt of the top layers saves the backward pass of those below."""
    made = tiny.backbone().requires_grad_(False)
    outputs: list[Tensor] = []
    for layer in made.model.encoder.layer:
        layer.register_forward_hook(lambda *called: outputs.append(called[2]))
    made(*tiny.texts([5, 3]), DeepPrompt(torch.randn(made.prompt_shape(2))[2:], first_layer=2)())
    assert [output.requires_grad for output in outputs] == [False, False, True]


def test_dropout_stays_off() -> None:
    backbone = tiny.backbone().train()
    ids, mask, types = tiny.texts([7])
    assert not any(module.training for module in backbone.modules())
    assert torch.equal(backbone(ids, mask, types), backbone(ids, mask, types))


def test_a_loaded_backbone_is_its_file(tmp_path: Path) -> None:
    made = tiny.model("bert", seed=3)
    made.save_pretrained(tmp_path)
    loaded = Backbone.load(tmp_path)
    ids, mask, types = tiny.texts([7, 3])
    assert_close(
        loaded(ids, mask, types),
        made(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state,
        mask,
    )
    assert not any("pooler" in name for name, _ in loaded.named_parameters()), (
        "it would never have a gradient"
    )
    assert loaded.num_parameters == sum(
        p.numel() for name, p in made.named_parameters() if "pooler" not in name
    )
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


# The LM head, for verbalizers


@pytest.mark.parametrize(
    ("family", "auto"),
    [
        ("bert", "AutoModelForMaskedLM"),
        ("roberta", "AutoModelForMaskedLM"),
        ("albert", "AutoModelForMaskedLM"),
        ("modernbert", "AutoModelForMaskedLM"),
        ("deberta-v2", "AutoModelForMaskedLM"),
        ("llama", "AutoModelForCausalLM"),
        ("gpt2", "AutoModelForCausalLM"),
    ],
)
def test_what_the_lm_head_gives_to_words(family: str, auto: str, tmp_path: Path) -> None:
    """As the whole language model, which is run by transformers alone."""
    import transformers

    torch.manual_seed(0)
    whole = (
        getattr(transformers, auto)
        .from_config(tiny.config(family), attn_implementation="eager")
        .eval()
    )
    whole.save_pretrained(tmp_path)
    backbone = Backbone.load(tmp_path, lm_head=True)
    ids, mask, types = tiny.texts([7, 4], pad_token_id=backbone.config.pad_token_id or 0)
    extra = {"token_type_ids": types} if backbone.token_types > 1 else {}
    expected = whole(input_ids=ids, attention_mask=mask, **extra).logits
    found = backbone.word_logits(backbone(ids, mask, types), [5, 9, 3])
    assert_close(found, expected[..., [5, 9, 3]], mask)


def test_a_backbone_without_lm_head_is_refused(tmp_path: Path) -> None:
    tiny.model("bert").save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match="its weights are not a language modeling head, which a verbalizer needs"
    ):
        Backbone.load(tmp_path, lm_head=True)

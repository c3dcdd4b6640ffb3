"""The backbone equals hand-written references, which do not use the attention of the project."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn import functional

from pipeline.errors import UserError
from pipeline.model.attention import ATTENTION
from pipeline.model.backbone import Backbone
from pipeline.model.pretrained_model import quiet_transformers
from pipeline.model.prompt import DeepPrompt, LayerPrompts, SoftPrompt
from pipeline.pretrained.families import FAMILIES
from tests.support import tiny
from tests.support.references import split_heads

Weights = dict[str, Tensor]
Reference = Callable[..., Tensor]


def attend(query: Tensor, key: Tensor, value: Tensor, token_mask: Tensor) -> Tensor:
    """Plain attention; returns [B, T, H * D].

    `query` is [B, H, T, D], `key` and `value` are [B, H, S, D], `token_mask` is [B, T, S].
    """
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~token_mask.unsqueeze(1), -math.inf).softmax(dim=-1)
    return (weights @ value).transpose(1, 2).flatten(2)


def with_prompt(
    prompt: Tensor | None, layer: int, key: Tensor, value: Tensor, token_mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Put the prompt of the layer in front of keys and values, visible to every token."""
    if prompt is None:
        return key, value, token_mask
    front = prompt[layer][:, None].repeat(1, key.shape[0], 1, 1, 1)
    prompt_mask = torch.ones(*token_mask.shape[:2], prompt.shape[3], dtype=torch.bool)
    return (
        torch.cat([front[0], key], 2),
        torch.cat([front[1], value], 2),
        torch.cat([prompt_mask, token_mask], 2),
    )


def bert(
    model: Any,
    ids: Tensor,
    mask: Tensor,
    types: Tensor,
    prompt: Tensor | None = None,
    soft: Tensor | None = None,
) -> Tensor:
    """BERT's encoder (Devlin et al. 2019), computed from its weights.

    `soft` [P, C] goes in front of the word embeddings.
    """
    weights, config = dict(model.named_parameters()), model.config

    def linear(name: str, values: Tensor) -> Tensor:
        return values @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(name: str, values: Tensor) -> Tensor:
        centered = values - values.mean(-1, keepdim=True)
        scaled = (
            centered / (centered.square().mean(-1, keepdim=True) + config.layer_norm_eps).sqrt()
        )
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    embedded, count = weights["embeddings.word_embeddings.weight"][ids], 0
    positions = torch.arange(ids.shape[1])
    if soft is not None:
        count = soft.shape[0]
        embedded = torch.cat([soft.repeat(ids.shape[0], 1, 1), embedded], dim=1)
        positions = torch.cat([torch.zeros(count, dtype=torch.long), positions])
        types = torch.cat([torch.zeros(ids.shape[0], count, dtype=torch.long), types], dim=1)
        mask = torch.cat([torch.ones(ids.shape[0], count, dtype=torch.long), mask], dim=1)
    hidden = embedded + weights["embeddings.position_embeddings.weight"][positions]
    hidden = norm(
        "embeddings.LayerNorm", hidden + weights["embeddings.token_type_embeddings.weight"][types]
    )
    token_mask = mask.bool()[:, None, :].repeat(1, mask.shape[1], 1)
    for layer in range(config.num_hidden_layers):
        name = f"encoder.layer.{layer}"
        query, key, value = (
            split_heads(linear(f"{name}.attention.self.{part}", hidden), config.num_attention_heads)
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
    model: Any, ids: Tensor, mask: Tensor, types: Tensor, prompt: Tensor | None = None
) -> Tensor:
    """Llama's decoder (Touvron et al. 2023), computed from its weights.

    Every token sees the prompt, itself and the tokens before it.
    """
    weights, config = dict(model.named_parameters()), model.config
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
    group_size = config.num_attention_heads // config.num_key_value_heads
    for layer in range(config.num_hidden_layers):
        name = f"layers.{layer}"
        inner = norm(f"{name}.input_layernorm", hidden)
        query = rotate(
            split_heads(
                inner @ weights[f"{name}.self_attn.q_proj.weight"].T, config.num_attention_heads
            )
        )
        key = rotate(
            split_heads(
                inner @ weights[f"{name}.self_attn.k_proj.weight"].T, config.num_key_value_heads
            )
        )
        value = split_heads(
            inner @ weights[f"{name}.self_attn.v_proj.weight"].T, config.num_key_value_heads
        )
        key, value, widened = with_prompt(prompt, layer, key, value, token_mask)
        mixed = attend(
            query,
            key.repeat_interleave(group_size, 1),
            value.repeat_interleave(group_size, 1),
            widened,
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
TEXT_LENGTHS = pytest.mark.parametrize(
    "lengths", [[7], [6, 6, 6], [9, 4, 7, 1]], ids=["single", "equal", "padded"]
)


def assert_close(output: Tensor, expected: Tensor, mask: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(
        output[mask.bool()], expected[mask.bool()], atol=tolerance, rtol=1e-4
    )


def as_argument(prompt: DeepPrompt | SoftPrompt) -> LayerPrompts | SoftPrompt:
    """Convert a prompt to an argument of the backbone."""
    return prompt() if isinstance(prompt, DeepPrompt) else prompt


def all_tokens_differ(output: Tensor, plain: Tensor, mask: Tensor) -> bool:
    """Whether the hidden state of every real token differs."""
    return bool(((output - plain).abs().amax(-1) > 1e-3)[mask.bool()].all())


# Comparison with the references


@TEXT_LENGTHS
def test_minilm_under_a_deep_prompt_equals_the_reference(
    minilm: Backbone, lengths: list[int]
) -> None:
    prompt = tiny.prompt_for("deep", minilm, 5)
    ids, mask, types = tiny.texts(lengths)
    ids = torch.where(mask.bool(), ids + 2000, 0)
    output = minilm(ids, mask, types, prompt())
    reference = bert(minilm.model, ids, mask, types, prompt.key_values)
    assert_close(output, reference, mask, 2e-5)
    direction = torch.randn(output.shape) * mask[..., None]
    (gradient,) = torch.autograd.grad((output * direction).sum(), prompt.key_values)
    (expected,) = torch.autograd.grad((reference * direction).sum(), prompt.key_values)
    torch.testing.assert_close(gradient, expected, atol=1e-4, rtol=1e-3)


@TEXT_LENGTHS
def test_bert_under_a_soft_prompt_equals_the_reference(lengths: list[int]) -> None:
    backbone = tiny.backbone()
    prompt = tiny.prompt_for("soft", backbone, 4)
    ids, mask, types = tiny.texts(lengths)
    output = backbone(ids, mask, types, prompt)
    assert output.shape == (*ids.shape, backbone.hidden_size)
    expected = bert(backbone.model, ids, mask, types, soft=prompt.vectors)
    assert_close(output, expected, mask)
    direction = torch.randn(output.shape) * mask[..., None]
    (gradient,) = torch.autograd.grad((output * direction).sum(), prompt.vectors)
    (reference,) = torch.autograd.grad((expected * direction).sum(), prompt.vectors)
    torch.testing.assert_close(gradient, reference, atol=1e-5, rtol=1e-4)
    assert all_tokens_differ(output, backbone(ids, mask, types), mask)


def test_a_soft_prompt_does_not_shift_the_positions_of_roberta(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """RoBERTa counts from 2. The virtual tokens share the position of the first text token."""
    backbone = tiny.backbone("roberta")
    ids, mask, types = tiny.texts([5, 3], pad_token_id=1)
    passed: dict[str, Tensor] = {}
    original = backbone._hidden

    def record(*args: Any, **inputs: Any) -> Tensor:
        passed.update(inputs)
        return original(*args, **inputs)

    monkeypatch.setattr(backbone, "_hidden", record)
    backbone(ids, mask, types, tiny.prompt_for("soft", backbone, 2))
    assert passed["position_ids"].tolist() == [[2, 2, 2, 3, 4, 5, 6]] * 2
    token = torch.zeros(1, 1, dtype=torch.long) + 7
    mask = torch.ones_like(token)
    embedded = backbone.model.get_input_embeddings()(token)[0]
    repeated = backbone(token, mask, token * 0, SoftPrompt(embedded))
    assert_close(repeated, backbone(token, mask, token * 0), mask)


# Every family


ALL_FAMILIES = pytest.mark.parametrize("family", sorted(FAMILIES))
KINDS = pytest.mark.parametrize("kind", ["deep", "soft"])


@ALL_FAMILIES
@KINDS
def test_padding_does_not_change_a_row(family: str, kind: str) -> None:
    backbone = tiny.backbone(family)
    prompt = tiny.prompt_for(kind, backbone)
    ids, mask, types = tiny.texts([12, 5, 9], pad_token_id=backbone.config.pad_token_id or 0)
    batched = backbone(ids, mask, types, as_argument(prompt))
    for row, length in enumerate([12, 5, 9]):
        cut = slice(row, row + 1), slice(0, length)
        assert_close(
            backbone(ids[cut], mask[cut], types[cut], as_argument(prompt))[0],
            batched[row, :length],
            torch.ones(length),
        )


@ALL_FAMILIES
@KINDS
def test_a_prompt_has_a_gradient_while_the_backbone_is_frozen(family: str, kind: str) -> None:
    backbone = tiny.backbone(family).requires_grad_(False)
    prompt = tiny.prompt_for(kind, backbone)
    backbone(
        *tiny.texts([6, 4], pad_token_id=backbone.config.pad_token_id or 0), as_argument(prompt)
    )[..., 0].sum().backward()
    gradient = next(prompt.parameters()).grad
    assert gradient is not None
    assert (gradient.flatten(1).abs().amax(1) > 0).all()
    assert all(parameter.grad is None for parameter in backbone.parameters())


# Initial values of a prompt


@pytest.mark.parametrize("family", ["bert", "llama"])
def test_text_key_values_equal_those_of_the_model(family: str) -> None:
    """The references are the native cache of Llama, and hooks on the projections of BERT."""
    backbone = tiny.backbone(family)
    ids, mask, types = tiny.texts([5, 3, 6])
    output = backbone.text_key_values(ids, mask, types, 10)
    assert output.shape == backbone.prompt_shape(10)
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
    torch.testing.assert_close(output, expected, atol=1e-5, rtol=1e-4)


def bert_key_values(
    model: Any, ids: Tensor, mask: Tensor, types: Tensor
) -> list[tuple[Tensor, Tensor]]:
    """Keys and values of each layer, from hooks on BERT's projections."""
    outputs: dict[str, Tensor] = {}
    hooks = [
        model.get_submodule(f"encoder.layer.{layer}.attention.self.{part}").register_forward_hook(
            lambda _, __, output, name=f"{layer}{part}": outputs.update(
                {name: split_heads(output, model.config.num_attention_heads)}
            )
        )
        for layer in range(model.config.num_hidden_layers)
        for part in ("key", "value")
    ]
    model(input_ids=ids, attention_mask=mask, token_type_ids=types)
    for hook in hooks:
        hook.remove()
    return [
        (outputs[f"{layer}key"], outputs[f"{layer}value"])
        for layer in range(model.config.num_hidden_layers)
    ]


def test_a_prompt_of_the_texts_own_keys_and_values_changes_nothing() -> None:
    """In a bidirectional model every key then occurs twice, so the attention stays the same."""
    backbone = tiny.backbone()
    ids, mask, types = tiny.texts([8])
    prompt = DeepPrompt(backbone.text_key_values(ids, mask, types, 8))
    assert_close(backbone(ids, mask, types, prompt()), backbone(ids, mask, types), mask)


def test_a_causal_model_continues_a_text_from_the_keys_and_values_of_its_prefix() -> None:
    backbone = tiny.backbone("llama")
    ids, mask, types = tiny.texts([9])
    prompt = DeepPrompt(backbone.text_key_values(ids, mask, types, 4), position_offset=4)
    rest = backbone(ids[:, 4:], mask[:, 4:], types[:, 4:], prompt())
    assert_close(rest, backbone(ids, mask, types)[:, 4:], mask[:, 4:])


def test_text_key_values_refuse_more_tokens_than_the_text_has() -> None:
    backbone = tiny.backbone()
    ids, mask, types = tiny.texts([5, 3])
    backbone.text_key_values(ids, mask, types, 8)
    with pytest.raises(
        UserError,
        match="num_virtual_tokens is 9, but the text to start from has 8 tokens; make it smaller",
    ):
        backbone.text_key_values(ids, mask, types, 9)


def test_text_embeddings_skip_padding() -> None:
    backbone = tiny.backbone()
    ids, mask, _ = tiny.texts([5, 3, 6])
    output = backbone.text_embeddings(ids, mask, 9)
    token_ids = [*ids[0, :5].tolist(), *ids[1, :3].tolist(), int(ids[2, 0])]
    assert torch.equal(output, backbone.model.embeddings.word_embeddings.weight[token_ids])
    assert not output.requires_grad


# Checks at construction, and freezing


def test_a_family_without_attention_is_refused_before_its_weights_are_read(tmp_path: Path) -> None:
    transformers.MambaConfig().save_pretrained(tmp_path)
    with pytest.raises(
        UserError,
        match=r"do not work on 'mamba' models \(it has no attention\)"
        r"; use one of albert, bert, camembert",
    ):
        Backbone.load(tmp_path)


def test_a_model_whose_layers_use_different_attentions_is_refused() -> None:
    model = tiny.model()
    model.config = type(model.config)(**model.config.to_dict())
    model.config._attn_implementation = ATTENTION
    other = type(model.config)(**model.config.to_dict())
    other._attn_implementation = "sdpa"
    model.encoder.layer[1].attention.self.config = other
    with pytest.raises(UserError, match=r"reaches layers \[0, 2\] of this 'bert' model, not all 3"):
        Backbone(model)


def test_a_prompt_without_effect_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny.model()
    for layer in model.encoder.layer:
        torch.nn.init.zeros_(layer.attention.output.dense.weight)
    with pytest.raises(
        UserError,
        match=r"no effect in layers \[0, 1, 2\] of this 'bert' model, so it cannot be trained",
    ):
        Backbone(model)


@pytest.mark.parametrize(
    ("family", "changes"), [("bert", {"is_decoder": True}), ("llama", {"is_causal": False})]
)
def test_a_model_with_another_mask_than_its_family_is_refused(
    family: str, changes: dict[str, bool]
) -> None:
    config = tiny.config(family)
    config.update(changes)
    model = transformers.AutoModel.from_config(config, attn_implementation=ATTENTION)
    kind = "causal" if FAMILIES[family].causal else "bidirectional"
    with pytest.raises(UserError, match=f"does not compute the {kind} attention .* is_causal"):
        Backbone(model)


@pytest.mark.parametrize("family", ["deberta", "deberta-v2"])
@pytest.mark.parametrize("changes", [{"pos_att_type": []}, {"relative_attention": False}])
def test_deberta_without_position_terms_equals_the_plain_model(
    family: str, changes: dict[str, Any]
) -> None:
    config = tiny.config(family)
    config.update(changes)
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config, attn_implementation=ATTENTION).eval()
    ids, mask, types = tiny.texts([9, 4])
    expected = model(input_ids=ids, attention_mask=mask).last_hidden_state
    assert_close(Backbone(model)(ids, mask, types), expected, mask)


def test_weights_that_are_not_finite_are_refused() -> None:
    model = tiny.model()
    with torch.no_grad():
        model.encoder.layer[0].output.dense.weight[0] = float("nan")
    with pytest.raises(UserError, match=r"not finite in torch.float32; download the weights again"):
        Backbone(model)


@pytest.mark.parametrize("seed", range(8))
def test_a_randomly_initialized_model_is_accepted(seed: int) -> None:
    """Small weights cause small effects. The check must tell them from rounding errors."""
    import transformers

    torch.manual_seed(seed)
    config = transformers.BertConfig(**{**tiny.SIZES, "initializer_range": 0.02})
    Backbone(transformers.AutoModel.from_config(config, attn_implementation=ATTENTION))


def test_a_model_whose_special_tokens_are_not_trained_is_accepted() -> None:
    """The first tokens of many vocabularies are special, and never occurred in pretraining."""
    model = tiny.model("llama")
    with torch.no_grad():
        model.embed_tokens.weight[:7] = 0.0
    Backbone(model)


def test_a_trained_backbone_keeps_float32_weights_in_bfloat16(tmp_path: Path) -> None:
    """It computes with rounded copies of them, and its gradients are float32."""
    with quiet_transformers():
        tiny.model().save_pretrained(tmp_path)
    trained = Backbone.load(tmp_path, precision="bfloat16", trained=True)
    frozen = Backbone.load(tmp_path, precision="bfloat16")
    exact = Backbone.load(tmp_path)
    assert {parameter.dtype for parameter in trained.parameters()} == {torch.float32}
    inputs = tiny.texts([5, 3])
    hidden, rounded, expected = (model(*inputs) for model in (trained, frozen, exact))
    difference = (hidden.float() - expected).detach().norm()
    assert 0 < float(difference) < 2 * float((rounded.float() - expected).detach().norm())
    hidden.float().square().sum().backward()
    gradients = [parameter.grad for parameter in trained.parameters()]
    assert {gradient.dtype for gradient in gradients if gradient is not None} == {torch.float32}


def test_an_unknown_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"precision is 'bfloat'; did you mean 'bfloat16'"):
        Backbone.load(tmp_path, precision="bfloat")  # type: ignore[arg-type]


def test_an_unreadable_folder_is_refused_by_path(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot load a backbone") as caught:
        Backbone.load(tmp_path / "nothing")
    assert str(tmp_path / "nothing") in str(caught.value)


def test_layers_below_a_prompt_build_no_graph() -> None:
    """A prompt of the top layers saves the backward pass of the lower layers."""
    backbone = tiny.backbone().requires_grad_(False)
    outputs: list[Tensor] = []
    for layer in backbone.model.encoder.layer:
        layer.register_forward_hook(lambda _module, _args, output: outputs.append(output))
    prompt = DeepPrompt(torch.randn(backbone.prompt_shape(2))[2:], first_layer=2)
    backbone(*tiny.texts([5, 3]), prompt())
    assert [output.requires_grad for output in outputs] == [False, False, True]


def test_dropout_stays_off_in_training_mode() -> None:
    backbone = tiny.backbone().train()
    ids, mask, types = tiny.texts([7])
    assert not any(module.training for module in backbone.modules())
    assert torch.equal(backbone(ids, mask, types), backbone(ids, mask, types))


def test_a_loaded_backbone_equals_its_file(tmp_path: Path) -> None:
    model = tiny.model("bert", seed=3)
    model.save_pretrained(tmp_path)
    loaded = Backbone.load(tmp_path)
    ids, mask, types = tiny.texts([7, 3])
    assert_close(
        loaded(ids, mask, types),
        model(input_ids=ids, attention_mask=mask, token_type_ids=types).last_hidden_state,
        mask,
    )
    assert not any("pooler" in name for name, _ in loaded.named_parameters()), (
        "the pooler would never have a gradient"
    )
    assert loaded.num_parameters == sum(
        parameter.numel() for name, parameter in model.named_parameters() if "pooler" not in name
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
def test_word_logits_equal_those_of_the_language_model(
    family: str, auto: str, tmp_path: Path
) -> None:
    """The reference is the complete language model, which transformers runs."""
    import transformers

    torch.manual_seed(0)
    language_model = (
        getattr(transformers, auto)
        .from_config(tiny.config(family), attn_implementation="eager")
        .eval()
    )
    language_model.save_pretrained(tmp_path)
    backbone = Backbone.load(tmp_path, lm_head=True)
    ids, mask, types = tiny.texts([7, 4], pad_token_id=backbone.config.pad_token_id or 0)
    extra = {"token_type_ids": types} if backbone.token_types > 1 else {}
    expected = language_model(input_ids=ids, attention_mask=mask, **extra).logits
    output = backbone.word_logits(backbone(ids, mask, types), [5, 9, 3])
    assert_close(output, expected[..., [5, 9, 3]], mask)


def test_a_backbone_without_lm_head_is_refused(tmp_path: Path) -> None:
    tiny.model("bert").save_pretrained(tmp_path)
    with pytest.raises(
        UserError,
        match="does not contain a language modeling head, which verbalizers and text generation",
    ):
        Backbone.load(tmp_path, lm_head=True)

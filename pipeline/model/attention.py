"""The attention of each model family, extended by a deep prompt.

Most families use the attention interface of transformers. The function registered under `ATTENTION`
concatenates the prompt's keys and values with those of the text, widens the mask and calls SDPA. It
replaces no module and shifts no position, so gradient checkpointing and `torch.compile` see an
ordinary model. MPNet and DeBERTa implement their own attention, which takes no extra keyword
arguments. Functions of this module replace it; they pass the relative bias to `attend` as a mask.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask
from transformers.modeling_outputs import BaseModelOutput

from pipeline.errors import UserError
from pipeline.model.prompt import LayerPrompts
from pipeline.pretrained.families import Family

ATTENTION = "deep_prompt"
RecordedKeyValues = dict[int, Tensor]
"""Layer index -> keys and values of the text in that layer [2, B, H, T, D]."""
PromptAttention = dict[int, Tensor]
"""Layer index -> attention of each text token to the prompt [B, heads, T], between 0 and 1."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layer: int | None = None,
    deep_prompt: LayerPrompts | None = None,
    recorded_key_values: RecordedKeyValues | None = None,
    prompt_attention: PromptAttention | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention over the prompt of this layer and the text.

    `query` [B, heads, T, D], `key` and `value` [B, H, T, D]. `attention_mask`
    [B or 1, heads or 1, T, T] is boolean, or is added to the scores. `layer` is the index of the
    layer (None: `module.layer_idx`). The function fills `recorded_key_values` and
    `prompt_attention` if they are not None. Returns the output [B, T, heads, D] and None.
    """
    layer_index: int = module.layer_idx if layer is None else layer  # type: ignore[assignment]
    if recorded_key_values is not None:
        recorded_key_values[layer_index] = torch.stack([key, value])
    if (
        deep_prompt is not None
        and 0 <= layer_index - deep_prompt.first_layer < deep_prompt.key_values.shape[1]
    ):
        prompt_kv, token_mask = _prompt_of_layer(
            deep_prompt, layer_index - deep_prompt.first_layer, key
        )
        attention_mask = _widen_mask(
            attention_mask, prompt_kv.shape[3], token_mask, query.shape[2], key.shape[2]
        )
        key, value = torch.cat([prompt_kv[0], key], dim=2), torch.cat([prompt_kv[1], value], dim=2)
        if prompt_attention is not None:
            prompt_attention[layer_index] = _prompt_share(
                query, key, attention_mask, prompt_kv.shape[3], kwargs.get("scaling")
            )
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _prompt_of_layer(prompt: LayerPrompts, index: int, key: Tensor) -> tuple[Tensor, Tensor | None]:
    """The prompt's keys and values [2, B, H, P, D], and its token mask [B, P] (None: no padding).

    `index` counts the layers from `prompt.first_layer`.
    """
    layer = prompt.key_values[:, index].to(key.dtype)
    if prompt.prompt_index is None:
        token_mask = (
            None
            if prompt.token_mask is None
            else prompt.token_mask[:, index].expand(key.shape[0], -1)
        )
        return layer[0].unsqueeze(1).expand(-1, key.shape[0], -1, -1, -1), token_mask
    token_mask = (
        None if prompt.token_mask is None else prompt.token_mask[prompt.prompt_index, index]
    )
    return layer[prompt.prompt_index].transpose(0, 1), token_mask


def _widen_mask(
    mask: Tensor | None, count: int, token_mask: Tensor | None, queries: int, keys: int
) -> Tensor | None:
    """Add `count` columns for the prompt in front of the text's mask.

    Every token of the text sees the prompt, except the virtual tokens that `token_mask` [B, P]
    hides.
    """
    if token_mask is None:
        return (
            None
            if mask is None
            else nn.functional.pad(mask, (count, 0), value=mask.dtype == torch.bool)
        )
    if mask is None:
        mask = token_mask.new_ones(len(token_mask), 1, queries, keys)
    front = token_mask[:, None, None, :].expand(-1, mask.shape[1], queries, -1)
    if mask.dtype != torch.bool:
        front = torch.zeros_like(front, dtype=mask.dtype).masked_fill(
            ~front, torch.finfo(mask.dtype).min
        )
    return torch.cat([front, mask.expand(len(token_mask), -1, -1, -1)], dim=3)


def _prompt_share(
    query: Tensor, key: Tensor, mask: Tensor | None, count: int, scale: float | None
) -> Tensor:
    """Sum of the attention weights of the first `count` keys [B, heads, T].

    `query` [B, heads, T, D], `key` [B, H, count + T, D].
    """
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = (query @ key.transpose(2, 3)).float() * (
        query.shape[3] ** -0.5 if scale is None else scale
    )
    if mask is not None:
        scores = (
            scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        )
    return scores.softmax(dim=-1)[..., :count].sum(dim=-1)


def _build_mask(*args: Any, **kwargs: Any) -> Any:
    # Always build a causal mask: with `is_causal`, SDPA would cut the keys to the query length.
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, _build_mask)


class ForwardContext:
    """Arguments of the last forward pass for a patched attention.

    The model of a patched attention passes it no keyword arguments.
    """

    deep_prompt: LayerPrompts | None = None
    recorded_key_values: RecordedKeyValues | None = None
    prompt_attention: PromptAttention | None = None


def install(model: Any, family: Family) -> ForwardContext | None:
    """Make the attention of `model` accept prompts, by the route of its family.

    Returns the context of a patched attention, None for the other routes. Raises UserError for
    DeBERTa with talking heads.
    """
    layers = list(layers_of(model, family))
    if family.route == "numbered":
        for layer_index, layer in enumerate(layers):
            layer.attention.layer_idx = layer_index
    elif family.route == "shared":
        model.encoder.forward = partial(_albert_encoder, model.encoder)
    elif family.route == "patched":
        return _patch(model, layers)
    return None


def layers_of(model: Any, family: Family) -> Iterator[Any]:
    """The modules of the layers, in order. ALBERT calls each of them several times."""
    for entry in model.get_submodule(family.layers):
        yield from entry.albert_layers if family.route == "shared" else [entry]


@contextmanager
def run_only_layers(
    model: Any, family: Family, layer_indices: range, first_input: Tensor | None = None
) -> Iterator[list[Tensor]]:
    """Context manager: run only the layers `layer_indices`; the other layers return their input.

    The first of these layers gets `first_input` [B, T, C] in place of its input, if it is not None.
    Yields a list that collects the inputs [B, T, C] of the skipped layers, in order.
    """
    layers, skipped_inputs = list(layers_of(model, family)), list[Tensor]()
    previous_forwards = [vars(layer).get("forward") for layer in layers]

    def skip(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        skipped_inputs.append(hidden_states)
        return (hidden_states, None) if family.route == "patched" else hidden_states

    for layer_index, layer in enumerate(layers):
        if layer_index not in layer_indices:
            layer.forward = skip
        elif layer_index == layer_indices.start and first_input is not None:
            layer.forward = partial(_forward_from, layer.forward, first_input)
    try:
        yield skipped_inputs
    finally:
        for layer, forward in zip(layers, previous_forwards, strict=True):
            vars(layer).pop("forward", None)
            if forward is not None:
                layer.forward = forward


def _forward_from(
    forward: Callable[..., Any], first_input: Tensor, _: Tensor, *args: Any, **kwargs: Any
) -> Any:
    return forward(first_input, *args, **kwargs)


def checkpoint_layers(model: Any, family: Family, context: ForwardContext | None) -> None:
    """Recompute the activations of each layer in the backward pass (gradient checkpointing).

    This saves memory and takes about a third more time. The implementation of transformers works
    in training mode only, hence with dropout, and some families do not support it.
    """
    for layer in layers_of(model, family):
        layer.forward = partial(_checkpointed, layer.forward, context)


def _checkpointed(
    forward: Callable[..., Any], context: ForwardContext | None, *args: Any, **kwargs: Any
) -> Any:
    deep_prompt = None if context is None else context.deep_prompt

    def recompute(*args: Any, **kwargs: Any) -> Any:
        if context is not None:
            context.deep_prompt = deep_prompt  # a later forward pass may have replaced it
        return forward(*args, **kwargs)

    return checkpoint(recompute, *args, use_reentrant=False, **kwargs)


def _albert_encoder(
    encoder: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> BaseModelOutput:
    """ALBERT's encoder. It calls the same modules many times, here with the index of each layer."""
    config, layer_index = encoder.config, 0
    hidden_states = encoder.embedding_hidden_mapping_in(hidden_states)
    for index in range(config.num_hidden_layers):
        group = encoder.albert_layer_groups[
            index * config.num_hidden_groups // config.num_hidden_layers
        ]
        for layer in group.albert_layers:
            hidden_states = layer(hidden_states, attention_mask, layer=layer_index, **kwargs)
            layer_index += 1
    return BaseModelOutput(last_hidden_state=hidden_states)


def _patch(model: Any, layers: list[Any]) -> ForwardContext:
    context = ForwardContext()
    attentions: dict[str, tuple[str, Callable[..., Any]]] = {
        "mpnet": ("attention.attn", _mpnet),
        "deberta": ("attention.self", _deberta),
        "deberta-v2": ("attention.self", _deberta_v2),
    }
    submodule, forward = attentions[model.config.model_type]
    if getattr(model.config, "talking_head", False):
        raise UserError(
            "backbone: talking_head is set, and DeBERTa with talking heads also mixes the heads of "
            "a prompt; use a model without talking heads, as all released models are"
        )
    for layer_index, layer in enumerate(layers):
        module = layer.get_submodule(submodule)
        module.forward = partial(forward, module, layer_index, context)
    return context


def _mpnet(
    module: Any,
    layer: int,
    context: ForwardContext,
    hidden_states: Tensor,
    attention_mask: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor]:
    """MPNet's self-attention. A prompt has no distance to the text, so its columns get no bias."""
    query, key, value = (
        _split_heads(part(hidden_states), module.num_attention_heads)
        for part in (module.q, module.k, module.v)
    )
    mixed = _attend_with_bias(
        module, query, key, value, attention_mask, position_bias, query.shape[-1], layer, context
    )
    return (module.o(mixed),)


def _deberta(
    module: Any,
    layer: int,
    context: ForwardContext,
    hidden_states: Tensor,
    attention_mask: Tensor,
    output_attentions: bool = False,
    query_states: None = None,
    relative_pos: Tensor | None = None,
    rel_embeddings: Tensor | None = None,
) -> tuple[Tensor, None]:
    """DeBERTa's disentangled self-attention (He et al. 2021).

    The content-to-content term covers prompt and text; the two position terms cover the text only.
    """
    query, key, value = module.transpose_for_scores(module.in_proj(hidden_states)).chunk(3, dim=-1)
    query = query + module.transpose_for_scores(module.q_bias[None, None, :])
    value = value + module.transpose_for_scores(module.v_bias[None, None, :])
    factor = 1 + len(module.pos_att_type)
    bias = None
    if module.relative_attention:
        bias = _position_terms(module, query, key, relative_pos, rel_embeddings) / math.sqrt(
            query.shape[-1] * factor
        )
    return _attend_with_bias(
        module, query, key, value, attention_mask, bias, query.shape[-1] * factor, layer, context
    ), None


def _position_terms(
    module: Any, query: Tensor, key: Tensor, relative_pos: Any, rel_embeddings: Any
) -> Any:
    """Unscaled content-to-position and position-to-content terms [B, heads, T, T].

    DeBERTa (He et al. 2021), equation 4. The implementation of transformers makes tensors out of
    lengths; `torch.compile` cannot follow that when the lengths vary.
    """
    length, max_distance = query.shape[2], module.max_relative_positions
    span = min(length, max_distance)
    table = rel_embeddings[max_distance - span : max_distance + span].unsqueeze(0)
    terms = 0
    shape = (*query.shape[:2], length, length)
    if "c2p" in module.pos_att_type:
        positions = module.transpose_for_scores(module.pos_proj(table))
        index = (relative_pos.unsqueeze(1) + span).clamp(0, 2 * span - 1).expand(shape)
        terms = terms + (query @ positions.transpose(2, 3)).gather(3, index)
    if "p2c" in module.pos_att_type:
        positions = module.transpose_for_scores(module.pos_q_proj(table))
        index = (span - relative_pos.unsqueeze(1)).clamp(0, 2 * span - 1).expand(shape)
        terms = terms + (key @ positions.transpose(2, 3)).gather(3, index).transpose(2, 3)
    return terms


def _deberta_v2(
    module: Any,
    layer: int,
    context: ForwardContext,
    hidden_states: Tensor,
    attention_mask: Tensor,
    output_attentions: bool = False,
    query_states: None = None,
    relative_pos: Tensor | None = None,
    rel_embeddings: Tensor | None = None,
) -> tuple[Tensor, None]:
    """Disentangled self-attention of DeBERTa v2 and v3 (see `_deberta`)."""
    query, key, value = (
        _split_heads(part(hidden_states), module.num_attention_heads)
        for part in (module.query_proj, module.key_proj, module.value_proj)
    )
    factor = 1 + len(set(module.pos_att_type) & {"c2p", "p2c"})
    bias = None
    if module.relative_attention:
        flat = module.disentangled_attention_bias(
            query.flatten(0, 1), key.flatten(0, 1), relative_pos, rel_embeddings, factor
        )
        bias = flat.view(*query.shape[:2], *flat.shape[1:])
    return _attend_with_bias(
        module, query, key, value, attention_mask, bias, query.shape[-1] * factor, layer, context
    ), None


def _split_heads(values: Tensor, heads: int) -> Tensor:
    """Reshape [B, T, heads * D] to [B, heads, T, D]."""
    batch, length, _ = values.shape
    return values.view(batch, length, heads, -1).transpose(1, 2)


def _attend_with_bias(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    bias: Tensor | None,
    scale: float,
    layer: int,
    context: ForwardContext,
) -> Tensor:
    """`attend` with the scores divided by sqrt(`scale`); returns [B, T, heads * D].

    `bias` [B, heads, T, T] is added to the scores of the text.
    """
    if bias is not None:
        mask = bias if mask is None else bias.masked_fill(~mask.bool(), torch.finfo(bias.dtype).min)
        mask = mask.to(query.dtype)
    elif mask is not None:
        mask = mask.bool()
    mixed, _ = attend(
        module,
        query,
        key,
        value,
        mask,
        layer=layer,
        deep_prompt=context.deep_prompt,
        recorded_key_values=context.recorded_key_values,
        prompt_attention=context.prompt_attention,
        scaling=scale**-0.5,
        is_causal=False,
    )
    return mixed.flatten(2)

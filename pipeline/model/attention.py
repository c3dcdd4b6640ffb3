"""How a prompt gets into the attention of each model family.

Where a family's attention goes through transformers' attention interface, a function registered under `ATTENTION` puts the
layer's prompt keys and values in front of its prompt_kv, widens the mask and calls SDPA. No module is replaced, no position shifted;
gradient checkpointing and `torch.compile` see an ordinary model. MPNet and DeBERTa have attentions of their prompt_kv, which take no
keyword arguments from outside: theirs are replaced by ones that hand their relative bias to the same function as a mask.
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
Recorded = dict[int, Tensor]
"""Layer -> the keys and values [2, B, H, T, D] of the text in it."""
PromptAttention = dict[int, Tensor]
"""Layer -> how much of its attention [B, heads, T] each token of the text gives to the prompt, 0 to 1."""


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layer: int | None = None,
    deep_prompt: LayerPrompts | None = None,
    recorded: Recorded | None = None,
    prompt_attention: PromptAttention | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """SDPA with this layer's prompt in front.

    `query` [B, heads, T, D], `key` and `value` [B, H, T, D]; `attention_mask` [B or 1, heads or 1, T, T], boolean or added to the
    scores. `layer` is the module's `layer_idx` where it is not given.
    """
    number: int = module.layer_idx if layer is None else layer  # type: ignore[assignment]
    if recorded is not None:
        recorded[number] = torch.stack([key, value])
    if (
        deep_prompt is not None
        and 0 <= number - deep_prompt.first_layer < deep_prompt.key_values.shape[1]
    ):
        prompt_kv, token_mask = _of_layer(deep_prompt, number - deep_prompt.first_layer, key)
        attention_mask = _widened(
            attention_mask, prompt_kv.shape[3], token_mask, query.shape[2], key.shape[2]
        )
        key, value = torch.cat([prompt_kv[0], key], dim=2), torch.cat([prompt_kv[1], value], dim=2)
        if prompt_attention is not None:
            prompt_attention[number] = _mass(
                query, key, attention_mask, prompt_kv.shape[3], kwargs.get("scaling")
            )
    return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)


def _of_layer(prompt: LayerPrompts, index: int, key: Tensor) -> tuple[Tensor, Tensor | None]:
    """Each row's keys and values [2, B, H, P, D], and which of them are there [B, P] (None: all)."""
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


def _widened(
    mask: Tensor | None, count: int, token_mask: Tensor | None, queries: int, keys: int
) -> Tensor | None:
    """A mask of the text with `count` columns in front: seen by every token, unless `token_mask` [B, P] says otherwise."""
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


def _mass(
    query: Tensor, key: Tensor, mask: Tensor | None, count: int, scale: float | None
) -> Tensor:
    """The share [B, heads, T] of the softmax that the first `count` keys get, of `key` [B, H, count + T, D]."""
    key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
    scores = (query @ key.transpose(2, 3)).float() * (
        query.shape[3] ** -0.5 if scale is None else scale
    )
    if mask is not None:
        scores = (
            scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        )
    return scores.softmax(dim=-1)[..., :count].sum(dim=-1)


def _mask(*args: Any, **kwargs: Any) -> Any:
    # A causal mask must be built even where SDPA could do without: `is_causal` would cut the prompt's columns off the keys.
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


AttentionInterface.register(ATTENTION, attend)
AttentionMaskInterface.register(ATTENTION, _mask)


class ForwardContext:
    """What a patched attention is handed, since its model passes no keyword arguments on: the last forward's."""

    deep_prompt: LayerPrompts | None = None
    recorded: Recorded | None = None
    prompt_attention: PromptAttention | None = None


def install(model: Any, family: Family) -> ForwardContext | None:
    """Make a model's attention take prompts, in the way of its family; returns where a patched one looks for its prompt."""
    layers = list(layers_of(model, family))
    if family.route == "numbered":
        for number, layer in enumerate(layers):
            layer.attention.layer_idx = number
    elif family.route == "shared":
        model.encoder.forward = partial(_albert_layers, model.encoder)
    elif family.route == "patched":
        return _patch(model, layers)
    return None


def layers_of(model: Any, family: Family) -> Iterator[Any]:
    """The modules that are each a layer (ALBERT: that are called as several)."""
    found = model.get_submodule(family.layers)
    for entry in found:
        yield from entry.albert_layers if family.route == "shared" else [entry]


@contextmanager
def run_only_layers(
    model: Any, family: Family, chosen: range, given: Tensor | None = None
) -> Iterator[list[Tensor]]:
    """Let only the `chosen` layers compute in the block; the others hand on the hidden states [B, T, C] that they get.

    In place of its prompt_kv, the first of the chosen gets those `given`. The list is filled with what the others get, in their order.
    """
    layers, reached = list(layers_of(model, family)), list[Tensor]()
    before = [vars(layer).get("forward") for layer in layers]

    def handed_on(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        reached.append(hidden_states)
        return (hidden_states, None) if family.route == "patched" else hidden_states

    for number, layer in enumerate(layers):
        if number not in chosen:
            layer.forward = handed_on
        elif number == chosen.start and given is not None:
            layer.forward = partial(_given, layer.forward, given)
    try:
        yield reached
    finally:
        for layer, forward in zip(layers, before, strict=True):
            vars(layer).pop("forward", None)
            if forward is not None:
                layer.forward = forward


def _given(forward: Callable[..., Any], given: Tensor, _: Tensor, *args: Any, **kwargs: Any) -> Any:
    return forward(given, *args, **kwargs)


def checkpoint_layers(model: Any, family: Family, context: ForwardContext | None) -> None:
    """Compute each layer again in the backward pass instead of keeping what is in it: less memory, a third more time.

    Ours, since transformers' prompt_kv works in training mode only (with dropout), and for some families not at all.
    """
    for layer in layers_of(model, family):
        layer.forward = partial(_checkpointed, layer.forward, context)


def _checkpointed(
    forward: Callable[..., Any], context: ForwardContext | None, *args: Any, **kwargs: Any
) -> Any:
    deep_prompt = None if context is None else context.deep_prompt

    def again(*args: Any, **kwargs: Any) -> Any:
        if context is not None:
            context.deep_prompt = deep_prompt  # another forward may have been since
        return forward(*args, **kwargs)

    return checkpoint(again, *args, use_reentrant=False, **kwargs)


def _albert_layers(
    encoder: Any, hidden_states: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
) -> BaseModelOutput:
    """ALBERT's encoder, which calls the same layers again and again, telling each call which layer it is."""
    config, number = encoder.config, 0
    hidden_states = encoder.embedding_hidden_mapping_in(hidden_states)
    for index in range(config.num_hidden_layers):
        group = encoder.albert_layer_groups[
            index * config.num_hidden_groups // config.num_hidden_layers
        ]
        for layer in group.albert_layers:
            hidden_states = layer(hidden_states, attention_mask, layer=number, **kwargs)
            number += 1
    return BaseModelOutput(last_hidden_state=hidden_states)


def _patch(model: Any, layers: list[Any]) -> ForwardContext:
    context = ForwardContext()
    attentions: dict[str, tuple[str, Callable[..., Any]]] = {
        "mpnet": ("attention.attn", _mpnet),
        "deberta": ("attention.self", _deberta),
        "deberta-v2": ("attention.self", _deberta_v2),
    }
    place, forward = attentions[model.config.model_type]
    if getattr(model.config, "talking_head", False):
        raise UserError(
            "backbone: DeBERTa with talking heads mixes the heads of a prompt too; no released model has them"
        )
    for number, layer in enumerate(layers):
        module = layer.get_submodule(place)
        module.forward = partial(forward, module, number, context)
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
    """MPNet's self-attention; a prompt has no distance to the text, and so no bias."""
    query, key, value = (
        _heads(part(hidden_states), module.num_attention_heads)
        for part in (module.q, module.k, module.v)
    )
    mixed = _biased(
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
    """DeBERTa's disentangled self-attention: content to content with the prompt, the two position terms of the text alone."""
    query, key, value = module.transpose_for_scores(module.in_proj(hidden_states)).chunk(3, dim=-1)
    query = query + module.transpose_for_scores(module.q_bias[None, None, :])
    value = value + module.transpose_for_scores(module.v_bias[None, None, :])
    factor = 1 + len(module.pos_att_type)
    bias = None
    if module.relative_attention:
        bias = _position_terms(module, query, key, relative_pos, rel_embeddings) / math.sqrt(
            query.shape[-1] * factor
        )
    return _biased(
        module, query, key, value, attention_mask, bias, query.shape[-1] * factor, layer, context
    ), None


def _position_terms(
    module: Any, query: Tensor, key: Tensor, relative_pos: Any, rel_embeddings: Any
) -> Any:
    """DeBERTa's content to position and position to content (He et al. 2021, eq. 4) [B, heads, T, T], not yet scaled.

    Ours, since the model's prompt_kv makes tensors out of lengths, which `torch.compile` cannot follow once they vary.
    """
    length, most = query.shape[2], module.max_relative_positions
    span = min(length, most)
    table, terms = rel_embeddings[most - span : most + span].unsqueeze(0), 0
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
    """The same in DeBERTa v2 and v3."""
    query, key, value = (
        _heads(part(hidden_states), module.num_attention_heads)
        for part in (module.query_proj, module.key_proj, module.value_proj)
    )
    factor = 1 + len(set(module.pos_att_type) & {"c2p", "p2c"})
    bias = None
    if module.relative_attention:
        flat = module.disentangled_attention_bias(
            query.flatten(0, 1), key.flatten(0, 1), relative_pos, rel_embeddings, factor
        )
        bias = flat.view(*query.shape[:2], *flat.shape[1:])
    return _biased(
        module, query, key, value, attention_mask, bias, query.shape[-1] * factor, layer, context
    ), None


def _heads(values: Tensor, heads: int) -> Tensor:
    """[B, T, heads * D] as [B, heads, T, D]."""
    batch, length, _ = values.shape
    return values.view(batch, length, heads, -1).transpose(1, 2)


def _biased(
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
    """Attention [B, T, heads * D] with scores divided by the root of `scale`, plus a `bias` [B, heads, T, T] on the text."""
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
        recorded=context.recorded,
        prompt_attention=context.prompt_attention,
        scaling=scale**-0.5,
        is_causal=False,
    )
    return mixed.flatten(2)

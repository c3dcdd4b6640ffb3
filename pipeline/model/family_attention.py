"""Makes the attention of each model family accept prompts.

Where a family has an attention of its own, a function of this module replaces it. It passes the
relative bias to `attend` as a mask.
"""

import copy
import math
from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_outputs import BaseModelOutput

from pipeline.errors import UserError
from pipeline.model.attention import attend, current_arguments
from pipeline.model.layers import attentions_of, layers_of, replace_forward
from pipeline.pretrained.families import Family


def install(model: Any, family: Family) -> None:
    """Make the attention of `model` accept prompts, by the route of its family.

    A second call changes nothing. Raises UserError for DeBERTa with talking heads.
    """
    if family.route == "shared":
        replace_forward(model.encoder, _albert_encoder)
    if family.route == "two stacks":
        for number, module in enumerate(attentions_of(model, family)):
            module.prompt_layer = number
    for layer_index, layer in enumerate(layers_of(model, family)):
        if family.route == "numbered":
            layer.attention.layer_idx = layer_index
        elif family.route == "patched":
            _patch(layer, layer_index, model.config)


def with_own_attention(model: Any, family: Family) -> Any:
    """A copy of `model` with the attention of transformers; it shares the weights."""
    shared = {id(tensor): tensor for tensor in chain(model.parameters(), model.buffers())}
    own = copy.deepcopy(model, shared)
    for module in own.modules():
        while hasattr(type(module), "replaced_class"):
            module.__class__ = type(module).replaced_class
    # Eager mode is the definition of an attention, if SDPA supports it at all.
    name = "sdpa" if model._supports_sdpa and family.route != "traced" else "eager"
    for module in own.modules():  # Parts may have configs of their own.
        if hasattr(getattr(module, "config", None), "_attn_implementation"):
            module.config._attn_implementation = name
    return own


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


def _patch(layer: Any, layer_index: int, config: Any) -> None:
    """Replace the self-attention of a layer of MPNet or DeBERTa."""
    attentions: dict[str, tuple[str, Callable[..., Any]]] = {
        "mpnet": ("attention.attn", _mpnet),
        "deberta": ("attention.self", _deberta),
        "deberta-v2": ("attention.self", _deberta_v2),
    }
    submodule, forward = attentions[config.model_type]
    if getattr(config, "talking_head", False):
        raise UserError(
            "backbone: talking_head is set, and DeBERTa with talking heads also mixes the heads of "
            "a prompt; use a model without talking heads, as all released models are"
        )
    module = layer.get_submodule(submodule)
    module.layer_idx = layer_index
    replace_forward(module, forward)


def _mpnet(
    module: Any,
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
        module, query, key, value, attention_mask, position_bias, query.shape[-1]
    )
    return (module.o(mixed),)


def _deberta(
    module: Any,
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
    # transformers makes these biases in float32, also if it loads the other weights as bfloat16.
    q_bias, v_bias = module.q_bias.to(query.dtype), module.v_bias.to(query.dtype)
    query = query + module.transpose_for_scores(q_bias[None, None, :])
    value = value + module.transpose_for_scores(v_bias[None, None, :])
    factor = 1 + len(module.pos_att_type)
    bias = None
    if _has_position_terms(module):
        bias = _position_terms(module, query, key, relative_pos, rel_embeddings) / math.sqrt(
            query.shape[-1] * factor
        )
    return _attend_with_bias(
        module, query, key, value, attention_mask, bias, query.shape[-1] * factor
    ), None


def _has_position_terms(module: Any) -> bool:
    return module.relative_attention and not {"c2p", "p2c"}.isdisjoint(module.pos_att_type)


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
    if _has_position_terms(module):
        flat = module.disentangled_attention_bias(
            query.flatten(0, 1), key.flatten(0, 1), relative_pos, rel_embeddings, factor
        )
        bias = flat.view(*query.shape[:2], *flat.shape[1:])
    return _attend_with_bias(
        module, query, key, value, attention_mask, bias, query.shape[-1] * factor
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
        **current_arguments().for_attention(),
        scaling=scale**-0.5,
        is_causal=False,
    )
    return mixed.flatten(2)

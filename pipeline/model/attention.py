"""The attention of each model family, extended by a deep prompt.

Most families use the attention interface of transformers. The function registered under `ATTENTION`
concatenates the prompt's keys and values with those of the text, widens the mask and calls SDPA. It
replaces no module and shifts no position, so gradient checkpointing and `torch.compile` see an
ordinary model. MPNet and DeBERTa implement their own attention, which takes no extra keyword
arguments. Functions of this module replace it; they pass the relative bias to `attend` as a mask.
Models of other families may not hand keyword arguments to every layer. They get the arguments of
the current forward pass as patched models do, from `_current`. So do encoder-decoders, because the
loop of `generate` takes no keyword arguments for the attention.

No forward pass leaves a trace in the model. So several threads, or several `Backbone`s, may use one
model at the same time, and copies of a model are independent of it.
"""

import copy
import math
import threading
from collections.abc import Callable, Iterator, Mapping
from functools import cache, partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import (
    create_position_bias_mask,
    repeat_kv,
    sdpa_attention_forward,
)
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
    position_bias: Tensor | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention over the prompt of this layer and the text.

    `query` [B, heads, T, D], `key` and `value` [B, H, T, D]. `attention_mask`
    [B or 1, heads or 1, T, T] is boolean, or is added to the scores. In a cross-attention, the keys
    and values are those of the source, of another length. `layer` is the index of the layer (None:
    see `_layer_index`). The function fills `recorded_key_values` and `prompt_attention` if they are
    not None. `position_bias` [B or 1, heads, T, T] is added to the scores of the text; a prompt has
    no distance to the text, so its columns get no bias. `softcap` is the limit of the scores in
    Gemma 2. Returns the output [B, T, heads, D] and None.
    """
    if position_bias is not None:
        attention_mask = create_position_bias_mask(position_bias, attention_mask, False, query, key)
    layer_index = _layer_index(module) if layer is None else layer
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
                _scores(query, key, attention_mask, kwargs.get("scaling"), softcap),
                prompt_kv.shape[3],
            )
    return masked_attention(module, query, key, value, attention_mask, softcap, **kwargs)


def _layer_index(module: Any) -> Any:
    """The index of the prompt's layer that a module attends to.

    In an encoder-decoder, `layer_idx` counts the layers of the cache, in each stack from 0.
    """
    return getattr(module, "prompt_layer", getattr(module, "layer_idx", None))


def masked_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Scaled dot-product attention as in `attend`, without a prompt.

    On a CPU, bfloat16 is computed in float32, because the backward pass of SDPA takes 5 to 10 times
    as long in bfloat16, more than all matrix products of the layer. SDPA has no `softcap`.
    """
    if softcap is None:
        if query.dtype != torch.bfloat16 or query.device.type != "cpu":
            return sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        if mask is not None and mask.dtype == torch.bfloat16:
            mask = mask.float()
        query, key, value = query.float(), key.float(), value.float()
        with torch.autocast("cpu", enabled=False):
            output, _ = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
        return output.bfloat16(), None
    weights = _scores(query, key, mask, kwargs.get("scaling"), softcap).softmax(dim=-1)
    value = repeat_kv(value, query.shape[1] // value.shape[1])
    return (weights.to(value.dtype) @ value).transpose(1, 2), None


def _attend_by_interface(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """`attend` as transformers calls it, with the arguments of the current forward pass, if any."""
    if _current.arguments is not NO_ARGUMENTS:
        if _current.arguments.calls is not None:
            keywords = sorted(name for name, given in kwargs.items() if given is not None)
            kwargs["layer"] = len(_current.arguments.calls)  # The module may not know its number.
            call = AttentionCall(module, tuple(keywords), query.shape, key.shape, value.shape)
            _current.arguments.calls.append(call)
        kwargs |= _current.arguments.for_attention()
    return attend(module, query, key, value, attention_mask, **kwargs)


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


def _scores(
    query: Tensor, key: Tensor, mask: Tensor | None, scale: float | None, softcap: float | None
) -> Tensor:
    """The attention scores [B, heads, T, S] in float32, with mask.

    `query` [B, heads, T, D], `key` [B, H, S, D].
    """
    key = repeat_kv(key, query.shape[1] // key.shape[1])
    scores = (query @ key.transpose(2, 3)).float() * (
        query.shape[3] ** -0.5 if scale is None else scale
    )
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is None:
        return scores
    if mask.dtype != torch.bool:
        return scores + mask
    # Not infinity: a token of the padding may see no token, and NaN would spread from it.
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


def _prompt_share(scores: Tensor, count: int) -> Tensor:
    """Sum of the attention weights [B, heads, T] of the first `count` keys."""
    return scores.softmax(dim=-1)[..., :count].sum(dim=-1)


def _build_mask(*args: Any, **kwargs: Any) -> Any:
    # Always build a causal mask: with `is_causal`, SDPA would cut the keys to the query length.
    return sdpa_mask(*args, **{**kwargs, "allow_is_causal_skip": False})


class AttentionCall(NamedTuple):
    """A call of the attention in a forward pass: its module, and the keywords that are not None."""

    module: nn.Module
    keywords: tuple[str, ...]
    query_shape: torch.Size
    key_shape: torch.Size
    value_shape: torch.Size


class PromptArguments(NamedTuple):
    """The arguments of a forward pass that concern prompts (see `attend`).

    `calls` collects the calls of the attention interface, if it is not None.
    """

    deep_prompt: LayerPrompts | None = None
    recorded_key_values: RecordedKeyValues | None = None
    prompt_attention: PromptAttention | None = None
    calls: list[AttentionCall] | None = None

    def for_attention(self) -> dict[str, Any]:
        """The keyword arguments of `attend`."""
        return {name: value for name, value in self._asdict().items() if name != "calls"}


NO_ARGUMENTS = PromptArguments()


class _CurrentForward(threading.local):
    """The arguments of the forward pass that runs in this thread.

    Models pass keyword arguments to no module but the attention; patched and traced models pass it
    none either.
    """

    arguments = NO_ARGUMENTS


_current = _CurrentForward()
AttentionInterface.register(ATTENTION, _attend_by_interface)
AttentionMaskInterface.register(ATTENTION, _build_mask)


def call_model(model: Any, family: Family, arguments: PromptArguments, **inputs: Any) -> Any:
    """Call a model that `install` has prepared, under the prompts in `arguments`."""
    if family.route in ("patched", "traced", "two stacks"):
        return call_with(arguments, model, **inputs)
    keywords = {
        name: value for name, value in arguments.for_attention().items() if value is not None
    }
    if arguments.deep_prompt is None or arguments.deep_prompt.scale_shift is None:
        return model(**inputs, **keywords)
    return call_with(arguments, model, **inputs, **keywords)


def current_prompt() -> LayerPrompts | None:
    """The prompts of the forward pass that runs in this thread, if `call_model` keeps them.

    It keeps them for patched and traced families, for encoder-decoders, and if they have scales and
    shifts.
    """
    return _current.arguments.deep_prompt


def call_with(
    arguments: PromptArguments, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Call `function` while `arguments` are those of the current forward pass."""
    previous, _current.arguments = _current.arguments, arguments
    try:
        return function(*args, **kwargs)
    finally:
        _current.arguments = previous


def install(model: Any, family: Family) -> None:
    """Make the attention of `model` accept prompts, by the route of its family.

    A second call changes nothing. Raises UserError for DeBERTa with talking heads.
    """
    if family.route == "shared":
        _replace_forward(model.encoder, _albert_encoder)
    if family.route == "two stacks":
        for number, module in enumerate(attentions_of(model, family)):
            module.prompt_layer = number
    for layer_index, layer in enumerate(layers_of(model, family)):
        if family.route == "numbered":
            layer.attention.layer_idx = layer_index
        elif family.route == "patched":
            _patch(layer, layer_index, model.config)


def _replace_forward(module: nn.Module, forward: Callable[..., Any]) -> None:
    """Replace the method `forward` of one module.

    The module becomes an instance of a subclass. A function in the module's `__dict__` would be
    bound to this module, and replicas of it would compute with its weights.
    """
    base: Any = type(module)
    if getattr(base, "new_forward", None) is not forward:
        module.__class__ = _subclass(base, forward)


@cache
def _subclass(base: type, forward: Callable[..., Any]) -> type:
    body: dict[str, Any] = {"forward": forward, "__reduce__": _reduce}
    # The base class may wrap `forward` in each subclass, so the function is kept too.
    body |= {"replaced_class": base, "new_forward": forward}
    return type(f"Prompted{base.__name__}", (base,), body)


def _reduce(module: Any) -> tuple[Any, ...]:
    """How to copy or pickle a module of `_subclass`; no module has the class under its name."""
    replaced = type(module)
    return _new_module, (replaced.replaced_class, replaced.new_forward), vars(module)


def _new_module(base: type, forward: Callable[..., Any]) -> Any:
    result_class: Any = _subclass(base, forward)
    return result_class.__new__(result_class)


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


def layers_of(model: Any, family: Family) -> Iterator[Any]:
    """The modules of the layers, in order. ALBERT calls each of them several times."""
    return (layer for _, layer in _named_layers(model, family))


def attentions_of(model: Any, family: Family) -> Iterator[Any]:
    """The attention modules of an encoder-decoder, in the order in which a forward pass calls them.

    These are the self-attentions of the encoder's layers, then the self-attention and the
    cross-attention of each layer of the decoder. A deep prompt has a layer for each of them.
    """
    for name, layer in _named_layers(model, family):
        is_decoder = name.startswith(f"{family.decoder_layers}.")
        for path in family.attentions[: 1 + is_decoder]:
            yield layer.get_submodule(path)


def only_layers(
    model: Any, family: Family, layer_indices: range, first_input: Tensor | None = None
) -> tuple[Any, list[Tensor]]:
    """A copy of `model` that runs only some layers; the other layers return their input.

    It shares the weights of `model` and the layers `layer_indices`. The first of these layers gets
    `first_input` [B, T, C] in place of its input, if it is not None. Returns the copy, and a list
    that collects the inputs [B, T, C] of the skipped layers, in order.
    """
    skipped_inputs = list[Tensor]()

    def skip(hidden_states: Tensor, *_: Any, **__: Any) -> Any:
        skipped_inputs.append(hidden_states)
        if not family.output_size:
            return hidden_states
        return (hidden_states, *[None] * (family.output_size - 1))

    replacements = {}
    for layer_index, (name, layer) in enumerate(_named_layers(model, family)):
        if layer_index not in layer_indices:
            forward: Callable[..., Any] = skip
        elif layer_index == layer_indices.start and first_input is not None:
            forward = partial(_forward_from, layer, first_input)
        else:
            continue
        replacements[name] = copy.copy(layer)  # The model reads attributes of its layers.
        replacements[name].forward = forward
    return with_modules(model, replacements), skipped_inputs


def _named_layers(model: Any, family: Family) -> Iterator[tuple[str, Any]]:
    """The modules of the layers and their names in the model, in order; the encoder's first."""
    for stack in filter(None, (family.layers, family.decoder_layers)):
        for name, entry in model.get_submodule(stack).named_children():
            path = f"{stack}.{name}"
            if family.route != "shared":
                yield path, entry
                continue
            for inner, layer in entry.albert_layers.named_children():
                yield f"{path}.albert_layers.{inner}", layer


def with_modules(model: Any, replacements: Mapping[str, nn.Module]) -> Any:
    """A copy of `model` with other modules under some names; it shares everything else."""
    copies = {"": _copy_of_module(model)}
    for name, replacement in replacements.items():
        parent, path = copies[""], ""
        *parts, last = name.split(".")
        for part in parts:
            path += f".{part}"
            if path not in copies:
                copies[path] = _copy_of_module(parent.get_submodule(part))
                vars(parent)["_modules"][part] = copies[path]
            parent = copies[path]
        vars(parent)["_modules"][last] = replacement
    return copies[""]


def _copy_of_module(module: nn.Module) -> nn.Module:
    """A copy that has the same parameters and submodules; the submodules may be replaced."""
    result = copy.copy(module)
    vars(result)["_modules"] = dict(vars(module)["_modules"])
    return result


def _forward_from(
    layer: nn.Module, first_input: Tensor, _: Tensor, *args: Any, **kwargs: Any
) -> Any:
    return layer.forward(first_input, *args, **kwargs)


def checkpoint_layers(model: Any, family: Family) -> None:
    """Recompute the activations of each layer in the backward pass (gradient checkpointing).

    This saves memory and takes about a third more time. The implementation of transformers works
    in training mode only, hence with dropout, and some families do not support it.
    """
    for layer in layers_of(model, family):
        _replace_forward(layer, _checkpointed)


def _checkpointed(module: Any, /, *args: Any, **kwargs: Any) -> Any:
    forward = type(module).replaced_class.forward
    # The backward pass may run in another thread, or after another forward pass.
    recompute = partial(call_with, _current.arguments, forward, module)
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
    _replace_forward(module, forward)


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
        **_current.arguments.for_attention(),
        scaling=scale**-0.5,
        is_causal=False,
    )
    return mixed.flatten(2)

"""Attention over a deep prompt and the text.

Most families use the attention interface of transformers. The function registered under `ATTENTION`
concatenates the prompt's keys and values with those of the text, widens the mask and calls SDPA. It
replaces no module and shifts no position, so gradient checkpointing and `torch.compile` see an
ordinary model. MPNet and DeBERTa implement their own attention, which takes no extra keyword
arguments; `pipeline.model.family_attention` replaces it. Models of other families may not hand
keyword arguments to every layer. They get the arguments of the current forward pass as patched
models do, from `_current`. So do encoder-decoders, because the loop of `generate` takes no keyword
arguments for the attention.

No forward pass leaves a trace in the model. So several threads, or several `Backbone`s, may use one
model at the same time, and copies of a model are independent of it.
"""

import threading
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import (
    create_position_bias_mask,
    repeat_kv,
    sdpa_attention_forward,
)
from transformers.masking_utils import sdpa_mask

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
            output, _ = sdpa_attention_forward(module, query, key, value, mask, **kwargs)
            return output, None
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
            keywords = sorted(name for name in kwargs if kwargs[name] is not None)
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
    """Call a model under the prompts in `arguments`; `family_attention.install` has prepared it."""
    if family.route in ("patched", "traced", "two stacks"):
        return call_with(arguments, model, **inputs)
    keywords = {
        name: value for name, value in arguments.for_attention().items() if value is not None
    }
    if arguments.deep_prompt is None or arguments.deep_prompt.scale_shift is None:
        return model(**inputs, **keywords)
    return call_with(arguments, model, **inputs, **keywords)


def current_arguments() -> PromptArguments:
    """The arguments of the forward pass that runs in this thread, if `call_model` keeps them.

    It keeps them for patched and traced families, for encoder-decoders, and if the prompts have
    scales and shifts.
    """
    return _current.arguments


def call_with(
    arguments: PromptArguments, function: Callable[..., Any], /, *args: Any, **kwargs: Any
) -> Any:
    """Call `function` while `arguments` are those of the current forward pass."""
    previous, _current.arguments = _current.arguments, arguments
    try:
        return function(*args, **kwargs)
    finally:
        _current.arguments = previous

"""Scales and shifts of the outputs of the linear layers and norms of a frozen backbone (SSF).

y becomes y (1 + scale) + shift (Lian et al. 2022, arXiv 2210.08823, eq. 4). A deep prompt may have
them beside its keys and values. They are vectors of each prompt, so the rows of a batch may differ
in them, and no weight of the backbone changes.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor, nn

from pipeline.errors import UserError
from pipeline.model.attention import current_arguments
from pipeline.model.layers import layers_of
from pipeline.model.quantization import Int8Linear
from pipeline.pretrained.families import Family

ScaledModules = Sequence[Mapping[str, int]]
"""For each layer: name of a module in the layer -> size of its output, in a fixed order."""


def install_scale_shift(
    model: Any, family: Family, run: Callable[[Sequence[Sequence[int]]], object]
) -> ScaledModules:
    """Make the modules of all layers apply the scales and shifts of the current prompt.

    `run` runs the model on rows of token ids. Modules without weights of their own, and modules
    that are not called exactly once with an output [B, T, size], are left as they are: DeBERTa's
    key projections, for example, also project distances. Raises UserError if several layers are
    the same module, as in ALBERT.
    """
    layers = list(layers_of(model, family))
    if len(layers) != int(model.config.num_hidden_layers):
        raise UserError(
            f"backbone: the layers of this {model.config.model_type!r} model share their weights, "
            "so their scales and shifts cannot differ; set scale_shift: false"
        )
    scaled = _called_modules(layers, run)
    for index, sizes in enumerate(scaled):
        for name, columns in columns_of(sizes).items():
            hook = partial(_scale_and_shift, index, columns)
            layers[index].get_submodule(name).register_forward_hook(hook)
    return scaled


def _called_modules(
    layers: Sequence[nn.Module], run: Callable[[Sequence[Sequence[int]]], object]
) -> ScaledModules:
    shapes: dict[tuple[int, str], list[tuple[int, ...]]] = defaultdict(list)

    def record(key: tuple[int, str], _: nn.Module, __: Any, output: Any) -> None:
        shapes[key].append(tuple(output.shape) if isinstance(output, Tensor) else ())

    handles = [
        module.register_forward_hook(partial(record, (index, name)))
        for index, layer in enumerate(layers)
        for name, module in layer.named_modules()
        if isinstance(module, Int8Linear)
        or next(module.parameters(recurse=False), None) is not None
    ]
    rows = [[1, 2, 3], [1, 2]]
    try:
        run(rows)
    finally:
        for handle in handles:
            handle.remove()
    expected = (len(rows), len(rows[0]))
    return [
        {
            name: calls[0][2]
            for name, _ in layer.named_modules()
            if len(calls := shapes[index, name]) == 1
            and len(calls[0]) == 3
            and calls[0][:2] == expected
        }
        for index, layer in enumerate(layers)
    ]


def columns_of(sizes: Mapping[str, int]) -> dict[str, slice]:
    """The columns of each module of a layer in a table of all its scales or shifts."""
    ends = accumulate(sizes.values())
    return {
        name: slice(end - size, end) for (name, size), end in zip(sizes.items(), ends, strict=True)
    }


def new_scale_shift(scaled: ScaledModules, layers: range) -> Tensor:
    """Scales and shifts [L', 2, W] without effect, for the layers of a prompt.

    W is the total output size of the modules of the largest layer; the others are padded.
    """
    width = max(sum(sizes.values()) for sizes in scaled)
    return torch.zeros(len(layers), 2, width)


def by_module(values: Tensor, scaled: ScaledModules, first_layer: int) -> dict[str, Tensor]:
    """LAYER.MODULE -> scale and shift [2, size] of a table [L', 2, W]."""
    return {
        f"{first_layer + index}.{name}": values[index, :, columns]
        for index in range(len(values))
        for name, columns in columns_of(scaled[first_layer + index]).items()
    }


def _scale_and_shift(
    layer: int, columns: slice, _: nn.Module, __: Any, output: Tensor
) -> Tensor | None:
    """The output [B, T, size] of a module, scaled and shifted; None if it stays the same."""
    prompt = current_arguments().deep_prompt
    if prompt is None or prompt.scale_shift is None:
        return None
    index = layer - prompt.first_layer
    if not 0 <= index < prompt.scale_shift.shape[1]:
        return None
    values = prompt.scale_shift[:, index, :, columns]
    if prompt.prompt_index is not None:
        values = values[prompt.prompt_index]
    scale, shift = values.to(output.dtype).unsqueeze(2).unbind(1)
    result: Tensor = _ScaleShift.apply(output, scale, shift)  # type: ignore[no-untyped-call]
    return result


class _ScaleShift(torch.autograd.Function):
    """y (1 + scale) + shift for y [B, T, size], and scale and shift [B or 1, 1, size].

    It takes two passes over y, where the plain expression takes three, and its backward pass takes
    three in place of six. It rounds once per pass: in bfloat16, 1 + scale alone would lose all
    digits of a small scale.
    """

    @staticmethod
    def forward(ctx: Any, output: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
        ctx.save_for_backward(output, scale)
        return torch.addcmul(output, output, scale).add_(shift)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        output, scale = ctx.saved_tensors
        (gradient,) = gradients
        return (
            torch.addcmul(gradient, gradient, scale),
            (gradient * output).sum_to_size(scale.shape),
            gradient.sum_to_size(scale.shape),
        )

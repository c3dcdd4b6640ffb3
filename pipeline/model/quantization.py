"""Frozen weights in 8 bits, through torchao: less memory, and nearly the same gradients.

Each linear module of the backbone stores its weight as int8 with one scale per output (Dettmers et
al. 2022, section 2.1, without the outliers) and computes in float32. Embeddings, norms and heads
stay float32. torchao is an optional dependency, so functions import it.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from pipeline.errors import UserError

GRADIENT_BOUND = 0.2
"""The largest accepted relative difference between prompt gradients under int8 and float32.

It is 0.05 for MiniLM and 0.08 for SmolLM2-135M, and 0.02 and 0.05 under bfloat16.
"""


def quantize(model: nn.Module, gradient: Callable[[], Tensor]) -> float:
    """Store the weights of all linear modules as int8. Returns the change of `gradient`.

    `gradient` computes the gradient of a prompt [...]. The change is the norm of the difference,
    relative to the norm of the gradient in float32. Raises UserError if torchao is not installed,
    if the model has no linear modules, or if the change exceeds `GRADIENT_BOUND`.
    """
    torchao = _import_torchao()
    if not any(isinstance(module, nn.Linear) for module in model.modules()):
        raise UserError(
            "precision is int8, but the backbone has no linear modules, and torchao stores only "
            "their weights in int8; use bfloat16"
        )
    expected = gradient()
    torchao.quantize_(model.requires_grad_(False), torchao.Int8WeightOnlyConfig())
    change = float((gradient() - expected).norm() / expected.norm())
    if not change <= GRADIENT_BOUND:  # also True for NaN
        raise UserError(
            f"precision is int8, but it changes the gradient of a prompt on this backbone by "
            f"{change:.2g}, more than {GRADIENT_BOUND}; use float32 or bfloat16"
        )
    return change


def weight_bytes(model: nn.Module) -> int:
    """The memory of all weights, in bytes."""
    return sum(_size(parameter) for parameter in model.parameters())


def _size(parameter: Tensor) -> int:
    names = getattr(parameter, "tensor_data_names", None)
    if names is None:
        return parameter.numel() * parameter.element_size()
    return sum(_size(getattr(parameter, name)) for name in names)


def _import_torchao() -> Any:
    try:
        from torchao import quantization  # noqa: PLC0415  (optional and slow to import)
    except ImportError:
        raise UserError(
            "precision is int8, but torchao is not installed; run pip install 'deep-prompt[int8]'"
        ) from None
    return quantization


def refuse_int4() -> None:
    """Raise UserError: no int4 weights of torchao were proven to work under prompts."""
    raise UserError(
        "precision is int4, but torchao packs int4 weights only on GPUs and in bfloat16, and "
        "backbones are loaded and checked on the CPU; use int8"
    )

"""Frozen weights in 8 bits, through torchao: less memory, and nearly the same gradients.

torchao stores the weight of each linear module as int8 with one scale per output (Dettmers et al.
2022, section 2.1, without the outliers). Embeddings, norms and heads stay float32, and all modules
compute in float32. torchao is an optional dependency, so functions import it.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from pipeline.errors import UserError

GRADIENT_BOUND = 0.2
"""The largest accepted relative difference between prompt gradients under int8 and float32.

It is 0.05 for MiniLM and 0.08 for SmolLM2-135M; under bfloat16 it is 0.02 and 0.05.
"""


class Int8Linear(nn.Module):
    """A frozen linear module with a weight of torchao.

    Its tensors are buffers: DeepSpeed moves and shares parameters in ways that torchao's kind of
    parameter does not support.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Any, bias: Tensor | None) -> None:
        """Take the integers [outputs, inputs] and the scales [outputs, 1] of `weight`."""
        super().__init__()
        self.register_buffer("weight", weight.qdata.detach().clone())
        self.register_buffer("scale", weight.scale.detach().clone().flatten())
        self.register_buffer("bias", None if bias is None else bias.detach())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return [..., outputs] of `inputs` [..., inputs]."""
        outputs = nn.functional.linear(inputs, self.weight.to(inputs.dtype)) * self.scale
        return outputs if self.bias is None else outputs + self.bias


def quantize(model: nn.Module, gradient: Callable[[], Tensor]) -> float:
    """Store the weights of all linear modules as int8. Returns the change of `gradient`.

    `gradient` computes the gradient of a prompt [...]. The change is the norm of the difference,
    relative to the norm of the gradient in float32. Raises UserError if torchao is not installed,
    if the model has no linear modules, or if the change exceeds `GRADIENT_BOUND`.
    """
    torchao = _import_torchao()
    linear = {name: part for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    if not linear:
        raise UserError(
            "precision is int8, but the backbone has no linear modules, and torchao stores only "
            "their weights in int8; use bfloat16"
        )
    expected = gradient()
    torchao.quantize_(model.requires_grad_(False), torchao.Int8WeightOnlyConfig())
    for name, module in linear.items():
        model.set_submodule(name, Int8Linear(module.weight, module.bias))
    change = float((gradient() - expected).norm() / expected.norm())
    if not change <= GRADIENT_BOUND:  # also True for NaN
        raise UserError(
            f"precision is int8, but it changes the gradient of a prompt on this backbone by "
            f"{change:.2g}, more than {GRADIENT_BOUND}; use float32 or bfloat16"
        )
    return change


def refuse_int4() -> None:
    """Raise UserError: no int4 weights of torchao were proven to work under prompts."""
    raise UserError(
        "precision is int4, but torchao packs int4 weights only on GPUs and in bfloat16, and "
        "backbones are loaded and checked on the CPU; use int8"
    )


def _import_torchao() -> Any:
    try:
        from torchao import quantization  # noqa: PLC0415  (optional and slow to import)
    except ImportError:
        raise UserError(
            "precision is int8, but torchao is not installed; run pip install 'deep-prompt[int8]'"
        ) from None
    return quantization

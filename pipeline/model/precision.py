"""The precision of a backbone on a device: `auto` in params, and the value in an artifact."""

from typing import Literal

import torch

from pipeline.params import Precision

_BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")
_BFLOAT16_CAPABILITY = (8, 0)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions for products of bfloat16 matrices.

    These are GPUs of compute capability 8.0 or higher, and CPUs with AVX-512 BF16 or AMX. Other
    CPUs convert every product, which takes 2 to 13 times as long as float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= _BFLOAT16_CAPABILITY
    capabilities = torch.cpu.get_capabilities()
    return device.type == "cpu" and any(capabilities.get(flag) for flag in _BFLOAT16_FLAGS)


def training_precision(
    precision: Literal["auto", Precision], trained: bool, device: torch.device
) -> Precision:
    """The precision to train with.

    "auto" is bfloat16 for a frozen backbone on a device that multiplies it, and float32 otherwise.
    `trained` tells whether training changes the weights of the backbone.
    """
    if precision != "auto":
        return precision
    return "bfloat16" if not trained and multiplies_bfloat16(device) else "float32"


def slow_precision(precision: Precision, device: torch.device) -> str:
    """A warning if the params name a precision that is slow on the device; otherwise empty."""
    if precision != "bfloat16" or multiplies_bfloat16(device):
        return ""
    return (
        f"warning: this {device.type.upper()} has no instructions for bfloat16, so float32 is "
        "several times faster; set precision: auto (or float32) in params.yaml"
    )


def inference_precision(trained_in: Precision, device: torch.device) -> Precision:
    """The precision to compute in with a model that was trained in the precision `trained_in`.

    It is the same, except that bfloat16 becomes float32 on a device that does not multiply it.
    """
    slow = trained_in == "bfloat16" and not multiplies_bfloat16(device)
    return "float32" if slow else trained_in

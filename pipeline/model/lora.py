"""LoRA (Hu et al. 2022) by peft: low-rank factors on the query and value projections of a frozen
backbone's attention.

W x becomes W x + (alpha / R) B A x (eq. 3). peft replaces each projection by a module that computes
this; attention, ours or the model's, calls that module as it called the projection. peft is an
extra, and is imported inside the functions.
"""

import warnings
from typing import Any

import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.model.backbone import Backbone
from pipeline.seeding import derive_seed

_ADAPTER = "default"  # peft's name for the only factors


def is_lora(name: str) -> bool:
    """Whether a parameter is one of the factors, by its name in a model."""
    return ".lora_" in name


def add_lora(backbone: Backbone, rank: int, alpha: float, seed: int) -> None:
    """Add factors A [R, inputs], random by `seed`, and B [outputs, R] = 0 to each query and value
    projection, in float32.

    Raises UserError: peft is not installed, or cannot add factors with an effect to this family.
    """
    peft = import_peft()
    config = peft.LoraConfig(
        task_type="FEATURE_EXTRACTION",
        r=rank,
        lora_alpha=alpha,
        target_modules=list(backbone.family.query_value),
    )
    try:
        with (
            torch.random.fork_rng(devices=[]),
            warnings.catch_warnings(
                action="ignore"
            ),  # GPT-2's weights are transposed: peft sees it
        ):
            torch.manual_seed(derive_seed(seed, 7) % (1 << 63))
            peft.inject_adapter_in_model(config, backbone.model, _ADAPTER)
    except ValueError as error:
        raise UserError(_refusal(backbone, "peft finds none of them")) from error
    for factor in lora_factors(backbone).values():
        factor.data = factor.data.float()
    _check_lora_works(backbone)


def lora_factors(backbone: Backbone) -> dict[str, nn.Parameter]:
    """The factors by their names in the model without peft: NAME.lora_A.weight and
    NAME.lora_B.weight of each projection.
    """
    return {
        name.replace(f".{_ADAPTER}.", "."): parameter
        for name, parameter in backbone.model.named_parameters()
        if is_lora(name)
    }


def lora_config(backbone: Backbone) -> dict[str, Any]:
    """The factors' adapter_config.json, as peft reads it."""
    values: dict[str, Any] = backbone.model.peft_config[_ADAPTER].to_dict()
    return {
        key: sorted(value) if isinstance(value, set) else value for key, value in values.items()
    }


def import_peft() -> Any:
    """The library. Raises UserError if it is not installed."""
    try:
        import peft  # noqa: PLC0415  (an extra, and slow to import)
    except ImportError:
        raise UserError("peft is not installed; run pip install 'deep-prompt[peft]'") from None
    return peft


def _check_lora_works(backbone: Backbone) -> None:
    """A model may use a projection's weights and not call it: then its factors have no effect, and
    no gradient.
    """
    ids = torch.arange(3).view(1, 3) + 1
    factors = {name: value for name, value in lora_factors(backbone).items() if "lora_B" in name}
    hidden = backbone(ids, torch.ones_like(ids), torch.zeros_like(ids))
    gradients = torch.autograd.grad(
        hidden[..., 0].sum(), list(factors.values()), allow_unused=True
    )  # of one channel, as in Backbone
    for name, gradient in zip(factors, gradients, strict=True):
        if gradient is None or not bool(gradient.any()):
            raise UserError(
                _refusal(backbone, f"{name.removesuffix('.lora_B.weight')} is not called")
            )


def _refusal(backbone: Backbone, reason: str) -> str:
    return (
        f"backbone: LoRA cannot reach the projections {', '.join(backbone.family.query_value)} of "
        "this "
        f"{backbone.config.model_type!r} model ({reason}); use another backbone or another arm, or "
        "correct "
        "`query_value` in pipeline/pretrained/families.py"
    )

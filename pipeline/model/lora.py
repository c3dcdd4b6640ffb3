"""LoRA (Hu et al. 2022) through peft: low-rank factors on the query and value projections.

The backbone stays frozen. W x becomes W x + (alpha / R) B A x (eq. 3), with rank R. peft replaces
each projection by a module that computes this sum, and the attention calls that module in place of
the projection. peft is an optional dependency, so functions import it.
"""

import warnings
from typing import Any

import torch
from torch import nn

from pipeline.errors import UserError
from pipeline.model.backbone import Backbone
from pipeline.seeding import Stream, torch_seed

_ADAPTER = "default"  # the name of the only adapter in peft


def is_lora(name: str) -> bool:
    """Whether the parameter `name` of a model is a factor."""
    return ".lora_" in name


def add_lora(backbone: Backbone, rank: int, alpha: float, seed: int) -> None:
    """Add float32 factors to each query and value projection: A [R, inputs] and B [outputs, R].

    `seed` determines the random values of A; B starts at 0. R is `rank`.
    Raises UserError if peft is not installed, or if factors have no effect in this model family.
    """
    peft = import_peft()
    if not backbone.family.query_value:
        raise UserError(
            f"backbone: the names of the projections of this {backbone.config.model_type!r} model "
            "are not known, so LoRA cannot reach them; use another backbone or another arm"
        )
    config = peft.LoraConfig(
        task_type="FEATURE_EXTRACTION",
        r=rank,
        lora_alpha=alpha,
        target_modules=list(backbone.family.query_value),
    )
    try:
        with (
            torch.random.fork_rng(devices=[]),
            # peft warns that the weights of GPT-2 are transposed, and adapts to them.
            warnings.catch_warnings(action="ignore"),
        ):
            torch.manual_seed(torch_seed(seed, Stream.LORA))
            peft.inject_adapter_in_model(config, backbone.model, _ADAPTER)
    except ValueError as error:
        raise UserError(_unsupported(backbone, "peft finds none of them")) from error
    for factor in lora_factors(backbone).values():
        factor.data = factor.data.float()
    _check_lora_works(backbone)


def lora_factors(backbone: Backbone) -> dict[str, nn.Parameter]:
    """The factors of each projection NAME: NAME.lora_A.weight and NAME.lora_B.weight.

    The names do not contain the name of peft's adapter.
    """
    return {
        name.replace(f".{_ADAPTER}.", "."): parameter
        for name, parameter in backbone.model.named_parameters()
        if is_lora(name)
    }


def lora_config(backbone: Backbone) -> dict[str, Any]:
    """The content of adapter_config.json for the factors, in the format of peft."""
    values: dict[str, Any] = backbone.model.peft_config[_ADAPTER].to_dict()
    return {
        key: sorted(value) if isinstance(value, set) else value for key, value in values.items()
    }


def import_peft() -> Any:
    """Import peft. Raises UserError if it is not installed."""
    try:
        import peft  # noqa: PLC0415  (optional and slow to import)
    except ImportError:
        raise UserError("peft is not installed; run pip install 'deep-prompt[peft]'") from None
    return peft


def _check_lora_works(backbone: Backbone) -> None:
    """Raise UserError if a factor has no gradient.

    Some models use the weights of a projection without a call of its module. The factors have no
    effect then.
    """
    ids = torch.arange(3).view(1, 3) + 1
    factors = {name: value for name, value in lora_factors(backbone).items() if "lora_B" in name}
    hidden = backbone(ids, torch.ones_like(ids), torch.zeros_like(ids))
    channel = hidden[..., 0].sum()  # The sum of all channels may be constant, as in Backbone.
    gradients = torch.autograd.grad(channel, list(factors.values()), allow_unused=True)
    for name, gradient in zip(factors, gradients, strict=True):
        if gradient is None or not bool(gradient.any()):
            projection = name.removesuffix(".lora_B.weight")
            raise UserError(_unsupported(backbone, f"{projection} is not called"))


def _unsupported(backbone: Backbone, reason: str) -> str:
    return (
        f"backbone: LoRA cannot reach the projections {', '.join(backbone.family.query_value)} of "
        f"this {backbone.config.model_type!r} model ({reason}); use another backbone or another "
        "arm, or correct `query_value` in pipeline/pretrained/families.py"
    )

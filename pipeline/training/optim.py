"""AdamW with a learning rate for each part of the model, the schedule, and gradient norms."""

from collections.abc import Iterable

import torch
from torch import nn

from pipeline.model.prompted_model import PromptedModel, part_of

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW


def optimizer(
    parameters: Iterable[tuple[str, nn.Parameter]],
    learning_rates: dict[str, float],
    weight_decay: float,
) -> torch.optim.AdamW:
    """AdamW with one parameter group per part, named by `part`.

    Weight decay applies to all parameters, because biases and heads are few. The fused kernel is
    several times faster for the 22 million parameters of fine_tune, also on CPUs.
    """
    groups: dict[str, list[nn.Parameter]] = {part: [] for part in learning_rates}
    for name, parameter in parameters:
        groups[part_of(name)].append(parameter)
    return torch.optim.AdamW(
        [
            {"params": group, "lr": learning_rates[part], "part": part}
            for part, group in groups.items()
        ],
        weight_decay=weight_decay,
        fused=True,
    )


def set_learning_rates(
    adam: torch.optim.Optimizer, learning_rates: dict[str, float], factor: float
) -> None:
    """Set the learning rate of each part to `factor` times its peak."""
    for group in adam.param_groups:
        group["lr"] = learning_rates[group["part"]] * factor


def total_norm(model: PromptedModel) -> float:
    """The norm of the gradient of all trained parameters."""
    gradients = [p.grad for p in model.trainable_state().values() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def lr_multiplier(step: int, steps: int, warmup_ratio: float) -> float:
    """The factor for the peak learning rate in step `step` of `steps`.

    It rises linearly over the warmup steps, then falls linearly to 0.
    """
    warmup_steps = max(1, round(warmup_ratio * steps))
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return (steps - step) / max(1, steps - warmup_steps)

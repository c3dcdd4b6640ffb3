"""How an arm is trained, as params.yaml says it."""

from dataclasses import dataclass
from typing import Literal

Arm = Literal["multitask", "deep_prompt", "soft_prompt", "fine_tune", "head_only"]
PromptInit = Literal["text", "normal", "zero_values"]

TRAINED_PARTS: dict[Arm, tuple[str, ...]] = {
    "multitask": ("prompt", "head"),
    "deep_prompt": ("prompt", "head"),
    "soft_prompt": ("prompt", "head"),
    "fine_tune": ("backbone", "head"),
    "head_only": ("head",),
}


@dataclass(frozen=True)
class TrainParams:
    """How one arm is trained. A step is `micro_batches` micro-batches of about `batch_tokens` tokens each.

    `epochs` counts passes over as many rows as the mixture's corpora have together (it may be a fraction); learning rates
    rise linearly over the first `warmup` share of the steps, then fall linearly to 0. `validations` times, evenly spaced, the
    model is scored on `validation_rows` validation examples a task; the best is kept, and `patience` scores in a row without
    a new best end the run (0: never).
    """

    epochs: float
    head_lr: float
    prompt_lr: float | None = None
    backbone_lr: float | None = None
    batch_tokens: int = 512
    micro_batches: int = 1
    num_virtual_tokens: int = 32
    init: PromptInit = "text"
    warmup: float = 0.06
    weight_decay: float = 0.0
    clip: float = 1.0
    validations: int = 4
    validation_rows: int = 500
    patience: int = 0

    def __post_init__(self) -> None:
        positive = ("epochs", "head_lr", "prompt_lr", "backbone_lr", "batch_tokens", "micro_batches", "num_virtual_tokens",
                    "clip", "validations", "validation_rows")
        bad = [f"{name} is {getattr(self, name)}; give a number above 0" for name in positive
               if getattr(self, name) is not None and getattr(self, name) <= 0]
        if not 0 <= self.warmup < 1:
            bad.append(f"warmup is {self.warmup}; give a share of the steps, 0 up to 1")
        if self.weight_decay < 0 or self.patience < 0:
            bad.append("weight_decay and patience cannot be negative")
        if bad:
            raise ValueError("; ".join(bad))

    def learning_rates(self, arm: Arm) -> dict[str, float]:
        """Peak learning rate of each part the arm trains. Raises ValueError where one is missing or has nothing to train."""
        given = {"prompt": self.prompt_lr, "head": self.head_lr, "backbone": self.backbone_lr}
        wanted = TRAINED_PARTS[arm]
        missing = [f"{part}_lr is missing; {arm} trains the {part}" for part in wanted if given[part] is None]
        useless = [f"{part}_lr is set, but {arm} trains no {part}; remove it"
                   for part, value in given.items() if value is not None and part not in wanted]
        if missing or useless:
            raise ValueError("; ".join(missing + useless))
        return {part: value for part, value in given.items() if value is not None}

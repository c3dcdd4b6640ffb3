"""How an arm is trained, as params.yaml says it."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

Arm = Literal["multitask", "deep_prompt", "soft_prompt", "fine_tune", "head_only"]
PromptInit = Literal["text", "normal", "zero_values"]
Precision = Literal["float32", "bfloat16"]

TRAINED_PARTS: dict[Arm, tuple[str, ...]] = {
    "multitask": ("prompt", "head"),
    "deep_prompt": ("prompt", "head"),
    "soft_prompt": ("prompt", "head"),
    "fine_tune": ("backbone", "head"),
    "head_only": ("head",),
}


# What says how a new prompt is made, by the arms that make one; the others start from what they are given, or have none.
_NEW_PROMPT = ("num_virtual_tokens", "init", "prompt_layers", "shift_positions")
_ANY_PROMPT = ("projection", "prompt_dropout", "stored_megabytes")
_PROMPT_KEYS: dict[Arm, tuple[str, ...]] = {
    "multitask": _ANY_PROMPT,
    "deep_prompt": (*_NEW_PROMPT, *_ANY_PROMPT),
    "soft_prompt": ("num_virtual_tokens",),
    "fine_tune": (),
    "head_only": (),
}


@dataclass(frozen=True)
class TrainParams:
    """How one arm is trained. A step is `micro_batches` micro-batches of about `batch_tokens` tokens each.

    `epochs` counts passes over as many rows as the mixture's corpora have together (it may be a fraction); learning rates
    rise linearly over the first `warmup` share of the steps, then fall linearly to 0. `validations` times, evenly spaced, the
    model is scored on `validation_rows` validation examples a task; the best is kept, and `patience` scores in a row without
    a new best end the run (0: never).

    The prompt: `prompt_layers` are those that get one: "all", the top k, or a range [first, last + 1]. `projection` is the size
    of the hidden layer of P-tuning v2's MLP, which computes the prompt (0: the prompt itself is trained). `prompt_dropout` drops
    single numbers of it while training. `factor_rank` gives each task of a mixture low-rank factors on the shared prompt (0:
    none). `shift_positions` trains a prompt that shifts the text by P positions, as peft does: only needed to export to it.

    Under `balance`, a micro-batch's gradient is that of its loss's logarithm: a mixture's tasks pull alike, where one whose loss
    stays high would drown the others in Adam's second moments (the geometric mean of losses: Chennupati et al. 2019, eq. 2).

    `precision` is what a frozen backbone's weights are held and computed in; what is trained is always float32.

    `stored_megabytes`: the frozen layers below the prompt are computed once a train row, not once a step, where what they give
    for all train rows takes at most so many megabytes (0: never); each rank keeps it in memory-mapped temporary files.
    """

    epochs: float
    head_lr: float
    prompt_lr: float | None = None
    backbone_lr: float | None = None
    batch_tokens: int = 512
    micro_batches: int = 1
    num_virtual_tokens: int = 32
    init: PromptInit = "text"
    prompt_layers: Literal["all"] | int | tuple[int, ...] = "all"
    projection: int = 0
    prompt_dropout: float = 0.0
    factor_rank: int = 0
    balance: bool = False
    shift_positions: bool = False
    precision: Precision = "float32"
    stored_megabytes: int = 0
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
        bad += [f"{name} is {getattr(self, name)}; it cannot be negative"
                for name in ("weight_decay", "patience", "projection", "factor_rank", "stored_megabytes")
                if getattr(self, name) < 0]
        if not 0 <= self.prompt_dropout < 1:
            bad.append(f"prompt_dropout is {self.prompt_dropout}; give a share, 0 up to 1")
        if self.precision != "float32" and self.backbone_lr is not None:
            bad.append(f"precision is {self.precision}, which would round away most of what a step adds to a "
                       "trained backbone's weights; remove it")
        if bad:
            raise ValueError("; ".join(bad))

    def layers(self, count: int) -> range:
        """The layers of `count` that get a prompt. Raises ValueError where the backbone does not have them."""
        if self.prompt_layers == "all":
            return range(count)
        bounds = (count - self.prompt_layers, count) if isinstance(self.prompt_layers, int) else self.prompt_layers
        if len(bounds) != 2 or not 0 <= bounds[0] < bounds[1] <= count:
            raise ValueError(f"prompt_layers is {self.prompt_layers}; the backbone has layers 0 to {count - 1}: give all, how "
                             "many of the top ones, or [first, last + 1]")
        return range(*bounds)

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


def useless_keys(arm: Arm, given: Iterable[str]) -> list[str]:
    """Which of the given params are not this arm's to say: about a prompt that it does not make, or about a mixture."""
    return sorted(set(given) & {*_NEW_PROMPT, *_ANY_PROMPT, "factor_rank", "balance"} - set(_PROMPT_KEYS[arm]))

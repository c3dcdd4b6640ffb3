"""params.yaml as checked dataclasses: the backbone, how an arm is trained, how corpora are mixed, and the project as a whole."""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, get_args

from pipeline.arms import ARMS, MULTITASK, PRETRAIN_PARAMS, ArmName, Part
from pipeline.config import parse
from pipeline.errors import UserError, did_you_mean

PromptInit = Literal["text", "normal", "zero_values"]
Precision = Literal["float32", "bfloat16"]
PARAMS_FILE = "params.yaml"  # as messages name it


@dataclass(frozen=True)
class TrainParams:
    """How one arm is trained. A step is `micro_batches_per_step` micro-batches of about `tokens_per_micro_batch` tokens each.

    `epochs` counts passes over as many rows as the mixture's corpora have together (it may be a fraction); learning rates
    rise linearly over the first `warmup_ratio` share of the steps, then fall linearly to 0. `num_validations` times, evenly spaced, the
    model is scored on `validation_rows` validation examples a task; the best is kept, and `patience` scores in a row without
    a new best end the run (0: never).

    The prompt: `prompt_layers` are those that get one: "all", the top k, or a range [first, last + 1]. `projection_size` is the size
    of the hidden layer of P-tuning v2's MLP, which computes the prompt (0: the prompt itself is trained). `prompt_dropout` drops
    single numbers of it while training. `factor_rank` gives each task of a mixture low-rank factors on the shared prompt (0:
    none). `shift_positions` trains a prompt that shifts the text by P positions, as peft does: only needed to export to it.

    Under `balance_losses`, a micro-batch's gradient is that of its loss's logarithm: a mixture's tasks pull alike, where one whose loss
    stays high would drown the others in Adam's second moments (the geometric mean of losses: Chennupati et al. 2019, eq. 2).

    `precision` is what a frozen backbone's weights are held and computed in; what is trained is always float32.

    LoRA: `lora_rank` is the rank of the factors, `lora_alpha` / `lora_rank` scales their product.

    `hidden_state_cache_mb`: the frozen layers below the prompt are computed once a train row, not once a step, where what they give
    for all train rows takes at most so many megabytes (0: never); each rank keeps it in memory-mapped temporary files.
    """

    RENAMED: ClassVar = {
        "batch_tokens": "tokens_per_micro_batch",
        "micro_batches": "micro_batches_per_step",
        "projection": "projection_size",
        "balance": "balance_losses",
        "stored_megabytes": "hidden_state_cache_mb",
        "warmup": "warmup_ratio",
        "clip": "max_grad_norm",
        "validations": "num_validations",
    }

    epochs: float
    head_lr: float
    prompt_lr: float | None = None
    backbone_lr: float | None = None
    lora_lr: float | None = None
    tokens_per_micro_batch: int = 512
    micro_batches_per_step: int = 1
    num_virtual_tokens: int = 32
    init: PromptInit = "text"
    prompt_layers: Literal["all"] | int | tuple[int, ...] = "all"
    projection_size: int = 0
    prompt_dropout: float = 0.0
    factor_rank: int = 0
    balance_losses: bool = False
    shift_positions: bool = False
    lora_rank: int = 8
    lora_alpha: float = 8.0
    precision: Precision = "float32"
    hidden_state_cache_mb: int = 0
    warmup_ratio: float = 0.06
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    num_validations: int = 4
    validation_rows: int = 500
    patience: int = 0

    def __post_init__(self) -> None:
        positive = (
            "epochs",
            "head_lr",
            "prompt_lr",
            "backbone_lr",
            "lora_lr",
            "tokens_per_micro_batch",
            "micro_batches_per_step",
            "num_virtual_tokens",
            "lora_rank",
            "lora_alpha",
            "max_grad_norm",
            "num_validations",
            "validation_rows",
        )
        bad = [
            f"{name} is {getattr(self, name)}; give a number above 0"
            for name in positive
            if getattr(self, name) is not None and getattr(self, name) <= 0
        ]
        if not 0 <= self.warmup_ratio < 1:
            bad.append(f"warmup_ratio is {self.warmup_ratio}; give a share of the steps, 0 up to 1")
        bad += [
            f"{name} is {getattr(self, name)}; it cannot be negative"
            for name in (
                "weight_decay",
                "patience",
                "projection_size",
                "factor_rank",
                "hidden_state_cache_mb",
            )
            if getattr(self, name) < 0
        ]
        if not 0 <= self.prompt_dropout < 1:
            bad.append(f"prompt_dropout is {self.prompt_dropout}; give a share, 0 up to 1")
        if self.precision != "float32" and self.backbone_lr is not None:
            bad.append(
                f"precision is {self.precision}, which would round away most of what a step adds to a "
                "trained backbone's weights; remove it"
            )
        if bad:
            raise ValueError("; ".join(bad))

    def layers(self, count: int) -> range:
        """The layers of `count` that get a prompt. Raises ValueError where the backbone does not have them."""
        if self.prompt_layers == "all":
            return range(count)
        bounds = (
            (count - self.prompt_layers, count)
            if isinstance(self.prompt_layers, int)
            else self.prompt_layers
        )
        if len(bounds) != 2 or not 0 <= bounds[0] < bounds[1] <= count:
            raise ValueError(
                f"prompt_layers is {self.prompt_layers}; the backbone has layers 0 to {count - 1}: give all, how "
                "many of the top ones, or [first, last + 1]"
            )
        return range(*bounds)

    def learning_rates(self, arm: ArmName) -> dict[str, float]:
        """Peak learning rate of each part the arm trains. Raises ValueError if one is missing, or has nothing to train."""
        rates: dict[Part, float | None] = {
            part: getattr(self, f"{part}_lr") for part in get_args(Part)
        }
        parts = ARMS[arm].parts
        missing = [
            f"{part}_lr is missing; {arm} trains the {part}"
            for part in parts
            if rates[part] is None
        ]
        useless = [
            f"{part}_lr is set, but {arm} trains no {part}; remove it"
            for part, rate in rates.items()
            if rate is not None and part not in parts
        ]
        if missing or useless:
            raise ValueError("; ".join(missing + useless))
        return {part: rate for part, rate in rates.items() if rate is not None}


_SPECIAL_PARAMS = {*PRETRAIN_PARAMS, *(key for arm in ARMS.values() for key in arm.params)}


def useless_keys(taken: Collection[str], keys: Iterable[str]) -> list[str]:
    """Those of `keys` that only other trainings take; `taken` are the special params of this one (see `Arm.params`)."""
    return sorted(set(keys) & _SPECIAL_PARAMS - set(taken))


@dataclass(frozen=True)
class MixtureParams:
    """How corpora are mixed; `corpora` lists them, or is "all" that params.yaml has.

    Shares are in proportion to weight * min(examples, cap)^(1/temperature): a temperature of 1 is proportional, "equal" is equal.
    `shares` gives them outright instead (any positive numbers, one a corpus), and then the others have no say. `on_leak` says
    what becomes of train rows whose text is in a validation or test split of any of the corpora: they are only reported,
    dropped from what the mixture trains on, or make it fail. A corpus that is seen more than `most_epochs` times, or of which
    less than `least_epochs` is seen, is warned of: rows repeated up to 4 times are about as good as new ones (Muennighoff et
    al. 2023).
    """

    corpora: Literal["all"] | tuple[str, ...]
    temperature: float | Literal["equal"] = 2.0
    cap: int = 100_000
    weights: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    on_leak: Literal["fail", "drop", "report"] = "report"
    most_epochs: float = 4.0
    least_epochs: float = 0.05

    def __post_init__(self) -> None:
        if self.temperature != "equal" and self.temperature <= 0:
            raise ValueError(
                f"temperature is {self.temperature}; give a number above 0 (1 is proportional), or equal"
            )
        if self.cap < 1:
            raise ValueError(
                f"cap is {self.cap}; give the largest number of examples that counts, at least 1"
            )
        for key, given in (("weights", self.weights), ("shares", self.shares)):
            for name, value in given.items():
                if not 0 < value < math.inf:
                    raise ValueError(
                        f"{key}.{name} is {value}; give a number above 0, or leave the corpus out of `corpora`"
                    )
        if self.shares and self.weights:
            raise ValueError("shares says what weights would only change; remove one of the two")
        if not 0 <= self.least_epochs < self.most_epochs:
            raise ValueError(
                f"least_epochs is {self.least_epochs} and most_epochs {self.most_epochs}; give 0 or more, and more"
            )


_SYNTAX = re.compile(r"(package|folder|hub):(.+)")
_PACKAGE = re.compile(r"[^\W\d]\w*(/.*)?")  # no dots: finding a.b imports a
_HUB = re.compile(r"([\w.-]+/)?[\w.-]+@[0-9a-f]{40}")


@dataclass(frozen=True)
class BackboneParams:
    """`source` as above; `sha256` of its model.safetensors, which only a hub revision can do without."""

    source: str
    sha256: str | None = None

    def __post_init__(self) -> None:
        match = _SYNTAX.fullmatch(self.source)
        if not match:
            raise ValueError(
                f"source is {self.source!r}; write package:NAME/FOLDER, folder:PATH or hub:ID@REVISION"
            )
        if match[1] == "hub" and not _HUB.fullmatch(match[2]):
            raise ValueError(
                f"source is {self.source!r}; a hub id needs a pinned revision: hub:ID@ and 40 hex digits"
            )
        if match[1] == "package" and not _PACKAGE.fullmatch(match[2]):
            raise ValueError(
                f"source is {self.source!r}; write package:NAME/FOLDER, NAME being a top-level package"
            )
        if match[1] != "hub" and self.sha256 is None:
            raise ValueError(
                f"sha256 is missing; add what `sha256sum model.safetensors` prints for {self.source}"
            )


Values = dict[str, Any]
Tool = Literal["tensorboard", "mlflow", "wandb"]


@dataclass(frozen=True)
class GenerateParams:
    """Which generated corpora to write, with how many training rows each."""

    corpora: tuple[Literal["ner", "qa", "srl"], ...] = ()
    rows: int = 4000
    seed: int = 7


@dataclass(frozen=True)
class TaskParams:
    """One corpus and the task on it. `source` is its folder under `data_root`; `init_from` is the artifact, a folder under artifacts/,
    whose prompt its multitask arm starts from: pretrain/MIXTURE (the shared one), multitask/TASK (another task's), imported/NAME.

    Windows have at most `max_length` tokens and overlap by `stride`. `test_rows` limits the test to so many examples, chosen by
    a hash (null: all). In params.yaml, a key with the name of an arm overrides that arm's params for this task.
    """

    RENAMED: ClassVar = {"data": "source", "start": "init_from"}
    GATHERED: ClassVar = {"overrides": ARMS}

    source: str
    init_from: str
    max_length: int
    stride: int
    test_rows: int | None
    overrides: dict[str, Values] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.max_length < 8 or not 0 <= self.stride < self.max_length // 2:
            raise ValueError(
                f"max_length is {self.max_length} and stride {self.stride}; "
                "give a max_length of at least 8 and a stride below half of it"
            )
        arms = [arm.name for arm in ARMS.values() if arm.prompt == "deep"]
        if not re.fullmatch(rf"(pretrain|imported|{'|'.join(arms)})/\w[\w.-]*", self.init_from):
            raise ValueError(
                f"init_from is {self.init_from!r}; give pretrain/MIXTURE, "
                f"{', '.join(f'{arm}/TASK' for arm in arms)} or imported/NAME"
            )


@dataclass(frozen=True)
class CompareParams:
    """The baseline arms, and the tasks to run them on. `published` are others' scores to show beside: source -> arm -> task."""

    arms: tuple[ArmName, ...]
    tasks: tuple[str, ...]
    published: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for arm in self.arms:
            if not ARMS[arm].baseline:
                raise ValueError(f"arms has {arm}, which runs on every task anyway; remove it")


@dataclass(frozen=True)
class RepeatParams:
    """Which arms are trained on which tasks once more with each of `seeds` in place of `seed`: how far a score hangs on luck. The
    shared prompt stays the same.
    """

    arms: tuple[ArmName, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class ShiftParams:
    """The test rows of the task `data`, seen by the model of the task `model`. `labels` says which of the model's labels stands
    for each of the data's; only labels that are in it count. ({}: the two tasks have the same classes.)
    """

    data: str
    model: str
    labels: dict[str, str]


@dataclass(frozen=True)
class ProbeParams:
    """What is tried out of which arms and tasks, on at most `rows` test rows each; `typo_rate` is the share of words that get one."""

    RENAMED: ClassVar = {"typos": "typo_rate"}

    arms: tuple[ArmName, ...]
    tasks: tuple[str, ...]
    rows: int
    typo_rate: float
    out_of_domain: tuple[ShiftParams, ...]

    def __post_init__(self) -> None:
        if self.rows < 1 or not 0 < self.typo_rate <= 1:
            raise ValueError(
                f"rows is {self.rows} and typo_rate {self.typo_rate}; give at least one row, and a share above 0, up to 1"
            )


@dataclass(frozen=True)
class Params:
    """All of params.yaml. `tracking` is where the curves of trainings go besides runs/: no stage depends on it."""

    seed: int
    data_root: str
    backbone: BackboneParams
    tasks: dict[str, TaskParams]
    mixtures: dict[str, MixtureParams]
    pretrain: dict[str, TrainParams]
    arms: dict[str, Values]
    compare: CompareParams
    repeat: RepeatParams
    probe: ProbeParams
    generate: GenerateParams
    tracking: Tool | None = None

    def members(self, mixture: str) -> tuple[str, ...]:
        """The corpora of a mixture, in the order of `tasks`."""
        chosen = self.mixtures[mixture].corpora
        return tuple(name for name in self.tasks if chosen == "all" or name in chosen)

    @property
    def compared_arms(self) -> tuple[ArmName, ...]:
        """The arms that are run: multitask, and the baselines beside it."""
        return (MULTITASK.name, *self.compare.arms)

    def tasks_of(self, arm: ArmName) -> tuple[str, ...]:
        """The tasks that an arm is run on."""
        if not ARMS[arm].baseline:
            return tuple(self.tasks)
        return self.compare.tasks if arm in self.compare.arms else ()

    def training(self, arm: ArmName, task: str, where: str = PARAMS_FILE) -> TrainParams:
        """An arm's params with the task's overrides on top; `where` names their file in messages. Raises UserError."""
        overrides = task_of(self, task).overrides.get(arm, {})
        if arm not in self.arms:
            raise UserError(f"{where}: arms: key {arm!r} is missing; say how that arm is trained")
        return _training(
            arm,
            {**self.arms[arm], **overrides},
            f"{where}: arms.{arm}" + (f" with tasks.{task}.{arm}" if overrides else ""),
        )


def _training(arm: ArmName, values: Mapping[str, Any], where: str) -> TrainParams:
    params = parse(TrainParams, dict(values), where)
    problems = [
        f"{where}: {key} is set, but {arm} has no use for it; remove it"
        for key in useless_keys(ARMS[arm].params, values)
    ]
    try:
        params.learning_rates(arm)
    except ValueError as error:
        problems.append(f"{where}: {error}")
    if problems:
        raise UserError(*problems)
    return params


def task_of(params: Params, name: str) -> TaskParams:
    """A task's params. Raises UserError where params.yaml has no such task."""
    if name not in params.tasks:
        raise UserError(f"{PARAMS_FILE}: tasks: no task {name!r}{did_you_mean(name, params.tasks)}")
    return params.tasks[name]

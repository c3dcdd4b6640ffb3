"""params.yaml as checked dataclasses: backbone, training, mixtures, and the whole project."""

import dataclasses
import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, get_args

from pipeline.arms import ARMS, LORA_PARAMS, MULTITASK, PRETRAIN_PARAMS, ArmName, Part
from pipeline.config import parse_valid
from pipeline.errors import UserError, did_you_mean

PromptInit = Literal["text", "normal", "zero_values"]
Precision = Literal["float32", "bfloat16", "int8", "int4"]
PARAMS_FILE = "params.yaml"  # the name in messages


@dataclass(frozen=True)
class TrainParams:
    """Training params of an arm.

    A step has `micro_batches_per_step` micro-batches of about `tokens_per_micro_batch` tokens each.
    `epochs` counts passes over the rows of all corpora of the mixture and may be a fraction. It and
    the learning rate of each trained part are required, except in an arm that trains nothing.
    Learning rates rise linearly over the share `warmup_ratio` of the steps, then fall linearly to
    0. The model is scored `num_validations` times, evenly spaced, on `validation_rows` validation
    examples per task. The best values are kept. The run ends early after `patience` validations in
    a row without a new best (0: never).

    Prompt: `prompt_layers` selects its layers: "all", the top k, or a range [first, last + 1].
    `projection_size` is the size of the hidden layer of P-tuning v2's MLP, which computes the
    prompt (0: train the prompt itself). `prompt_dropout` drops single values in training.
    `factor_rank` adds low-rank factors per task to a shared prompt (0: none). With
    `shift_positions` the prompt shifts the text by P positions, as peft does; this is only needed
    for exports to peft. `scale_shift` also trains a scale and a shift of the output of each linear
    layer and norm in the prompt's layers (SSF: Lian et al. 2022).

    With `balance_losses`, training minimizes the logarithm of each micro-batch's loss, so all tasks
    of a mixture have gradients of similar size (geometric mean of the losses: Chennupati et al.
    2019, eq. 2). Without it, a task with a high loss dominates Adam's second moments.

    `precision` is the type of a frozen backbone's weights and of the backbone's computation; int8
    weights compute in float32. "auto" is bfloat16 for a frozen backbone on a device that multiplies
    it natively (CPUs with AVX-512 BF16 or AMX, GPUs of compute capability 8.0 or higher), and
    float32 otherwise; the artifact records which. Trained values are always float32: a trained
    backbone computes with rounded copies of its weights (autocast). LoRA: `lora_rank` is the rank
    of the factors; `lora_alpha` / `lora_rank` scales their product. Beside a prompt from an
    artifact, the factors are trained if `lora_lr` is set.

    `hidden_state_cache_mb`: cache the output of the frozen layers below the prompt, once per
    training row, if all rows fit into this many megabytes (0: never). Each rank has its copy in
    memory-mapped temporary files.
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
    STAND_INS: ClassVar = {
        "epochs": 1.0,
        "head_lr": 1.0,
        "prompt_lr": 1.0,
        "backbone_lr": 1.0,
        "lora_lr": 1.0,
    }

    epochs: float = 0.0
    head_lr: float | None = None
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
    scale_shift: bool = False
    lora_rank: int = 8
    lora_alpha: float = 8.0
    precision: Literal["auto", Precision] = "auto"
    hidden_state_cache_mb: int = 0
    warmup_ratio: float = 0.06
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    num_validations: int = 4
    validation_rows: int = 500
    patience: int = 0

    def __post_init__(self) -> None:
        positive = (
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
        problems = [
            f"{name} is {getattr(self, name)}; give a number above 0"
            for name in positive
            if getattr(self, name) is not None and getattr(self, name) <= 0
        ]
        if not 0 <= self.warmup_ratio < 1:
            problems.append(
                f"warmup_ratio is {self.warmup_ratio}; give a share of the steps from 0 up to 1"
            )
        problems += [
            f"{name} is {getattr(self, name)}; it cannot be negative"
            for name in (
                "epochs",
                "weight_decay",
                "patience",
                "projection_size",
                "factor_rank",
                "hidden_state_cache_mb",
            )
            if getattr(self, name) < 0
        ]
        if not 0 <= self.prompt_dropout < 1:
            problems.append(f"prompt_dropout is {self.prompt_dropout}; give a share from 0 up to 1")
        if self.precision == "int8" and (self.backbone_lr or self.lora_lr) is not None:
            problems.append(
                "precision is int8, but only frozen weights can be int8, without LoRA factors on "
                "them; use float32 or bfloat16"
            )
        if self.hidden_state_cache_mb and self.lora_lr is not None:
            problems.append(
                "hidden_state_cache_mb is set, but LoRA factors change the layers below the "
                "prompt; remove one of them"
            )
        if problems:
            raise ValueError(*problems)

    def layers(self, count: int) -> range:
        """The layers with a prompt, of a backbone with `count` layers.

        Raises ValueError if the backbone does not have these layers.
        """
        if self.prompt_layers == "all":
            return range(count)
        bounds = (
            (count - self.prompt_layers, count)
            if isinstance(self.prompt_layers, int)
            else self.prompt_layers
        )
        if len(bounds) != 2 or not 0 <= bounds[0] < bounds[1] <= count:
            raise ValueError(
                f"prompt_layers is {self.prompt_layers}, but the backbone has layers 0 to "
                f"{count - 1}; give all, the number of top layers, or [first, last + 1]"
            )
        return range(*bounds)

    def problems_of(self, arm: ArmName) -> list[str]:
        """The values that do not fit an arm.

        A value is missing, or a learning rate is set for a part that the arm does not train.
        """
        trained, optional = ARMS[arm].parts, ARMS[arm].optional_parts
        problems = []
        if trained and not self.epochs:
            problems.append("epochs is missing or 0; give a number above 0")
        for part in get_args(Part):
            has_rate = getattr(self, f"{part}_lr") is not None
            if part in trained and not has_rate:
                problems.append(f"{part}_lr is missing; {arm} trains the {part}")
            if part not in (*trained, *optional) and has_rate:
                problems.append(f"{part}_lr is set, but {arm} trains no {part}; remove it")
        return problems

    def learning_rates(self, arm: ArmName) -> dict[str, float]:
        """The peak learning rate of each part that the arm trains (see `problems_of`)."""
        record = ARMS[arm]
        rates = {part: getattr(self, f"{part}_lr") for part in get_args(Part)}
        return {
            part: rate
            for part, rate in rates.items()
            if part in record.parts or (part in record.optional_parts and rate is not None)
        }

    def used(self, arm_params: Collection[str]) -> dict[str, Any]:
        """The params that have an effect. `arm_params` is `Arm.params`, or PRETRAIN_PARAMS."""
        values = dataclasses.asdict(self)
        unused = {*unused_keys(arm_params, values), *([] if self.lora_lr else LORA_PARAMS)}
        return {
            key: value for key, value in values.items() if key not in unused and value is not None
        }


_SPECIAL_PARAMS = {*PRETRAIN_PARAMS, *(key for arm in ARMS.values() for key in arm.params)}


def unused_keys(arm_params: Collection[str], keys: Iterable[str]) -> list[str]:
    """The `keys` that only other arms use. `arm_params` is `Arm.params` of this arm."""
    return sorted(set(keys) & _SPECIAL_PARAMS - set(arm_params))


@dataclass(frozen=True)
class MixtureParams:
    """Params of a mixture. `corpora` lists its corpora, or is "all".

    A corpus's share is proportional to weight * min(examples, cap)^(1/temperature). Temperature 1
    is proportional to size, "equal" gives equal shares. `shares` sets the shares directly (positive
    numbers, one per corpus) and overrides the formula. `on_leak` handles training rows whose text
    occurs in a validation or test split of a corpus: report them, drop them from the mixture, or
    fail. `mix` warns if a corpus has more than `max_epochs` or less than `min_epochs` epochs.
    Rows repeated up to 4 times are about as useful as new rows (Muennighoff et al. 2023).
    """

    RENAMED: ClassVar = {"most_epochs": "max_epochs", "least_epochs": "min_epochs"}
    STAND_INS: ClassVar = {"corpora": "all"}

    corpora: Literal["all"] | tuple[str, ...]
    temperature: float | Literal["equal"] = 2.0
    cap: int = 100_000
    weights: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    on_leak: Literal["fail", "drop", "report"] = "report"
    max_epochs: float = 4.0
    min_epochs: float = 0.05

    def __post_init__(self) -> None:
        problems = []
        if self.temperature != "equal" and self.temperature <= 0:
            problems.append(
                f"temperature is {self.temperature}; give a number above 0 (1 is proportional to "
                "size), or equal"
            )
        if self.cap < 1:
            problems.append(f"cap is {self.cap}; give a maximum number of examples, at least 1")
        problems += self._corpora_problems()
        problems += [
            f"{key}.{name} is {value}; give a number above 0, or remove the corpus from corpora"
            for key, values in (("weights", self.weights), ("shares", self.shares))
            for name, value in values.items()
            if not 0 < value < math.inf
        ]
        if self.shares and self.weights:
            problems.append(
                "shares and weights are both set, and shares override weights; remove one of them"
            )
        if not 0 <= self.min_epochs < self.max_epochs:
            problems.append(
                f"min_epochs is {self.min_epochs} and max_epochs {self.max_epochs}; give "
                "0 <= min_epochs < max_epochs"
            )
        if problems:
            raise ValueError(*problems)

    def _corpora_problems(self) -> list[str]:
        if not self.corpora:
            return ["corpora is empty; name at least one task, or remove the mixture"]
        if self.corpora == "all":
            return []
        problems = []
        if len({*self.corpora}) < len(self.corpora):
            problems.append(f"corpora is {', '.join(self.corpora)}; name each task once")
        if others := sorted({*self.weights} - {*self.corpora}):
            problems.append(
                f"weights has {', '.join(others)}, which corpora does not; remove it, or add it to "
                "corpora"
            )
        return problems


_SYNTAX = re.compile(r"(package|folder|hub):(.+)")
_PACKAGE = re.compile(r"[^\W\d]\w*(/.*)?")  # no dots, because a search for a.b imports a
_HUB = re.compile(r"([\w.-]+/)?[\w.-]+@[0-9a-f]{40}")
MIN_WINDOW = 8  # tokens


def check_source(source: str) -> None:
    """Check the syntax of the source of a backbone. Raises ValueError with the reason."""
    match = _SYNTAX.fullmatch(source)
    if not match:
        raise ValueError(
            f"source is {source!r}; write package:NAME/FOLDER, folder:PATH or hub:ID@REVISION"
        )
    if match[1] == "hub" and not _HUB.fullmatch(match[2]):
        raise ValueError(
            f"source is {source!r}; pin the revision of a hub id: hub:ID@ and 40 hexadecimal digits"
        )
    if match[1] == "package" and not _PACKAGE.fullmatch(match[2]):
        raise ValueError(
            f"source is {source!r}; write package:NAME/FOLDER with a top-level package as NAME"
        )


def is_window_size(max_length: int, stride: int) -> bool:
    """Whether windows of `max_length` tokens may overlap by `stride`."""
    return max_length >= MIN_WINDOW and 0 <= stride < max_length // 2


@dataclass(frozen=True)
class BackboneParams:
    """The location of the backbone, and which part of it to load.

    `source` is package:NAME/FOLDER, folder:PATH or hub:ID@REVISION. `sha256` is the hash of its
    model.safetensors, or of the GGUF file that FOLDER or PATH names; it is optional for hub
    revisions only. With `decoder`, an encoder-decoder is loaded as a whole, which text generation
    needs; without it, only the encoder of T5 is.
    """

    source: str
    sha256: str | None = None
    decoder: bool = False

    def __post_init__(self) -> None:
        check_source(self.source)
        if not self.source.startswith("hub:") and self.sha256 is None:
            is_gguf = self.source.endswith(".gguf")
            weights = self.source.rpartition("/")[2] if is_gguf else "model.safetensors"
            raise ValueError(
                f"sha256 is missing; add the output of `sha256sum {weights}` for {self.source}"
            )

    def has_weights_of(self, other: "BackboneParams") -> bool:
        """Whether the weights are those of `other`.

        Compares hashes if both are known, because two folders may hold the same files.
        """
        if self.sha256 is None or other.sha256 is None:
            return self.source == other.source
        return self.sha256 == other.sha256


Values = dict[str, Any]
Tool = Literal["tensorboard", "mlflow", "wandb"]


@dataclass(frozen=True)
class GenerateParams:
    """The generated corpora to write. `rows` is the number of training rows of each."""

    STAND_INS: ClassVar = {"corpora": ("ner", "qa", "srl")}

    corpora: tuple[Literal["ner", "qa", "srl"], ...] = ()
    rows: int = 4000
    seed: int = 7


@dataclass(frozen=True)
class TaskParams:
    """A corpus and the task on it.

    `source` is the corpus's folder under `data_root`, or "hub". `init_from` is the artifact (a
    folder under artifacts/) whose prompt the arm multitask starts from: pretrain/MIXTURE,
    multitask/TASK, zoo/NAME or imported/NAME. Windows have at most `max_length` tokens and overlap
    by `stride`. Predicted answers have at most `max_answer_length` sub-words (null: 30), generated
    texts too (null: 64); other tasks have no such length. `test_rows` limits the test set to this
    many examples, selected by a hash (null: all). In params.yaml, a key with the name of an arm
    overrides that arm's params for this task.
    """

    RENAMED: ClassVar = {"data": "source", "start": "init_from"}
    KEY_GROUPS: ClassVar = {"overrides": ARMS}
    STAND_INS: ClassVar = {
        "source": "",
        "init_from": "zoo/squad",
        "max_length": 1_000_000,
        "stride": 0,
        "test_rows": None,
    }

    source: str
    init_from: str
    max_length: int
    stride: int
    test_rows: int | None
    max_answer_length: int | None = None
    overrides: dict[str, Values] = field(default_factory=dict)

    def __post_init__(self) -> None:
        problems = []
        if not is_window_size(self.max_length, self.stride):
            problems.append(
                f"max_length is {self.max_length} and stride {self.stride}; "
                f"give a max_length of at least {MIN_WINDOW} and a stride below half of it"
            )
        if PurePosixPath(self.source).is_absolute():
            problems.append(
                f"source is {self.source!r}; give a folder below data_root, without / at the start"
            )
        if self.test_rows is not None and self.test_rows < 1:
            problems.append(
                f"test_rows is {self.test_rows}; give a number above 0, or null for all"
            )
        arms = [
            arm.name for arm in ARMS.values() if arm.prompt == "deep" and not arm.random_backbone
        ]
        if not re.fullmatch(rf"(pretrain|imported|zoo|{'|'.join(arms)})/\w[\w.-]*", self.init_from):
            problems.append(
                f"init_from is {self.init_from!r}; give pretrain/MIXTURE, "
                f"{', '.join(f'{arm}/TASK' for arm in arms)}, zoo/NAME or imported/NAME"
            )
        if problems:
            raise ValueError(*problems)


@dataclass(frozen=True)
class CompareParams:
    """The baseline arms, and the tasks to run them on.

    `published` has published scores for the report: source -> arm -> task -> score.
    """

    STAND_INS: ClassVar = {"arms": (), "tasks": ()}

    arms: tuple[ArmName, ...]
    tasks: tuple[str, ...]
    published: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class RepeatParams:
    """The arms and tasks to train again with each of `seeds`, to measure seed variance.

    The shared prompt stays the same.
    """

    STAND_INS: ClassVar = {"arms": (), "tasks": (), "seeds": ()}

    arms: tuple[ArmName, ...]
    tasks: tuple[str, ...]
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class ShiftParams:
    """An out-of-domain test: the model of the task `model` on the test rows of the task `data`.

    `labels` maps labels of the data to labels of the model; only these labels count. {} means that
    both tasks have the same classes.
    """

    data: str
    model: str
    labels: dict[str, str]


@dataclass(frozen=True)
class ProbeParams:
    """The arms and tasks to probe, on at most `rows` test rows each.

    `typo_rate` is the share of words that get a typo.
    """

    RENAMED: ClassVar = {"typos": "typo_rate"}
    STAND_INS: ClassVar = {
        "arms": (),
        "tasks": (),
        "rows": 1,
        "typo_rate": 1.0,
        "out_of_domain": (),
    }

    arms: tuple[ArmName, ...]
    tasks: tuple[str, ...]
    rows: int
    typo_rate: float
    out_of_domain: tuple[ShiftParams, ...]

    def __post_init__(self) -> None:
        if self.rows < 1 or not 0 < self.typo_rate <= 1:
            raise ValueError(
                f"rows is {self.rows} and typo_rate {self.typo_rate}; give at least one row, and a "
                "rate above 0, up to 1"
            )


@dataclass(frozen=True)
class Params:
    """All of params.yaml.

    `tracking` is an additional destination of training curves. No stage depends on it.
    """

    STAND_INS: ClassVar = {
        "seed": 0,
        "data_root": "",
        "backbone": BackboneParams(f"hub:none@{'0' * 40}"),
        "tasks": {},
        "mixtures": {},
        "pretrain": {},
        "arms": {},
    }

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

    def corpora_of(self, mixture: str) -> tuple[str, ...]:
        """The corpora of a mixture, in the order of `tasks`."""
        corpora = self.mixtures[mixture].corpora
        return tuple(name for name in self.tasks if corpora == "all" or name in corpora)

    @property
    def compared_arms(self) -> tuple[ArmName, ...]:
        """The arms of the comparison: multitask and the baselines."""
        return (MULTITASK.name, *self.compare.arms)

    def tasks_of(self, arm: ArmName) -> tuple[str, ...]:
        """The tasks of an arm."""
        if not ARMS[arm].baseline:
            return tuple(self.tasks)
        return self.compare.tasks if arm in self.compare.arms else ()

    def training(self, arm: ArmName, task: str, where: str = PARAMS_FILE) -> TrainParams:
        """The params of an arm on a task, with the task's overrides.

        `where` names the params file in messages. Raises UserError if the arm has no params, or
        invalid params.
        """
        overrides = task_of(self, task).overrides.get(arm, {})
        if arm not in self.arms:
            raise UserError(f"{where}: arms: key {arm!r} is missing; set how to train that arm")
        return _training(
            arm,
            {**self.arms[arm], **overrides},
            f"{where}: arms.{arm}" + (f" with tasks.{task}.{arm}" if overrides else ""),
        )


def _training(arm: ArmName, values: Mapping[str, Any], where: str) -> TrainParams:
    params, problems = parse_valid(TrainParams, dict(values), where)
    problems += [
        f"{where}: {key} is set, but {arm} does not use it; remove it"
        for key in unused_keys(ARMS[arm].params, values)
    ]
    if ARMS[arm].optional_parts and params.lora_lr is None:
        problems += [
            f"{where}: {key} is set, but there are no LoRA factors without lora_lr; set it, or "
            f"remove {key}"
            for key in LORA_PARAMS
            if key in values
        ]
    problems += [f"{where}: {problem}" for problem in params.problems_of(arm)]
    if problems:
        raise UserError(*problems)
    return params


def task_of(params: Params, name: str) -> TaskParams:
    """The params of a task. Raises UserError if params.yaml has no such task."""
    if name not in params.tasks:
        raise UserError(f"{PARAMS_FILE}: tasks: no task {name!r}{did_you_mean(name, params.tasks)}")
    return params.tasks[name]

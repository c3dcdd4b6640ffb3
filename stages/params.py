"""params.yaml as checked dataclasses."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

from pipeline.config import load_yaml, parse
from pipeline.errors import UserError, did_you_mean
from pipeline.mixture import MixtureParams
from pipeline.params import Arm, TrainParams, useless_keys
from pipeline.source import BackboneParams

PATH = Path("params.yaml")
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
    """One corpus and the task on it. `data` is its folder under `data_root`; `start` is the artifact, a folder under artifacts/,
    whose prompt its multitask arm starts from: pretrain/MIXTURE (the shared one), multitask/TASK (another task's), imported/NAME.

    Windows have at most `max_length` tokens and overlap by `stride`. `test_rows` limits the test to so many examples, chosen by
    a hash (null: all). The keys named after arms override that arm's params for this task ({}: nothing); DVC wants one for each
    arm that the task is compared in.
    """

    data: str
    start: str
    max_length: int
    stride: int
    test_rows: int | None
    multitask: Values
    deep_prompt: Values | None = None
    soft_prompt: Values | None = None
    fine_tune: Values | None = None
    head_only: Values | None = None

    def __post_init__(self) -> None:
        if self.max_length < 8 or not 0 <= self.stride < self.max_length // 2:
            raise ValueError(f"max_length is {self.max_length} and stride {self.stride}; "
                             "give a max_length of at least 8 and a stride below half of it")
        if not re.fullmatch(r"(pretrain|multitask|deep_prompt|imported)/\w[\w.-]*", self.start):
            raise ValueError(f"start is {self.start!r}; give pretrain/MIXTURE, multitask/TASK, deep_prompt/TASK or imported/NAME")


@dataclass(frozen=True)
class CompareParams:
    """The baseline arms, and the tasks to run them on. `published` are others' scores to show beside: source -> arm -> task."""

    arms: tuple[Literal["deep_prompt", "soft_prompt", "fine_tune", "head_only"], ...]
    tasks: tuple[str, ...]
    published: dict[str, dict[str, dict[str, float]]] = field(default_factory=dict)


@dataclass(frozen=True)
class RepeatParams:
    """Which arms are trained on which tasks once more with each of `seeds` in place of `seed`: how far a score hangs on luck. The
    shared prompt stays the same.
    """

    arms: tuple[Arm, ...]
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
    """What is tried out of which arms and tasks, on at most `rows` test rows each; `typos` is the share of words that get one."""

    arms: tuple[Arm, ...]
    tasks: tuple[str, ...]
    rows: int
    typos: float
    out_of_domain: tuple[ShiftParams, ...]

    def __post_init__(self) -> None:
        if self.rows < 1 or not 0 < self.typos <= 1:
            raise ValueError(f"rows is {self.rows} and typos {self.typos}; give at least one row, and a share above 0, up to 1")


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

    def training(self, arm: Arm, task: str, where: str = str(PATH)) -> TrainParams:
        """An arm's params with the task's overrides on top; `where` names their file in messages. Raises UserError."""
        overrides: Values | None = getattr(task_of(self, task), arm)
        if overrides is None:
            raise UserError(f"{where}: tasks.{task}: key {arm!r} is missing; add {arm}: {{}}")
        return _training(arm, {**self.arms.get(arm, {}), **overrides}, f"{where}: arms.{arm} with tasks.{task}.{arm}")


def _training(arm: Arm, values: Mapping[str, Any], where: str) -> TrainParams:
    params = parse(TrainParams, dict(values), where)
    problems = [f"{where}: {key} is set, but {arm} has no use for it; remove it" for key in useless_keys(arm, values)]
    try:
        params.learning_rates(arm)
    except ValueError as error:
        problems.append(f"{where}: {error}")
    if problems:
        raise UserError(*problems)
    return params


def load_params() -> Params:
    """params.yaml of the working folder. Raises UserError with every problem that can be told from it alone."""
    return check_params(load_yaml(PATH), str(PATH))


def check_params(values: Values, where: str) -> Params:
    """Plain values as checked params; `where` names their file in messages."""
    params = parse(Params, values, where)
    problems = [problem for check in (_names, _arms, _repeat, _probe) for problem in check(params, where)]
    if problems:
        raise UserError(*problems)
    return params


def _names(params: Params, where: str) -> list[str]:
    problems = []
    for name, task in params.tasks.items():
        kind, source = task.start.split("/")
        if kind == "pretrain" and source not in params.mixtures:
            problems.append(f"{where}: tasks.{name}.start: no mixture {source!r}{did_you_mean(source, params.mixtures)}")
        elif kind == "pretrain" and name not in params.members(source):
            problems.append(f"{where}: tasks.{name}.start: {source!r} does not hold {name!r}; add it to the mixture's corpora")
        elif kind == "multitask" and (source == name or source not in params.tasks):
            hint = did_you_mean(source, set(params.tasks) - {name})
            problems.append(f"{where}: tasks.{name}.start: no other task {source!r}{hint}")
        elif kind == "deep_prompt" and not ("deep_prompt" in params.compare.arms and source in params.compare.tasks):
            problems.append(f"{where}: tasks.{name}.start: the arm deep_prompt is not run on {source!r}; add both to compare")
    for name, mixture in params.mixtures.items():
        listed = () if mixture.corpora == "all" else mixture.corpora
        unknown = [corpus for corpus in (*listed, *mixture.weights, *mixture.shares) if corpus not in params.tasks]
        problems += [f"{where}: mixtures.{name}: no task {corpus!r}{did_you_mean(corpus, params.tasks)}" for corpus in unknown]
        if name not in params.pretrain:
            problems.append(f"{where}: pretrain: key {name!r} is missing; say how that mixture is trained")
    problems += [f"{where}: compare.tasks: no task {name!r}{did_you_mean(name, params.tasks)}"
                 for name in params.compare.tasks if name not in params.tasks]
    problems += [f"{where}: compare.published: {source}: {what} {name!r}{did_you_mean(name, known)}"
                 for source, arms in params.compare.published.items() for arm, scores in arms.items()
                 for what, names, known in (("no arm", [arm], get_args(Arm)), ("no task", scores, params.tasks))
                 for name in names if name not in known]
    return problems


def _arms(params: Params, where: str) -> list[str]:
    known = get_args(Arm)
    problems = [f"{where}: arms: unknown key {arm!r}{did_you_mean(arm, known)}" for arm in params.arms if arm not in known]
    wanted = [("multitask", task) for task in params.tasks]
    wanted += [(arm, task) for arm in params.compare.arms for task in params.compare.tasks if task in params.tasks]
    for arm, task in wanted:
        if arm not in params.arms:
            problems.append(f"{where}: arms: key {arm!r} is missing; say how that arm is trained")
            continue
        try:
            params.training(cast(Arm, arm), task, where)
        except UserError as error:
            problems += error.problems
    for name, training in params.pretrain.items():
        try:
            training.learning_rates("multitask")
        except ValueError as error:
            problems.append(f"{where}: pretrain.{name}: {error}")
    return list(dict.fromkeys(problems))


def _repeat(params: Params, where: str) -> list[str]:
    repeat = params.repeat
    problems = _not_run(params, where, "repeat", repeat.arms, repeat.tasks)
    if len(set(repeat.seeds)) < len(repeat.seeds):
        problems.append(f"{where}: repeat.seeds: found {', '.join(map(str, repeat.seeds))}; give each seed once")
    if params.seed in repeat.seeds:
        problems.append(f"{where}: repeat.seeds: has {params.seed}, which is `seed` and run anyway; remove it")
    return problems


def _probe(params: Params, where: str) -> list[str]:
    probe = params.probe
    known = [shift.model for shift in probe.out_of_domain if shift.model in params.tasks]
    problems = _not_run(params, where, "probe", probe.arms, (*probe.tasks, *known))
    problems += [f"{where}: probe.out_of_domain: no task {name!r}{did_you_mean(name, params.tasks)}"
                 for shift in probe.out_of_domain for name in (shift.data, shift.model) if name not in params.tasks]
    return list(dict.fromkeys(problems))


def _not_run(params: Params, where: str, key: str, arms: Collection[Arm], tasks: Collection[str]) -> list[str]:
    """What of `arms` and `tasks` is not known, or not run."""
    problems = [f"{where}: {key}.tasks: no task {name!r}{did_you_mean(name, params.tasks)}"
                for name in tasks if name not in params.tasks]
    for arm in arms:
        run = params.tasks if arm == "multitask" else params.compare.tasks if arm in params.compare.arms else ()
        problems += [f"{where}: {key}.arms: {arm} is not run on {name!r}; add both to compare, or remove one from {key}"
                     for name in sorted((params.tasks.keys() & tasks) - set(run))]
    return problems


def arm_of(word: str) -> Arm:
    """The arm that a command's word names. Raises UserError where there is no such arm."""
    if word not in get_args(Arm):
        raise UserError(f"no arm {word!r}{did_you_mean(word, get_args(Arm))}")
    return cast(Arm, word)


def seeded(params: Params, word: str) -> Params:
    """The params with the seed that a command's word names, or as they are ("": no seed is named). Raises UserError where it is
    not one of `repeat.seeds`.
    """
    if not word:
        return params
    if word not in map(str, params.repeat.seeds):
        raise UserError(f"{PATH}: repeat.seeds: no seed {word!r}; add it")
    return replace(params, seed=int(word))


def run_folder(arm: Arm, task: str, seed: str = "") -> Path:
    """Where a run is in artifacts/, runs/, results/ and predictions/; with the seed of one that repeats another."""
    return Path("repeat", seed, arm, task) if seed else Path(arm, task)


def mixture_of(params: Params, name: str) -> MixtureParams:
    """A mixture's params. Raises UserError where params.yaml has no such mixture."""
    if name not in params.mixtures:
        raise UserError(f"{PATH}: mixtures: no mixture {name!r}{did_you_mean(name, params.mixtures)}")
    return params.mixtures[name]


def task_of(params: Params, name: str) -> TaskParams:
    """A task's params. Raises UserError where params.yaml has no such task."""
    if name not in params.tasks:
        raise UserError(f"{PATH}: tasks: no task {name!r}{did_you_mean(name, params.tasks)}")
    return params.tasks[name]

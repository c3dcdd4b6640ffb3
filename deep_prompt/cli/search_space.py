"""What `deep-prompt tune` searches: an arm or a mixture, the values that it may try, and params.yaml with the best of them."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from deep_prompt.cli.yaml_edit import edited_text, flow_mapping, set_keys
from pipeline.arms import ARMS, ArmName
from pipeline.config import load_json, load_yaml, parse
from pipeline.errors import UserError, did_you_mean
from pipeline.files import atomic_write, sha256
from pipeline.params import Params, TrainParams, Values, task_of
from stages.runtime.params import check_params, mixture_of
from stages.runtime.paths import ARTIFACTS, FEATURES, MIXTURES, PARAMS

DIGITS = 3  # of a value that is tried: what is written into params.yaml is what was run


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    log: bool = True

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"low is {self.low} and high {self.high}; give two that rise, above 0 where log is true"
            )

    def __contains__(self, value: Any) -> bool:
        return isinstance(value, int | float) and self.low <= value <= self.high


Choices = tuple[Any, ...]
Pruner = Literal["median", "successive_halving", "none"]
Space = Mapping[str, Range | Choices]


@dataclass(frozen=True)
class SearchParams:
    """All of search.yaml."""

    arms: dict[str, dict[str, Range | Choices]]
    pruner: Pruner = "median"


@dataclass(frozen=True)
class Target:
    """An arm on a task, or ("pretrain") the shared prompt of a mixture."""

    arm: ArmName | Literal["pretrain"]
    name: str

    def __str__(self) -> str:
        return f"{self.arm}-{self.name}"

    def training(self, params: Params) -> TrainParams:
        """How params.yaml has it trained. Raises UserError where it has no such arm, task or mixture."""
        if self.arm != "pretrain":
            return params.training(self.arm, self.name)
        mixture_of(params, self.name)
        return params.pretrain[self.name]

    def inputs(self, params: Params) -> dict[str, Any]:
        """What the trainings depend on besides params: hashes of files. Raises UserError where a stage has not yet been run."""
        if self.arm == "pretrain":
            return {"mixture": load_json(MIXTURES / f"{self.name}.json")}
        found = {"features": load_json(FEATURES / self.name / "summary.json")}
        if ARMS[self.arm].from_artifact:
            source = ARTIFACTS / task_of(params, self.name).init_from
            load_json(source / "config.json")
            found["start"] = {path.name: sha256(path) for path in sorted(source.iterdir())}
        return found


def load_search(path: Path, target: Target, params: Params) -> tuple[SearchParams, Space]:
    """search.yaml, and its space for a target. Raises UserError for all that is wrong with it, unfit values included."""
    search, problems = parse(SearchParams, load_yaml(path), str(path)), list[str]()
    if target.arm not in search.arms:
        raise UserError(
            f"{path}: arms: no {target.arm!r}{did_you_mean(target.arm, search.arms)}; say what it may try"
        )
    space = search.arms[target.arm]
    for key, where, value in _extremes(space, f"{path}: arms.{target.arm}"):
        try:
            varied(params, target, {key: value}, where)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return search, space


def _extremes(space: Space, where: str) -> Iterator[tuple[str, str, Any]]:
    for key, values in space.items():
        if isinstance(values, tuple) and not values:
            raise UserError(f"{where}.{key}: an empty list; give a value or more")
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            yield key, f"{where}.{key}", value


def varied(params: Params, target: Target, values: Values, where: str = str(PARAMS)) -> TrainParams:
    """The target's training with some values instead of its own. Raises UserError, naming `where`, if they do not fit it."""
    if target.arm == "pretrain":
        given = dataclasses.asdict(target.training(params))
        return parse(TrainParams, {**given, **values}, where)
    task = task_of(params, target.name)
    overrides = task.overrides | {target.arm: {**task.overrides.get(target.arm, {}), **values}}
    changed = dataclasses.replace(
        params,
        tasks={**params.tasks, target.name: dataclasses.replace(task, overrides=overrides)},
    )
    return changed.training(target.arm, target.name, where)


def rounded(value: float) -> float:
    """A number with as many digits as are written."""
    return float(f"{value:.{DIGITS}g}")


def digest(target: Target, params: Params, space: Space) -> str:
    """Names a study: one of other params, inputs or another space is another study."""
    fixed = {
        key: value
        for key, value in dataclasses.asdict(target.training(params)).items()
        if key not in space
    }
    asked = {
        key: dataclasses.asdict(values) if isinstance(values, Range) else list(values)
        for key, values in space.items()
    }
    everything = [
        str(target),
        fixed,
        asked,
        params.seed,
        dataclasses.asdict(params.backbone),
        target.inputs(params),
    ]
    return name_of(everything)


def name_of(values: Any) -> str:
    """A short name for plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def apply(target: Target, values: Values, path: Path = PARAMS) -> None:
    """Write values into params.yaml, where the target's own are; comments and all else stay. Raises UserError as `varied`."""

    def change(document: Any) -> None:
        if target.arm == "pretrain":
            set_keys(document["pretrain"][target.name], values)
        elif target.arm in (task := document["tasks"][target.name]):
            set_keys(task[target.arm], values)
        else:
            set_keys(task, {target.arm: flow_mapping(values)})

    text = edited_text(path, change)
    check_params(YAML(typ="safe").load(text), str(path))
    atomic_write(path, text)

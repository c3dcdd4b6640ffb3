"""The search space of `deep-prompt tune`: its target, its values, and the edit of params.yaml."""

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml import YAML

from deep_prompt.cli.yaml_edit import edited_text, flow_mapping, lines_of_anchors, set_keys
from pipeline.arms import ARMS, ArmName
from pipeline.config import load_json, load_yaml, parse
from pipeline.errors import UserError, did_you_mean
from pipeline.files import atomic_write
from pipeline.params import Params, TrainParams, Values, task_of
from stages.runtime.params import check_params, check_pretrain_params, mixture_of
from stages.runtime.paths import ARTIFACTS, FEATURES, MIXTURES, PARAMS

SIGNIFICANT_DIGITS = 3  # of proposed values, so that params.yaml has exactly the tried value


@dataclass(frozen=True)
class Range:
    """The numbers from `low` to `high`, inclusive, on a logarithmic scale if `log`."""

    low: float
    high: float
    log: bool = True

    def __post_init__(self) -> None:
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(
                f"low is {self.low} and high {self.high}; give low < high, and low above 0 if log "
                "is true"
            )


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
    """The training to tune: an arm on a task, or "pretrain" on a mixture."""

    arm: ArmName | Literal["pretrain"]
    name: str

    def __str__(self) -> str:
        return f"{self.arm}-{self.name}"

    def training(self, params: Params) -> TrainParams:
        """Its training params in params.yaml.

        Raises UserError if there is no such arm, task or mixture.
        """
        if self.arm != "pretrain":
            return params.training(self.arm, self.name)
        mixture_of(params, self.name)
        return params.pretrain[self.name]

    def inputs(self, params: Params) -> dict[str, Any]:
        """Hashes of the files that the training reads.

        Raises UserError if the output of a previous stage is missing.
        """
        if self.arm == "pretrain":
            return {"mixture": load_json(MIXTURES / f"{self.name}.json")}
        inputs = {"features": load_json(FEATURES / self.name / "summary.json")}
        if ARMS[self.arm].from_artifact:
            from pipeline.artifacts.config import artifact_hashes  # noqa: PLC0415  (torch)

            source = ARTIFACTS / task_of(params, self.name).init_from
            load_json(source / "config.json")
            inputs["start"] = artifact_hashes(source)
        return inputs


def load_search(path: Path, target: Target, params: Params) -> tuple[SearchParams, Space]:
    """Read search.yaml and select the space of a target.

    Raises UserError with all problems, including invalid values of the training params.
    """
    search, problems = parse(SearchParams, load_yaml(path), str(path)), list[str]()
    if target.arm not in search.arms:
        raise UserError(
            f"{path}: arms: no {target.arm!r}{did_you_mean(target.arm, search.arms)}; "
            "add its search space"
        )
    space = search.arms[target.arm]
    for key, where, value in _limits(space, f"{path}: arms.{target.arm}"):
        try:
            varied(params, target, {key: value}, where)
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return search, space


def _limits(space: Space, where: str) -> Iterator[tuple[str, str, Any]]:
    for key, values in space.items():
        if isinstance(values, tuple) and not values:
            raise UserError(f"{where}.{key}: the list is empty; give at least one value")
        for value in (values.low, values.high) if isinstance(values, Range) else values:
            yield key, f"{where}.{key}", value


def varied(params: Params, target: Target, values: Values, where: str = str(PARAMS)) -> TrainParams:
    """The target's training params with some values replaced.

    Raises UserError with the location `where` if the values are invalid.
    """
    if target.arm == "pretrain":
        current = dataclasses.asdict(target.training(params))
        training = parse(TrainParams, {**current, **values}, where)
        check_pretrain_params(training, values, where)
        return training
    task = task_of(params, target.name)
    overrides = task.overrides | {target.arm: {**task.overrides.get(target.arm, {}), **values}}
    changed = dataclasses.replace(
        params,
        tasks={**params.tasks, target.name: dataclasses.replace(task, overrides=overrides)},
    )
    return changed.training(target.arm, target.name, where)


def contains(values: Range | Choices, value: Any) -> bool:
    """Whether a param's value is in its search space."""
    if isinstance(values, Range):
        return isinstance(value, int | float) and values.low <= value <= values.high
    return any(is_equal(choice, value) for choice in values)


def is_equal(choice: Any, value: Any) -> bool:
    """Whether a choice of search.yaml is a param's value: a list of YAML is a tuple there."""
    return bool((tuple(choice) if isinstance(choice, list) else choice) == value)


def rounded(value: float) -> float:
    """A number rounded to `SIGNIFICANT_DIGITS`."""
    return float(f"{value:.{SIGNIFICANT_DIGITS}g}")


def digest(target: Target, params: Params, space: Space) -> str:
    """The name of a study: a hash of the target, its params and inputs, and the search space."""
    fixed = {
        key: value
        for key, value in dataclasses.asdict(target.training(params)).items()
        if key not in space
    }
    searched = {
        key: dataclasses.asdict(values) if isinstance(values, Range) else list(values)
        for key, values in space.items()
    }
    identity = [
        str(target),
        fixed,
        searched,
        params.seed,
        dataclasses.asdict(params.backbone),
        target.inputs(params),
    ]
    return name_of(identity)


def name_of(values: Any) -> str:
    """A short hash of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def apply(target: Target, values: Values, path: Path = PARAMS) -> None:
    """Write values to the target's params in params.yaml, and keep its comments.

    Raises UserError if the edited file is invalid, or if the edit would change other values too,
    because the target's params have an anchor that others refer to.
    """

    def change(document: Any) -> None:
        if target.arm == "pretrain":
            set_keys(document["pretrain"][target.name], values)
        elif target.arm in (task := document["tasks"][target.name]):
            set_keys(task[target.arm], values)
        else:
            set_keys(task, {target.arm: flow_mapping(values)})

    expected = _with_values(load_yaml(path), target, values)
    text = edited_text(path, change)
    edited = YAML(typ="safe").load(text)
    check_params(edited, str(path))
    if edited != expected:
        lines = ", ".join(map(str, lines_of_anchors(path)))
        raise UserError(
            f"{path}: not changed, because other params share the values of {target} (anchors and "
            f"aliases in the lines {lines}); write the values out, then set "
            + ", ".join(f"{key}: {value}" for key, value in values.items())
        )
    atomic_write(path, text)


def _with_values(document: Values, target: Target, values: Values) -> Values:
    """The content of params.yaml with the values of only the target changed."""
    if target.arm == "pretrain":
        section, changed = "pretrain", document["pretrain"][target.name] | values
    else:
        section, task = "tasks", document["tasks"][target.name]
        changed = task | {target.arm: task.get(target.arm, {}) | values}
    return document | {section: document[section] | {target.name: changed}}

"""The page of params.yaml, from the dataclasses that parse it and from dvc.yaml."""

import dataclasses
import inspect
import json
import re
import types
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from pipeline.arms import ARMS, PRETRAIN_PARAMS
from pipeline.config import load_yaml
from pipeline.data.recipe import Recipe
from pipeline.params import (
    BackboneParams,
    CompareParams,
    GenerateParams,
    MixtureParams,
    Params,
    ProbeParams,
    RepeatParams,
    ShiftParams,
    TaskParams,
    TrainParams,
)

DVC = Path(__file__).resolve().parents[2] / "dvc.yaml"
SECTIONS: dict[str, type] = {
    "": Params,
    "backbone": BackboneParams,
    "tasks.NAME": TaskParams,
    "mixtures.NAME": MixtureParams,
    "pretrain.NAME": TrainParams,
    "arms.ARM": TrainParams,
    "compare": CompareParams,
    "repeat": RepeatParams,
    "probe": ProbeParams,
    "probe.out_of_domain": ShiftParams,
    "generate": GenerateParams,
}
"""Section of params.yaml -> the class of its values."""

_INTRO = """# Params and recipes

Every key of `params.yaml`. *Reruns* lists the stages that read the key; the stages after them run
again if the output of these stages changes. Keys under `arms` are read by `training_params`, which
writes one file for each arm and task, so only the trainings of that arm run again; the same holds
for a task's overrides. `mix` depends on the keys of `pretrain` that set the number of steps. A key
without default is required.
"""


def page() -> str:
    """The reference of params.yaml and of recipes, as Markdown."""
    parts = [_INTRO]
    for section, values in SECTIONS.items():
        parts.append(f"## {f'`{section}`' if section else 'Top level'}")
        if section == "arms.ARM":
            parts.append("The class is that of `pretrain.NAME`; see its text above.")
        else:
            parts.append(_text(values))
        parts.append("\n".join(_table(section, values)))
    parts += ["## `data_recipes/NAME.yaml`", _text(Recipe), "\n".join(_table("recipe", Recipe))]
    return "\n\n".join(parts) + "\n"


def _text(values: type) -> str:
    return inspect.cleandoc(values.__doc__ or "")


def _table(section: str, values: type) -> Iterator[str]:
    """A row for each key of a section."""
    trained = values is TrainParams
    yield f"| key | type | default | {'used by' if trained else 'reruns'} |"
    yield "|---|---|---|---|"
    hints, groups = get_type_hints(values), getattr(values, "KEY_GROUPS", {})
    for field in dataclasses.fields(values):
        if section == "recipe" and field.name in ("name", "path"):
            continue  # They are those of the file.
        last = _users(section, field.name) if trained else _stages(section, field.name)
        if last:
            name = "the name of an arm" if field.name in groups else f"`{field.name}`"
            yield f"| {name} | {_type(hints[field.name])} | {_default(field)} | {last} |"


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "`{}`"
    if field.default is dataclasses.MISSING:
        return ""
    return f"`{field.default if isinstance(field.default, str) else json.dumps(field.default)}`"


def _type(hint: Any) -> str:
    """The type of a key in words of YAML."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in args)
    if origin in (Union, types.UnionType):
        return " or ".join(_type(arg) for arg in args)
    if origin is tuple:
        return f"list of {_type(args[0])}"
    if origin is dict:
        return f"mapping of names to {_type(args[1])}"
    if dataclasses.is_dataclass(hint):
        return "mapping"
    names = {
        int: "integer",
        float: "number",
        str: "text",
        bool: "true or false",
        type(None): "null",
    }
    return names.get(hint, "any value")


def _users(section: str, key: str) -> str:
    """The arms that use a training param, or the shared prompt; empty if none does."""
    special = {*PRETRAIN_PARAMS, *(name for arm in ARMS.values() for name in arm.params)}
    part = key.removesuffix("_lr")
    if section.startswith("pretrain"):
        parts = ("prompt", "head")
        is_used = part in parts if part != key else key not in special or key in PRETRAIN_PARAMS
        return "the shared prompt" if is_used else ""
    arms = [
        arm.name
        for arm in ARMS.values()
        if (
            part in (*arm.parts, *arm.optional_parts)
            if part != key
            else key not in special or key in arm.params
        )
    ]
    if len(arms) == len(ARMS):
        return "all arms"
    if arms == [arm.name for arm in ARMS.values() if arm.parts]:
        return "all arms that train"
    return ", ".join(f"`{arm}`" for arm in arms)


def _stages(section: str, key: str) -> str:
    """The stages of dvc.yaml that read a key."""
    path = f"{section}.{key}" if section else key
    if section == "recipe":
        return "`prepare`"
    found = [name for name, param in _params_of_stages() if _covers(param, path)]
    return ", ".join(f"`{name}`" for name in dict.fromkeys(found)) or "nothing"


@cache
def _params_of_stages() -> list[tuple[str, str]]:
    """The stages of dvc.yaml, each with a param that it reads; once for each param."""
    return [
        (name, re.sub(r"\$\{[^}]*\}", "NAME", param))
        for name, stage in load_yaml(DVC)["stages"].items()
        for param in stage.get("do", stage).get("params", [])
        if isinstance(param, str)
    ]


def _covers(param: str, path: str) -> bool:
    """Whether a stage that reads `param` reads `path`, a part of it or the whole."""
    return f"{path}.".startswith(f"{param}.") or f"{param}.".startswith(f"{path}.")

"""Strict YAML to frozen dataclasses: every unknown key, missing key and wrong type is reported, all at once."""

import dataclasses
import json
import math
import types
import typing
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.errors import UserError, did_you_mean

T = TypeVar("T")


def load_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML 1.2 file (so `1e-4` is a number). Raises UserError: missing, not UTF-8, not YAML, not a mapping."""
    try:
        values = YAML(typ="safe").load(_read(path, "create it, or correct the name"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(f"{path}:{line}: not valid YAML: {error.problem}") from None
    except (
        YAMLError,
        ValueError,
    ) as error:  # ValueError: what looks like a date and is none, 2001-13-45
        raise UserError(f"{path}: not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: found {_name(values)}, expected a mapping of keys to values")
    return values


def load_json(path: Path) -> Any:
    """The value in a JSON file. Raises UserError: missing, not UTF-8, not JSON."""
    try:
        return json.loads(_read(path, "run the stage that makes it"))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None


def _read(path: Path, remedy: str) -> str:
    """The text of a file; `remedy` is what to do if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read: {error.strerror}; give the path of a readable file"
        ) from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}:{line}: byte 0x{error.object[error.start]:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def parse(kind: type[T], values: object, where: str) -> T:
    """Build the dataclass `kind` from plain YAML values. `where` names file and key in messages.

    Raises UserError with all problems: unknown or missing keys, wrong types, and what a `__post_init__` refuses by ValueError.
    A dataclass may have a `RENAMED` of old names to new ones: a message about an old name gives the new one.
    """
    problems: list[str] = []
    result = _convert(kind, values, where, problems)
    if problems:
        raise UserError(*problems)
    return typing.cast(T, result)


def _convert(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return _convert_dataclass(kind, value, where, problems)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        kinds = [arg for arg in args if arg is not type(None)]
        return _convert_union(kinds, value, where, problems)
    if origin in (list, tuple) and isinstance(value, list):
        return tuple(
            _convert(args[0], item, f"{where}[{i}]", problems) for i, item in enumerate(value)
        )
    if origin is dict and isinstance(value, dict):
        return {
            str(key): _convert(args[1], item, f"{where}.{key}", problems)
            for key, item in value.items()
        }
    return _convert_plain(kind, value, where, problems)


def _convert_plain(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    if kind is Any or kind is object:
        return value
    if typing.get_origin(kind) is Literal:
        args = typing.get_args(kind)
        if not any(
            type(value) is type(arg) and value == arg for arg in args
        ):  # True == 1, but it is no way to write 1
            hint = did_you_mean(str(value), map(str, args))
            problems.append(f"{where}: {value!r} is not one of the allowed values{hint}")
        return value
    if (
        kind is float
        and isinstance(value, int)
        and not isinstance(value, bool)
        and abs(value) < 2**53
    ):
        return float(value)
    plain = typing.get_origin(kind) or kind
    if not isinstance(value, plain) or (isinstance(value, bool) and plain is not bool):
        problems.append(f"{where}: found {_name(value)}, expected {_kind_name(kind)}")
    elif kind is float and not math.isfinite(value):
        problems.append(f"{where}: {value} is not a finite number")
    return value


def _convert_union(kinds: list[Any], value: Any, where: str, problems: list[str]) -> Any:
    meant = (
        [kind for kind in kinds if dataclasses.is_dataclass(kind)]
        if isinstance(value, dict)
        else kinds
    )
    if len(meant) == 1:  # so that its own problems are told
        return _convert(meant[0], value, where, problems)
    for kind in kinds:
        tried: list[str] = []
        result = _convert(kind, value, where, tried)
        if not tried:
            return result
    problems.append(
        f"{where}: found {_name(value)}, expected {' or '.join(map(_kind_name, kinds))}"
    )
    return value


def _convert_dataclass(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    if not isinstance(value, dict):
        problems.append(f"{where}: found {_name(value)}, expected a mapping of keys to values")
        return None
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    renamed: dict[str, str] = getattr(kind, "RENAMED", {})
    before = len(problems)
    for key in value:
        if key not in fields:
            hint = (
                f"; it is called {renamed[key]!r} now: rename it"
                if key in renamed
                else did_you_mean(str(key), fields)
            )
            problems.append(f"{where}: unknown key {key!r}{hint}")
    arguments = {}
    for name, field in fields.items():
        if name in value:
            arguments[name] = _convert(hints[name], value[name], f"{where}: {name}", problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{where}: key {name!r} is missing; add it ({_kind_name(hints[name])})")
    if len(problems) > before:
        return None
    try:
        return kind(**arguments)
    except ValueError as error:
        problems.append(f"{where}: {error}")
        return None


def _name(value: object) -> str:
    names = {
        str: "text",
        int: "an integer",
        float: "a number",
        bool: "true/false",
        list: "a list",
        dict: "a mapping",
    }
    if value is None:
        return "nothing"
    text = repr(value)
    return f"{names.get(type(value), type(value).__name__)} {text if len(text) < 60 else text[:57] + '...'}"


def _kind_name(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind_name(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    names = {
        str: "text",
        int: "an integer",
        float: "a number",
        bool: "true or false",
        list: "a list",
        tuple: "a list",
        dict: "a mapping",
        type(None): "nothing",
    }
    return names.get(origin or kind, "a mapping" if dataclasses.is_dataclass(kind) else str(kind))

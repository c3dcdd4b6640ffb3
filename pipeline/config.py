"""Parse YAML strictly into frozen dataclasses.

One error reports all unknown keys, missing keys and wrong types.
"""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar, Union

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from pipeline.errors import KIND_NAMES, UserError, closest, describe, did_you_mean

T = TypeVar("T")
NAME = re.compile(r"\w[\w-]*")  # of a task, a mixture or a recipe
# Common other names of values (tag schemes), for messages.
_SYNONYMS = {"bio": "iob2", "bio2": "iob2", "iob": "iob1", "iobes": "bioes"}
_INVALID: Any = object()  # in place of a value that cannot be converted


def load_yaml(path: Path) -> dict[str, Any]:
    """Load the mapping in a YAML 1.2 file (where `1e-4` is a number).

    Raises UserError if the file is missing, not UTF-8, not YAML or not a mapping.
    """
    try:
        values = YAML(typ="safe").load(read_text(path, "create it, or correct the name"))
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise UserError(
            f"{path}:{line}: not valid YAML: {error.problem}; correct the line"
        ) from None
    except (YAMLError, ValueError) as error:  # ValueError: an invalid date such as 2001-13-45
        raise UserError(f"{path}: not valid YAML: {error}; correct the file") from None
    if not isinstance(values, dict):
        raise UserError(f"{path}: {_mismatch(values, 'a mapping of keys to values')}")
    return values


def load_json(path: Path, remedy: str = "run the stage that makes it, or `dvc repro`") -> Any:
    """Load the value in a JSON file. Raises UserError if it is missing, not UTF-8 or not JSON.

    `remedy` goes into the error message if the file is missing.
    """
    try:
        return json.loads(read_text(path, remedy))
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}:{error.lineno}: not valid JSON: {error.msg}; correct the line"
        ) from None


def read_text(path: Path, remedy: str) -> str:
    """The text of a file. Raises UserError if it is missing, unreadable or not UTF-8.

    `remedy` goes into the error message if the file is missing.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; {remedy}") from None
    except OSError as error:
        remedy = "give the path of a readable file"
        raise UserError(f"{path}: cannot be read: {error.strerror}; {remedy}") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        byte = error.object[error.start]
        raise UserError(
            f"{path}:{line}: byte 0x{byte:02x} is not UTF-8; save the file as UTF-8"
        ) from None


def parse(kind: type[T], values: object, where: str) -> T:
    """Build the dataclass `kind` from plain YAML values. Messages start with `where` (file, key).

    A dataclass may have an attribute `RENAMED` that maps old key names to new names; the message
    about an old name then gives the new name. It may have an attribute `KEY_GROUPS` that maps a
    field to keys. In YAML, these keys are at the same level as the other keys; the field holds a
    mapping of the keys that are present.

    Raises UserError with all problems: unknown keys, missing keys, wrong types, and values that
    a `__post_init__` rejects with ValueError, whose arguments are one problem each.
    """
    problems: list[str] = []
    result = _convert(kind, values, where, problems)
    if problems:
        raise UserError(*problems)
    return typing.cast(T, result)


def parse_valid(kind: type[T], values: object, where: str) -> tuple[T, list[str]]:
    """Build the dataclass from its valid values, and return the problems that `parse` raises.

    With the result, a caller can check what does not depend on the invalid values. A dataclass
    opts in with an attribute `STAND_INS` that maps fields to valid values. These take the place of
    invalid values, and of missing required ones; other invalid values get their default. It has
    all required fields, except those of a dataclass that opts in too. A dataclass without
    `STAND_INS` is invalid as a whole. Lists and mappings leave invalid items out.
    """
    problems: list[str] = []
    return _convert(kind, values, where, problems), problems


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
        items = [_convert(args[0], item, f"{where}[{i}]", problems) for i, item in enumerate(value)]
        return tuple(item for item in items if item is not _INVALID)
    if origin is dict and isinstance(value, dict):
        converted = {
            str(key): _convert(args[1], item, f"{where}.{key}", problems)
            for key, item in value.items()
        }
        return {key: item for key, item in converted.items() if item is not _INVALID}
    return _convert_scalar(kind, value, where, problems)


def _convert_scalar(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    if kind is Any or kind is object:
        return value
    if typing.get_origin(kind) is Literal:
        return _convert_literal(typing.get_args(kind), value, where, problems)
    is_bool = isinstance(value, bool)  # a subclass of int
    if kind is float and isinstance(value, int) and not is_bool and abs(value) < 2**53:
        return float(value)
    expected = typing.get_origin(kind) or kind
    if not isinstance(value, expected) or (is_bool and expected is not bool):
        problems.append(f"{where}: {_mismatch(value, _kind_name(kind))}")
        return _INVALID
    if kind is float and not math.isfinite(value):
        problems.append(f"{where}: {value} is not finite; give a finite number")
        return _INVALID
    return value


def _convert_literal(allowed: tuple[Any, ...], value: Any, where: str, problems: list[str]) -> Any:
    """The value, or the value that the message suggests in its place."""
    # Compare types too: True == 1 in Python, but the user must write 1.
    if any(type(value) is type(item) and value == item for item in allowed):
        return value
    names = sorted(map(str, allowed))
    synonym = _SYNONYMS.get(str(value).lower())
    word = synonym if synonym in names else str(value)
    match = closest(word, names)
    listing = f" ({', '.join(names)})" if match else ""  # else the hint has it
    hint = f"{listing}{did_you_mean(word, names)}"
    problems.append(f"{where}: {value!r} is not one of the allowed values{hint}")
    return next((item for item in allowed if str(item) == match), _INVALID)


def _convert_union(kinds: list[Any], value: Any, where: str, problems: list[str]) -> Any:
    candidates = kinds
    if isinstance(value, dict):
        candidates = [kind for kind in kinds if dataclasses.is_dataclass(kind)]
    if len(candidates) == 1:  # report the problems of this kind
        return _convert(candidates[0], value, where, problems)
    for kind in kinds:
        kind_problems: list[str] = []
        result = _convert(kind, value, where, kind_problems)
        if not kind_problems:
            return result
    problems.append(f"{where}: {_mismatch(value, ' or '.join(map(_kind_name, kinds)))}")
    return _INVALID


def _convert_dataclass(kind: Any, value: Any, where: str, problems: list[str]) -> Any:
    stand_ins: Mapping[str, Any] | None = getattr(kind, "STAND_INS", None)
    if not isinstance(value, dict):
        problems.append(f"{where}: {_mismatch(value, 'a mapping of keys to values')}")
        return _stand_in(kind)
    hints = typing.get_type_hints(kind)
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    key_groups: dict[str, Collection[str]] = getattr(kind, "KEY_GROUPS", {})
    known = {*fields, *(key for keys in key_groups.values() for key in keys)} - key_groups.keys()
    num_problems = len(problems)
    for key in value:
        if key not in known:
            hint = _key_hint(str(key), known, getattr(kind, "RENAMED", {}))
            problems.append(f"{where}: unknown key {key!r}{hint}")
    arguments = {}
    for name, field in fields.items():
        if name in key_groups:
            group = {key: value[key] for key in key_groups[name] if key in value}
            arguments[name] = _convert(hints[name], group, where, problems)
        elif name in value:
            arguments[name] = _convert(hints[name], value[name], f"{where}: {name}", problems)
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            problems.append(f"{where}: key {name!r} is missing; add it ({_kind_name(hints[name])})")
            arguments[name] = _stand_in(hints[name])
    if stand_ins is None and len(problems) > num_problems:
        return _INVALID
    return _build(kind, arguments, stand_ins, where, problems)


def _stand_in(kind: Any) -> Any:
    """The value of a dataclass that opts in, without any valid value."""
    stand_ins: Mapping[str, Any] | None = getattr(kind, "STAND_INS", None)
    return _INVALID if stand_ins is None else kind(**stand_ins)


def _build(
    kind: Any,
    arguments: Mapping[str, Any],
    stand_ins: Mapping[str, Any] | None,
    where: str,
    problems: list[str],
) -> Any:
    """The dataclass with the arguments that its `__post_init__` accepts, else with stand-ins."""
    fallback = {name: value for name, value in (stand_ins or {}).items() if name in arguments}
    valid = {name: value for name, value in arguments.items() if value is not _INVALID}
    try:
        return kind(**{**fallback, **valid})
    except ValueError as error:
        problems += [f"{where}: {reason}" for reason in error.args]
    if stand_ins is None:
        return _INVALID
    for name, value in valid.items():
        with suppress(ValueError):
            kind(**{**fallback, name: value})
            fallback[name] = value
    return kind(**fallback)


def _key_hint(key: str, known: Iterable[str], renamed: Mapping[str, str]) -> str:
    if key in renamed:
        return f"; its name is {renamed[key]!r} now: rename it"
    return did_you_mean(key, known)


def _mismatch(value: object, expected: str) -> str:
    """Describe a value of the wrong type."""
    return f"found {describe(value, 60)}, expected {expected}"


def _kind_name(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return " or ".join(_kind_name(arg) for arg in args)
    if origin is Literal:
        return "one of " + ", ".join(map(str, args))
    if kind is type(None):
        return "nothing"
    fallback = "a mapping" if dataclasses.is_dataclass(kind) else str(kind)
    return KIND_NAMES.get(origin or kind, fallback)

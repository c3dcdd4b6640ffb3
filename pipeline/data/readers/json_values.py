"""JSON values in raw files: decoded and checked, with a problem instead of an exception for whatever may be wrong."""

import json
import re
from collections.abc import Iterator
from typing import Any

from pipeline.data.readers.base import Source, lines, shown
from pipeline.errors import Problems

KINDS: dict[type, str] = {
    str: "text",
    int: "an integer",
    list: "a list",
    dict: "a mapping",
    bool: "true or false",
}

_HALF = re.compile(
    r"\\u[dD][89abAB]"
)  # a character beyond U+FFFF, or half of one, which no file of ours could hold
_LONE = re.compile("[\ud800-\udfff]")


def decode(text: str) -> Any:
    """The value of a JSON text. Raises ValueError that says what is wrong."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON at column {error.colno}: {error.msg}") from None
    except (
        ValueError,
        RecursionError,
    ) as error:  # a number of thousands of digits, a list in a list in a list ...
        raise ValueError(f"cannot be read as JSON: {error}") from None
    if has_half_character(text, value):
        raise ValueError(HALF)
    return value


HALF = "an escape \\ud8.. to \\udf.. stands for half of a character, without the other half"


def has_half_character(text: str, value: Any) -> bool:
    """Whether the value of a JSON text has a surrogate without its pair, which cannot be written as UTF-8."""
    return (
        _HALF.search(text) is not None
        and _LONE.search(json.dumps(value, ensure_ascii=False)) is not None
    )


def objects(source: Source, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line is, and the mapping that it holds; a line that holds none is a problem. Blank lines are skipped."""
    for where, text in lines(source, problems):
        if not text.strip():
            continue
        try:
            value = decode(text)
        except ValueError as error:
            problems.add(where, f"{error}; each line is one JSON object", "not-json")
            continue
        if check(value, where, {}, problems):
            yield where, value


def check(
    value: Any, where: str, keys: dict[str, type], problems: Problems, hides: bool = False
) -> bool:
    """Whether `value` is a mapping with these keys of these types; else a problem for each that it lacks.

    `hides`: it holds rows, how many one cannot know where it is not as it should be.
    """
    if not isinstance(value, dict):
        problems.add(
            where,
            f"found {type(value).__name__} {shown(value, 40)}, expected a mapping",
            "wrong-type",
            hides,
        )
        return False
    good = True
    for key, kind in keys.items():
        if (
            key in value
            and isinstance(value[key], kind)
            and not (kind is int and isinstance(value[key], bool))
        ):
            continue
        good = False
        if key not in value:
            found = ", ".join(map(str, value))[:200] or "none"
            problems.add(where, f"key {key!r} is missing; found {found}", "missing-key", hides)
        else:
            problems.add(
                where,
                f"{key}: found {type(value[key]).__name__} {shown(value[key], 40)}, expected {KINDS[kind]}",
                "not-an-integer" if kind is int else "wrong-type",
                hides,
            )
    return good


def check_answers(answers: list[Any], where: str, problems: Problems) -> bool:
    """Whether each answer is a mapping with `text` and `answer_start`."""
    keys = {"text": str, "answer_start": int}
    good = [
        check(answer, f"{where}: answers[{i}]", keys, problems) for i, answer in enumerate(answers)
    ]
    return all(good)

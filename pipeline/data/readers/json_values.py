"""JSON values in raw files: decode them, check them, and report problems instead of exceptions."""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.data.readers.base import Slice, Source, lines
from pipeline.errors import KIND_NAMES, Problems, describe

LONE_SURROGATE = "an escape \\ud8.. to \\udf.. is half of a character; the other half is missing"
_SURROGATE_ESCAPE = re.compile(r"\\u[dD][89abAB]")  # the first half of a character above U+FFFF
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def decode(text: str, allow_nan: bool = True) -> Any:
    """The value of a JSON text. Raises ValueError with the reason if it is not valid.

    `allow_nan`: NaN and Infinity, which Python writes although they are not JSON, are numbers.
    """
    try:
        value = json.loads(
            text,
            object_pairs_hook=unique_keys,
            parse_constant=None if allow_nan else _refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON at column {error.colno}: {error.msg}") from None
    except RepeatedKeyError:
        raise
    except (ValueError, RecursionError) as error:  # too many digits, or lists nested too deep
        raise ValueError(f"cannot be read as JSON: {error}") from None
    if has_lone_surrogate(text, value):
        raise ValueError(LONE_SURROGATE)
    return value


def _refuse_constant(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


class RepeatedKeyError(ValueError):
    """A mapping has a key twice, of which `json` would keep the last value."""

    def __init__(self, key: str) -> None:
        super().__init__(f"key {key!r} occurs twice in a mapping; remove one of them")


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """The mapping of JSON pairs. Raises ValueError if a key occurs twice."""
    result = dict(pairs)
    if len(result) < len(pairs):
        ((repeated, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise RepeatedKeyError(repeated)
    return result


def has_lone_surrogate(text: str, value: Any) -> bool:
    """Whether the value of a JSON text has an unpaired surrogate, which UTF-8 cannot encode."""
    return (
        _SURROGATE_ESCAPE.search(text) is not None
        and _LONE_SURROGATE.search(json.dumps(value, ensure_ascii=False)) is not None
    )


def objects(source: Source, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """The position ("file:line") and the mapping of each line of JSON lines.

    Blank lines are skipped; any other line without a mapping adds a problem. If the first line only
    opens a list, the whole file is that list, and this is one problem.
    """
    is_first = not isinstance(source, Slice) or source.first_line == 1
    for where, text in lines(source, problems):
        if not text.strip():
            continue
        opens_list, is_first = is_first and text.strip() == "[", False
        if opens_list:
            problems.add(
                where,
                "the file is one JSON list, not JSON lines; convert it with jq -c '.[]', or, for "
                "the reader records, set format: json",
                "not-json",
                hides=True,
            )
            return
        try:
            value = decode(text)
        except ValueError as error:
            problems.add(where, f"{error}; write each line as one JSON object", "not-json")
            continue
        if check(value, where, {}, problems):
            yield where, value


def check(
    value: Any, where: str, keys: Mapping[str, type], problems: Problems, hides: bool = False
) -> bool:
    """Whether `value` is a mapping with these keys of these types; adds a problem for each failure.

    `hides`: the value holds rows; if it is invalid, an unknown number of them cannot be read.
    """
    if not isinstance(value, dict):
        problems.add(
            where,
            f"found {describe(value)}, expected a mapping; {_remedy(value, dict)}",
            "wrong-type",
            hides,
        )
        return False
    valid = True
    for key, kind in keys.items():
        if key not in value:
            valid = False
            present = ", ".join(map(str, value))[:200] or "none"
            problems.add(
                where,
                f"key {key!r} is missing; found {present}; add it, or correct its name",
                "missing-key",
                hides,
            )
        elif not isinstance(value[key], kind) or (kind is int and isinstance(value[key], bool)):
            valid = False
            problems.add(
                where,
                f"{key}: found {describe(value[key])}, expected {KIND_NAMES[kind]}; "
                f"{_remedy(value[key], kind)}",
                "not-an-integer" if kind is int else "wrong-type",
                hides,
            )
    return valid


_REMEDIES: dict[type, str] = {
    str: "write it as text in quotes",
    int: "write a whole number",
    list: "write [...], or [] for none",
    dict: "write {...}",
}


def _remedy(value: Any, kind: type) -> str:
    """How to write a value of this type."""
    if kind is int and isinstance(value, str) and value.isdecimal():
        return f"write {value} without quotes"
    if kind is str and value is None:
        return "fill it in, or remove its row"
    return _REMEDIES[kind]


def value_at(record: Any, path: str) -> Any:
    """The value at a path with dots, or of a key with dots in its name. Raises KeyError."""
    if path in record:
        return record[path]
    for key in path.split("."):
        if not isinstance(record, dict):
            raise KeyError(key)
        record = record[key]
    return record


def integer(value: Any) -> int | None:
    """An integer; pandas writes the integers of a column with missing values as 2.0."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def id_of(value: Mapping[str, Any], key: str, where: str, problems: Problems) -> dict[str, str]:
    """The key `id` of a row, from the text or integer `value[key]`.

    Without it, the result is empty, and a warning is added. An id of another type adds a problem.
    """
    id = value.get(key)
    if isinstance(id, str | int) and not isinstance(id, bool):
        return {"id": str(id)}
    if id is None:
        add_missing_id(key, where, problems)
    else:
        problems.add(
            where,
            f"{key}: found {describe(id)}, expected text or an integer; "
            "correct it, or remove it to number the rows",
            "wrong-type",
        )
    return {}


def add_missing_id(key: str, where: str, problems: Problems) -> None:
    """Warn of a row without an id. `prepare` makes one of its split and position."""
    problems.add(
        where,
        f"{key} is missing, so the row gets an id of its split and position; "
        "add ids to keep them when rows are added or removed",
        "missing-id",
    )


def check_answers(answers: list[Any], where: str, problems: Problems) -> bool:
    """Whether each answer is a mapping with `text` and `answer_start`."""
    keys = {"text": str, "answer_start": int}
    valid = [
        check(answer, f"{where}: answers[{i}]", keys, problems) for i, answer in enumerate(answers)
    ]
    return all(valid)

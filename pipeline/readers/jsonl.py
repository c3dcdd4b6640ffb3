"""A user's own texts with labels, or questions with choices: one JSON object per line, its keys mapped to ours by the recipe."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import Problems, did_you_mean
from pipeline.readers.base import Row, lines
from pipeline.readers.qa_jsonl import check


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _name(value: Any) -> str | None:
    """A label or an id as text; true and false as JSON writes them."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _list(of: Callable[[Any], Any]) -> Callable[[Any], list[Any] | None]:
    return lambda value: value if isinstance(value, list) and all(of(item) is not None for item in value) else None


def _span(value: Any) -> dict[str, int] | None:
    good = isinstance(value, dict) and value.keys() == _SPAN and all(_integer(number) is not None for number in value.values())
    return value if good else None


_SPAN = {"segment", "start", "end"}

# Row key -> its value as the row has it (None: not of that kind), and what is expected.
_KINDS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "id": (_name, "text or an integer"),
    "text": (_text, "text"),
    "text_pair": (_text, "text"),
    "spans": (_list(_span), "a list of mappings, each with the integers segment, start and end"),
    "label": (_name, "text, an integer, or true or false"),
    "context": (_text, "text"),
    "question": (_name, "text or an integer"),
    "choices": (_list(_text), "a list of texts"),
    "starts": (_list(_integer), "a list of integers"),
    "answers": (_list(_text), "a list of texts"),
}


@dataclass(frozen=True)
class Options:
    """`fields` are the keys of a row, each with the key that the file has for it: where that is nested, the way to it with dots
    (`text: passage.text`); none where it is the same (`{text, label}`). Every line must have all of them.

    `names` renames labels, e.g. {"0": no, "1": yes}; a label that is not there keeps the text that the file has.
    """

    fields: dict[str, str | None] = field(default_factory=lambda: {"text": None, "label": None})
    names: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        bad = [f"fields: {key!r} is no key of a row{did_you_mean(key, _KINDS)}" for key in self.fields if key not in _KINDS]
        if self.names and "label" not in self.fields:
            bad.append("names: there is no label to rename; add label to fields, or remove names")
        if bad:
            raise ValueError("; ".join(bad))


def keys(options: Options) -> frozenset[str]:
    """The keys that every row has."""
    return frozenset(options.fields)


def read(path: Path, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows with the keys of `fields`. Blank lines are skipped."""
    for where, value in objects(path, problems):
        found = row(value, options, where, problems)
        if found is not None:
            yield found


def objects(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """Where each line is, and the mapping that it holds; a line that holds none is a problem."""
    for where, text in lines(path, problems):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            problems.add(where, f"not valid JSON at column {error.colno}: {error.msg}; each line is one JSON object")
            continue
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, a list in a list in a list ...
            problems.add(where, f"cannot be read as JSON: {error}; each line is one JSON object")
            continue
        if check(value, where, {}, problems):
            yield where, value


def row(record: dict[str, Any], options: Options, where: str, problems: Problems) -> Row | None:
    """The row of one record; None, and a problem for each key that it lacks or that has another kind of value."""
    before = len(problems)
    found: Row = {"where": where}
    for key, own in options.fields.items():
        path = own or key
        kind, expected = _KINDS[key]
        try:
            value = _at(record, path)
        except KeyError:
            problems.add(where, f"key {path!r} is missing; found {', '.join(record) or 'none'}: "
                                "add it, or say in the recipe's options.fields what it is called")
            continue
        found[key] = kind(value)
        if found[key] is None:
            problems.add(where, f"{path}: found {type(value).__name__} {str(value)[:40]!r}, expected {expected}; "
                                "correct it, or the recipe's options.fields")
        elif key == "label":  # str(value), too: YAML's {true: yes} has become {"True": "yes"}
            found[key] = options.names.get(str(value), options.names.get(found[key], found[key]))
    return found if len(problems) == before else None


def _at(record: Any, path: str) -> Any:
    """The value that a dotted path leads to. Raises KeyError where it leads nowhere."""
    for key in path.split("."):
        if not isinstance(record, dict):
            raise KeyError(key)
        record = record[key]
    return record

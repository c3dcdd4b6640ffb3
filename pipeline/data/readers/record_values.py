"""Values of records as values of a row's keys, by the kind of the key."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from pipeline.data.readers.json_values import check, check_answers, integer
from pipeline.errors import Problems, describe, quantity, shorten
from pipeline.tasks.base.row import ValueKind


def convert_value(
    key: str, kind: ValueKind, value: Any, path: str, where: str, problems: Problems
) -> Any:
    """The value of a key; adds a problem and returns None if it is of another kind."""
    if kind == "answers":
        return _answers(value, where, problems)
    convert, expected = _CONVERTERS[kind]
    result = convert(value)
    if result is None:
        problems.add(
            where,
            f"{path}: found {describe(value)}, expected {expected}; "
            f"correct it, or the recipe's fields{_list_hint(key, kind, value)}",
            "not-an-integer" if kind == "integer" else "wrong-type",
        )
    return result


def _list_hint(key: str, kind: ValueKind, value: Any) -> str:
    """The remedy for a text where a list is expected, or for spans in place of tags."""
    if kind == "texts" and key != "tokens" and isinstance(value, str):
        return f"; write a list, e.g. {json.dumps([shorten(value, 40)], ensure_ascii=False)}"
    if kind in ("texts", "tags") and isinstance(value, str):
        return (
            "; if each record is one token, set group_by in the recipe's options to the column "
            "that tells the sentences apart; if it is a text with spans, use the reader offsets"
        )
    items = value if kind == "tags" and isinstance(value, list) else []
    if any(isinstance(item, list | dict) for item in items):
        return "; the readers offsets (characters) and token_spans (tokens) read spans"
    return ""


def _answers(value: Any, where: str, problems: Problems) -> list[dict[str, Any]] | None:
    """Answers with offsets, in either form; adds a problem and returns None for another form."""
    if isinstance(value, dict):  # the form of the hub
        if not check(value, f"{where}: answers", {"text": list, "answer_start": list}, problems):
            return None
        texts, starts = value["text"], value["answer_start"]
        if len(texts) != len(starts):
            problems.add(
                where,
                f"answers: {quantity(len(texts), 'text')} with {quantity(len(starts), 'offset')}; "
                "give each answer one text and one offset",
                "missing-answers",
            )
            return None
        value = [
            {"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)
        ]
    elif not check({"answers": value}, where, {"answers": list}, problems):
        return None
    if not check_answers(value, where, problems):
        return None
    return [{"text": answer["text"], "answer_start": answer["answer_start"]} for answer in value]


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _name(value: Any) -> str | None:
    """Text, or an integer as text."""
    number = integer(value)
    return _text(value) if number is None else str(number)


def label_text(value: Any) -> str | None:
    """A label as text; booleans as in JSON."""
    return str(value).lower() if isinstance(value, bool) else _name(value)


def _list(convert_item: Callable[[Any], Any]) -> Callable[[Any], list[Any] | None]:
    def convert(value: Any) -> list[Any] | None:
        items = [convert_item(item) for item in value] if isinstance(value, list) else [None]
        return None if None in items else items

    return convert


def _references(value: Any) -> list[str] | None:
    """A list of texts, also for a single text."""
    return [value] if isinstance(value, str) else _list(_text)(value)


def _span(value: Any) -> dict[str, int] | None:
    valid = (
        isinstance(value, dict)
        and value.keys() == _SPAN_KEYS
        and all(integer(number) is not None for number in value.values())
    )
    return {key: cast(int, integer(number)) for key, number in value.items()} if valid else None


_SPAN_KEYS = {"segment", "start", "end"}


class _Converter(NamedTuple):
    """`convert` returns a value of one kind, or None if it is of another kind.

    `expected` names the kind in messages.
    """

    convert: Callable[[Any], Any]
    expected: str


_CONVERTERS: dict[ValueKind, _Converter] = {  # `_answers` converts values of the kind answers
    "text": _Converter(_text, "text"),
    "name": _Converter(_name, "text or an integer"),
    "label": _Converter(label_text, "text, an integer, or true or false"),
    "tags": _Converter(_list(label_text), "a list of texts or integers"),
    "texts": _Converter(_list(_text), "a list of texts"),
    "references": _Converter(_references, "text, or a list of texts"),
    "label_lists": _Converter(_list(_list(label_text)), "a list of lists of texts"),
    "integer": _Converter(integer, "an integer"),
    "integers": _Converter(_list(integer), "a list of integers"),
    "spans": _Converter(
        _list(_span), "a list of mappings, each with the integers segment, start and end"
    ),
}

"""The offsets of a row in characters, for files that count UTF-16 code units or bytes."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from pipeline.errors import Problems
from pipeline.tasks.base.row import Row
from pipeline.tasks.shared.offsets import OffsetUnit, to_characters


class _Offset(NamedTuple):
    """An offset `values[key]` in `text`; `expected` is the text there, if the row has it."""

    name: str
    text: str
    values: Any
    key: Any
    expected: str | None


def convert_offsets(row: Row, unit: OffsetUnit, problems: Problems) -> bool:
    """Replace the offsets of answers, spans and choices in `unit` by offsets in characters.

    An offset stays as it is if the text that belongs to it is not at the converted offset; the task
    reports it. Returns False, and adds a problem for each offset that is inside a character.
    """
    if unit == "characters":
        return True
    before = len(problems)
    for name, text, values, key, expected in list(_offsets(row)):
        offset = offset_in_characters(name, text, values[key], unit, row["where"], problems)
        if expected is None or (offset >= 0 and text.startswith(expected, offset)):
            values[key] = offset
    return len(problems) == before


def offset_in_characters(
    name: str, text: str, offset: int, unit: OffsetUnit, where: str, problems: Problems
) -> int:
    """The offset in characters; adds a problem if it is inside a character."""
    converted = to_characters(text, offset, unit)
    if converted is None:
        problems.add(
            where,
            f"{name}: offset {offset} is inside a character if it counts {unit}; correct it, or "
            "offsets in the recipe's options",
            "offset-unit",
        )
    return offset if converted is None else converted


def _offsets(row: Row) -> Iterator[_Offset]:
    for number, answer in enumerate(row.get("answers", [])):
        if isinstance(answer, dict):
            name = f"answers[{number}]"
            yield _Offset(name, row["context"], answer, "answer_start", answer["text"])
    for number, choice in enumerate(row["choices"] if row.get("starts") else []):
        if number < len(row["starts"]):
            yield _Offset(f"starts[{number}]", row["context"], row["starts"], number, choice)
    for number, span in enumerate(row.get("spans", [])):
        text = row["text"] if span["segment"] == 0 else row.get("text_pair", "")
        for key in ("start", "end"):
            yield _Offset(f"spans[{number}].{key}", text, span, key, None)

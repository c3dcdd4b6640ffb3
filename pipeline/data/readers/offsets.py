"""The offsets of a row in characters, for files that count UTF-16 code units or bytes."""

from collections.abc import Iterator
from typing import Any

from pipeline.errors import Problems
from pipeline.tasks.base.row import Row
from pipeline.tasks.shared.offsets import OffsetUnit, to_characters


def convert_offsets(row: Row, unit: OffsetUnit, problems: Problems) -> bool:
    """Replace the offsets of answers, spans and choices in `unit` by offsets in characters.

    Returns False, and adds a problem for each offset that is inside a character.
    """
    if unit == "characters":
        return True
    before = len(problems)
    for name, text, mapping, key in list(_offsets(row)):
        mapping[key] = offset_in_characters(name, text, mapping[key], unit, row["where"], problems)
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


def _offsets(row: Row) -> Iterator[tuple[str, str, Any, Any]]:
    """For each offset its name, its text, and the mapping or list that has it under a key."""
    for number, answer in enumerate(row.get("answers", [])):
        if isinstance(answer, dict):
            yield f"answers[{number}]", row["context"], answer, "answer_start"
    for number in range(len(row.get("starts", []))):
        yield f"starts[{number}]", row["context"], row["starts"], number
    for number, span in enumerate(row.get("spans", [])):
        text = row["text"] if span["segment"] == 0 else row.get("text_pair", "")
        for key in ("start", "end"):
            yield f"spans[{number}].{key}", text, span, key

"""WoZ 2.0 (Mrkšić et al. 2017, Neural Belief Tracker): a JSON list of dialogues."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pipeline.data.readers.base import Source
from pipeline.data.readers.json_documents import items
from pipeline.data.readers.json_values import check, id_of
from pipeline.errors import Problems, abbreviate
from pipeline.tasks.base.row import Row

_TURN = {"system_transcript": str, "transcript": str, "turn_label": list}


@dataclass(frozen=True)
class Options:
    """`values` renames values, such as {center: centre}; others only lose the space around them.

    `rows` is what a row has: a whole dialogue, or a dialogue up to one of its turns.
    """

    values: dict[str, str] = field(default_factory=dict)
    rows: Literal["dialogues", "turns"] = "dialogues"


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """One row per dialogue: `id`, `system`, `user` and `labels`, with an item for each turn.

    The labels of a turn are "slot=value". The state (`belief_state`) and the system's acts are not
    read. With `rows: turns`, one row per turn: the dialogue up to it, with the dialogue as `title`.
    """
    for where, dialogue in items(Path(str(source)), problems):
        with problems.in_one_row():
            row = _row(dialogue, where, options, problems)
        if row is None:
            continue
        if options.rows == "dialogues":
            yield row
        else:
            yield from _up_to_each_turn(row)


def check_options(options: Options, where: str, problems: Problems) -> None:
    """Add a warning for each value to rename that no turn has."""
    for value in options.values:
        if not problems.found[value]:
            problems.add(
                where,
                f"values: no turn has the value {value!r}; correct it, or remove it",
                "unmatched-option",
            )


def _row(dialogue: dict[str, Any], where: str, options: Options, problems: Problems) -> Row | None:
    """The row of a dialogue; None, and problems, if a turn is not valid."""
    before = len(problems)
    row: Row = {"where": where, **id_of(dialogue, "dialogue_idx", where, problems)}
    if not check(dialogue, where, {"dialogue": list}, problems):
        return None
    if not dialogue["dialogue"]:
        problems.add(
            where, "dialogue: the list of turns is empty; fill it in, or remove it", "turn-count"
        )
    row |= {"system": [], "user": [], "labels": []}
    for number, turn in enumerate(dialogue["dialogue"]):
        turn_where = f"{where}: turn {number}"
        if check(turn, turn_where, _TURN, problems):
            row["system"].append(turn["system_transcript"].strip())
            row["user"].append(turn["transcript"])
            row["labels"].append(_labels(turn["turn_label"], turn_where, options.values, problems))
    return row if len(problems) == before else None


def _up_to_each_turn(row: Row) -> Iterator[Row]:
    """The rows of a dialogue up to each of its turns."""
    title = row.get("id", row["where"])
    for end in range(1, len(row["user"]) + 1):
        texts = {key: row[key][:end] for key in ("system", "user", "labels")}
        id = {"id": f"{row['id']}-{end}"} if "id" in row else {}
        yield {"where": row["where"], **id, "title": title, **texts}


def _labels(
    pairs: list[Any], where: str, values: Mapping[str, str], problems: Problems
) -> list[str]:
    """The labels of a turn. Adds a problem for each pair that is not a slot and its value."""
    labels = []
    for pair in pairs:
        match pair:
            case [str(slot), str(value)]:
                value = value.strip()
                problems.found[value] += value in values
                labels.append(f"{slot}={values.get(value, value)}")
            case _:
                problems.add(
                    where,
                    f"turn_label: found {abbreviate(pair, 40)}, expected a slot and its value",
                    "wrong-type",
                )
    return labels

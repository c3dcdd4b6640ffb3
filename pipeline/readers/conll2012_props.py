"""Predicates and their arguments in CoNLL-2012 columns: one token per line, one column of brackets per predicate.

In a predicate's column `(ARG0*` begins an argument, `*)` ends it, `(ARG0*)` is one of a single token and `*` is neither.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import Problems
from pipeline.readers.base import Line, Row, Source, blocks, cells

_CELL = re.compile(r"(?:\(([^()*\s]+))?\*(\))?")


@dataclass(frozen=True)
class Options:
    """Columns are counted from 0; those from `first_predicate` on, but for the last `trailing` ones, are predicates.

    `id_columns` name a sentence uniquely together (document and sentence number); without them its predicates get no id.
    """

    token: int
    first_predicate: int
    trailing: int = 0
    id_columns: tuple[int, ...] = ()
    separator: str | None = None

    def __post_init__(self) -> None:
        if not all(0 <= column < self.first_predicate for column in (self.token, *self.id_columns)):
            raise ValueError("token and id_columns are counted from 0 and come before first_predicate")
        if self.trailing < 0:
            raise ValueError(f"trailing: {self.trailing} is a number of columns; it cannot be negative")


def read(path: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """One row per predicate: `tokens`, `tags` (roles in IOB2) and `predicate`, the first token of its V.

    Sentences without predicates give no rows. The id is the sentence's id columns and the number of the predicate's
    column, joined by "/".
    """
    for block in blocks(path, ("#begin document", "#end document"), problems):
        rows = _rows(block, options, problems)
        tokens = [row[options.token] for row in rows]
        for number, column in enumerate(range(options.first_predicate, len(rows[0]) - options.trailing if rows else 0)):
            tags = _tags([row[column] for row in rows], block, problems)
            if tags is None:
                continue
            verbs = [position for position, tag in enumerate(tags) if tag == "B-V"]
            if len(verbs) != 1:
                found = f"predicate column {column} has {len(verbs)} spans (V*), expected exactly one"
                problems.add(block[0].where, f"{found}; correct it, or remove the column")
                continue
            row: Row = {"where": block[verbs[0]].where, "tokens": tokens, "predicate": verbs[0], "tags": tags}
            if options.id_columns:
                row["id"] = "/".join([*(rows[0][i] for i in options.id_columns), str(number)])
            yield row


def _rows(block: list[Line], options: Options, problems: Problems) -> list[list[str]]:
    """The sentence as a table; empty, and a problem, unless all its lines have the same number of columns."""
    rows = [cells(line, options.separator) for line in block]
    width = max(len(rows[0]), options.first_predicate + options.trailing)
    good = True
    for line, row in zip(block, rows, strict=True):
        if len(row) != width:
            problems.add(line.where, f"{len(row)} columns, expected {width} as in the rest of its sentence: {line.text!r}; "
                                     "correct the line, or the recipe's separator, first_predicate or trailing")
            good = False
        elif not row[options.token].strip():
            problems.add(line.where, f"column {options.token}, the token, is empty: {line.text!r}; remove the line or fill it in")
            good = False
    return rows if good else []


def _tags(column: list[str], block: list[Line], problems: Problems) -> list[str] | None:
    """A column of brackets as IOB2 tags; None, and a problem with the line, where the brackets are ill-formed."""
    tags: list[str] = []
    opened: str | None = None
    opened_at = 0
    for position, (cell, line) in enumerate(zip(column, block, strict=True)):
        match = _CELL.fullmatch(cell)
        if match is None:
            problems.add(line.where, f"brackets {cell!r} are not of the form (ROLE*), (ROLE*, *) or *; correct them")
            return None
        role, closes = match.groups()
        if (role and opened) or (closes and not role and not opened):
            trouble = f"opens inside ({opened}*" if role else "closes what was not opened"
            problems.add(line.where, f"bracket {cell!r} {trouble}; a predicate's arguments cannot overlap: correct the column")
            return None
        if role:
            opened, opened_at = role, position
        tags.append(f"{'B' if role else 'I'}-{opened}" if opened else "O")
        opened = None if closes else opened
    if opened:
        problems.add(block[opened_at].where, f"bracket '({opened}*' is not closed by the end of its sentence; add the '*)'")
        return None
    return tags

"""Predicates and their arguments in CoNLL columns: one token per line, one column of brackets per predicate.

In a predicate's column `(ARG0*` begins an argument, `*)` ends it, `(ARG0*)` is one of a single token and `*` is neither: so in
CoNLL-2005 (whose words and props are in two files), CoNLL-2012, OntoNotes and PropBank.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path

from pipeline.data.readers.base import Source, SourceLine, blocks, cells, lines, shown
from pipeline.data.readers.conll_columns import BOUNDARIES
from pipeline.data.readers.tags import to_iob2
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row


@dataclass(frozen=True)
class Options:
    """Columns are counted from 0; those from `first_predicate` on, but for the last `trailing` ones, are predicates.

    `marks` is the column that is not - at each predicate (its lemma or roleset): there are as many as predicates. `id_columns`
    name a sentence uniquely together (document and sentence number); without them its predicates get no id. Lines that begin
    with `comment` are left out. `words: {props: words}` reads the words of a/props/x.props from a/words/x.words, and puts the
    columns of that file in front of those of this one.
    """

    token: int
    first_predicate: int
    trailing: int = 0
    marks: int | None = None
    id_columns: tuple[int, ...] = ()
    separator: str | None = None
    comment: str | None = None
    words: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not all(
            0 <= column < self.first_predicate
            for column in (self.token, self.marks or 0, *self.id_columns)
        ):
            raise ValueError(
                "token, marks and id_columns are counted from 0 and come before first_predicate"
            )
        if self.trailing < 0:
            raise ValueError(
                f"trailing: {self.trailing} is a number of columns; it cannot be negative"
            )
        if self.words and self.comment:
            raise ValueError("comment: words and props in two files have none; remove it")
        if len(self.words) > 1 or "" in self.words or "" in (self.separator, self.comment):
            raise ValueError(
                "words has one pair, what to replace in a path and by what; no text here is empty"
            )


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """One row per predicate: `tokens`, `tags` (roles in IOB2) and `predicate`, the first token of its V.

    Sentences without predicates give no rows. The id is the sentence's id columns and the number of the predicate's
    column, joined by "/".
    """
    for table in _tables(source, options, problems):
        tokens = [row[options.token] for _, row in table]
        for number, column in enumerate(
            range(options.first_predicate, len(table[0][1]) - options.trailing)
        ):
            tags, wrong = to_iob2([row[column] for _, row in table], "brackets")
            for position, message, kind in wrong:
                problems.add(table[position][0].where, message, kind)
            if wrong:
                continue
            verbs = [position for position, tag in enumerate(tags) if tag == "B-V"]
            if len(verbs) != 1:
                found = (
                    f"predicate column {column} has {len(verbs)} spans (V*), expected exactly one"
                )
                problems.add(
                    table[0][0].where,
                    f"{found}; correct it, or remove the column",
                    "not-one-predicate",
                )
                continue
            row: Row = {
                "where": table[verbs[0]][0].where,
                "tokens": tokens,
                "predicate": verbs[0],
                "tags": tags,
            }
            if options.id_columns:
                row["id"] = "/".join([*(table[0][1][i] for i in options.id_columns), str(number)])
            yield row


Table = list[tuple[SourceLine, list[str]]]
"""A sentence: where each of its lines is, and the line's columns."""


def _tables(source: Source, options: Options, problems: Problems) -> Iterator[Table]:
    """Each sentence whose lines are sound and of the same number of columns."""
    comments = (options.comment,) if options.comment else ()
    if options.words:
        assert isinstance(source, Path), "two files are not cut alike"
        sentences = _pasted(source, options, problems)
    else:
        sentences = (
            [(line, cells(line, options.separator)) for line in block]
            for block in blocks(source, BOUNDARIES, problems, comments)
        )
    for table in sentences:
        if _is_sound(table, options, problems):
            yield table


def _pasted(path: Path, options: Options, problems: Problems) -> Iterator[Table]:
    """The sentences of a file of props, the columns of its file of words in front. Stops where the two do not go together."""
    if not (files := companion_files(path, options)):
        problems.add(
            str(path),
            f"there is no file of words beside it, by options.words {options.words}; get it, or correct them",
            "missing-file",
            hides=True,
        )
        return
    table: Table = []
    for word, line in zip_longest(
        lines(files[0], problems), lines(path, problems), fillvalue=SourceLine("", "")
    ):
        if bool(word.text.strip()) != bool(line.text.strip()):
            problems.add(
                line.where or word.where,
                f"{shown(line.text)} goes with {shown(word.text)} of {word.where or files[0]}: one ends a sentence, the "
                "other does not; the two files must have the same lines",
                "uneven-files",
                hides=True,
            )
            return
        if word.text.strip():
            table.append((line, cells(word, options.separator) + cells(line, options.separator)))
        elif table:
            yield table
            table = []
    if table:
        yield table


def companion_files(path: Path, options: Options) -> list[Path]:
    """The file of words, if there is one: a part of the path replaced in the file's name, in its folder's, or in both."""
    if not options.words:
        return []
    part, by = next(iter(options.words.items()))
    names = (
        path.with_name(path.name.replace(part, by)),
        path.parent.with_name(path.parent.name.replace(part, by)) / path.name,
        path.parent.with_name(path.parent.name.replace(part, by)) / path.name.replace(part, by),
    )
    return [name for name in names if name != path and name.is_file()][:1]


def _is_sound(table: Table, options: Options, problems: Problems) -> bool:
    """Whether all lines have the same number of columns, a token, and as many predicates are marked as have a column."""
    before = len(problems)
    width = max(len(table[0][1]), options.first_predicate + options.trailing)
    for line, row in table:
        if len(row) != width:
            problems.add(
                line.where,
                f"{len(row)} columns, expected {width} as in the rest of its sentence: {shown(line.text)}; "
                "correct the line, or the recipe's separator, first_predicate or trailing",
                "column-count",
            )
        elif not row[options.token].strip():
            problems.add(
                line.where,
                f"column {options.token}, the token, is empty: {shown(line.text)}; "
                "remove the line or fill it in",
                "empty-token",
            )
    if len(problems) > before:
        return False
    columns = width - options.first_predicate - options.trailing
    marked = (
        columns if options.marks is None else sum(row[options.marks] != "-" for _, row in table)
    )
    if marked != columns:
        problems.add(
            table[0][0].where,
            f"column {options.marks} marks {marked} predicates, but {columns} columns are of them; "
            "correct the sentence, or the recipe's marks, first_predicate or trailing",
            "predicate-count",
        )
    return marked == columns

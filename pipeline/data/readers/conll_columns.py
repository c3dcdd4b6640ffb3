"""One token per line in columns, one of them a span tag; blank lines between sentences (CoNLL-2003, WNUT, CoNLL-U, OntoNotes)."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, Literal, cast

from pipeline.data.readers.base import Source, SourceLine, blocks, cells, shown
from pipeline.data.readers.tags import Scheme, SchemeEvidence, SchemeOrAuto, to_iob2
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row

BOUNDARIES = ("-DOCSTART-", "#begin document", "#end document")
_NO_WORD = re.compile(r"\d+[-.]\d+")  # CoNLL-U's ids of multiword ranges and of empty nodes


@dataclass(frozen=True)
class Options:
    """`token` and `tag` are columns counted from 0, or from the end (-1 is the last); every line must have exactly `columns`.

    Columns are separated by `separator`, or by any run of spaces and tabs without one; where it is auto, by that of tabs and such
    runs which gives more lines the same number of columns (tabs, if both do). `columns: auto` is the number that most lines have,
    `tag_scheme: auto` the scheme that the tags fit best. What is auto is one and the same for all files of a corpus.

    Lines that begin with `comment` are left out. `token_id` is the column of CoNLL-U's ids: multiword ranges (1-2) and empty
    nodes (1.1) are left out. `feature` is what the tag is called in a column of features (NER of `Gloss=x|NER=B-PER`); O where
    it is not there.
    """

    columns: int | Literal["auto"]
    token: int
    tag: int
    tag_scheme: SchemeOrAuto
    separator: str | None = None
    comment: str | None = None
    token_id: int | None = None
    feature: str | None = None

    def __post_init__(self) -> None:
        for name, column in (("token", self.token), ("tag", self.tag), ("token_id", self.token_id)):
            if (
                column is not None
                and self.columns != "auto"
                and not -self.columns <= column < self.columns
            ):
                raise ValueError(
                    f"{name}: {column} is no column of {self.columns}; they are counted from 0"
                )
        if "" in (self.separator, self.comment, self.feature):
            raise ValueError(
                "separator, comment and feature are not empty; leave out what there is none of"
            )


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `tokens` and IOB2 `tags`. -DOCSTART- lines are left out, and end a sentence like a blank line.

    `options` are settled: nothing in them is auto.
    """
    scheme = cast(Scheme, options.tag_scheme)
    for block, tokens, found in _sentences(source, options, problems):
        tags, wrong = to_iob2(found, scheme)
        for position, message, kind in wrong:
            problems.add(block[position].where, message, kind)
        if not wrong:
            yield {"where": block[0].where, "tokens": tokens, "tags": tags}


def resolve_auto(options: Options, files: Iterable[Source]) -> tuple[Options, dict[str, Any]]:
    """The options with what `files`, all files of a corpus, say where they are auto; and what that is, by name."""
    files = list(files)
    found: dict[str, Any] = {}
    if options.separator == "auto" or options.columns == "auto":
        found |= _layout(options, files)
        options = replace(options, **found)
    if options.tag_scheme == "auto":
        evidence = SchemeEvidence()
        for source in files:
            for _, _, tags in _sentences(source, options, Problems()):
                evidence.see(tags)
        found["tag_scheme"] = evidence.scheme()
    return replace(options, **found), found


def _layout(options: Options, files: Iterable[Source]) -> dict[str, Any]:
    """The separator and the number of columns, as far as they are auto."""
    asked: tuple[str | None, ...] = (
        ("\t", None) if options.separator == "auto" else (options.separator,)
    )
    widths: dict[str | None, Counter[int]] = {
        separator: Counter() for separator in asked
    }  # lines by their number of columns
    comments = (options.comment,) if options.comment else ()
    for source in files:
        for line in chain.from_iterable(blocks(source, BOUNDARIES, Problems(), comments)):
            for separator, counts in widths.items():
                counts[len(cells(line, separator))] += 1
    most = {
        separator: options.columns if options.columns != "auto" else _most(counts, options)
        for separator, counts in widths.items()
    }
    separator = max(asked, key=lambda one: widths[one][most[one]])
    found = {"separator": separator, "columns": most[separator]}
    return {name: value for name, value in found.items() if getattr(options, name) == "auto"}


def _most(counts: Counter[int], options: Options) -> int:
    """The number of columns that most lines have, of those that are enough."""
    least = max(
        column + 1 if column >= 0 else -column
        for column in (options.token, options.tag, options.token_id or 0)
    )
    least = max(least, 2)
    return max(
        (width for width in counts if width >= least),
        key=lambda width: (counts[width], -width),
        default=least,
    )


def _sentences(
    source: Source, options: Options, problems: Problems
) -> Iterator[tuple[list[SourceLine], list[str], list[str]]]:
    """The lines of tokens, tokens and tags as the file has them, of each sentence whose lines are sound."""
    comments = (options.comment,) if options.comment else ()
    for block in blocks(source, BOUNDARIES, problems, comments):
        before = len(problems)
        rows = [(line, row) for line in block if (row := _columns(line, options, problems))]
        words = [
            (line, row)
            for line, row in rows
            if options.token_id is None or not _NO_WORD.fullmatch(row[options.token_id])
        ]
        if len(problems) == before and words:
            tags = [row[options.tag] for _, row in words]
            yield (
                [line for line, _ in words],
                [row[options.token] for _, row in words],
                tags
                if options.feature is None
                else [_feature(options.feature, cell) for cell in tags],
            )


def _columns(line: SourceLine, options: Options, problems: Problems) -> list[str] | None:
    """The columns of one line; None, and a problem, where their number is wrong or there is no token."""
    row = cells(line, options.separator)
    if len(row) != options.columns:
        problems.add(
            line.where,
            f"{len(row)} columns, expected {options.columns}: {shown(line.text)}; "
            "correct the line, or the recipe's separator or columns",
            "column-count",
        )
        return None
    if not row[options.token].strip():
        problems.add(
            line.where,
            f"column {options.token}, the token, is empty: {shown(line.text)}; "
            "remove the line or fill it in",
            "empty-token",
        )
        return None
    return row


def _feature(name: str, cell: str) -> str:
    """The value of a feature in a cell of NAME=VALUE, separated by |; O where it has none."""
    return next(
        (
            value
            for key, _, value in (part.partition("=") for part in cell.split("|"))
            if key == name
        ),
        "O",
    )

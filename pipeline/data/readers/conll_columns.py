"""One token per line in columns, one of them a span tag; blank lines end sentences.

CoNLL-2003, WNUT, CoNLL-U and the named entities of OntoNotes have this format.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, count
from typing import Any, Literal, cast

from pipeline.data.readers.base import (
    Layout,
    Source,
    SourceLine,
    blocks,
    split_columns,
)
from pipeline.data.readers.tags import Scheme, SchemeEvidence, SchemeOrAuto, to_iob2
from pipeline.errors import Problem, Problems, abbreviate, quantity
from pipeline.tasks.base.row import TAG_PROBLEMS, Row

_NOT_A_WORD_ID = re.compile(r"\d+([-.])\d+")  # CoNLL-U's multiword ranges, empty nodes
_SKIPPED_IDS = {"-": "multiword ranges (1-2)", ".": "empty nodes (1.1)"}
_NO_TAG = ("O", "_", "-", "*")  # in a line of a multiword range or an empty node
_FEATURE = "feature"  # its name in `Problems.found`; also the prefix of the names of features
MAX_FEATURE_NAMES = 20  # names to keep for a message


@dataclass(frozen=True)
class Options:
    """The layout of the columns.

    `columns` is the number of columns of every line; `auto` is the most frequent number. `token`
    and `tag` are columns, counted from 0, or from the end (-1 is the last). `tag_scheme: auto` is
    the scheme with the fewest violations. `separator` separates columns; None is any run of spaces
    and tabs. `separator: auto` is the tab or such a run: the one that gives more lines the same
    number of columns (the tab if they are equal). All files of a corpus have the same value of
    `auto`.

    Lines that begin with `comment` are skipped, except a line inside a sentence with all columns.
    Lines that begin with `document_mark` are skipped, and end a sentence. `token_id` is the column
    of CoNLL-U's ids; multiword ranges (1-2) and empty nodes (1.1) are skipped. `feature` is the
    tag's name in a column of features (NER in `Gloss=x|NER=B-PER`); a token without it has the tag
    O.
    """

    columns: int | Literal["auto"]
    token: int
    tag: int
    tag_scheme: SchemeOrAuto
    separator: str | None = None
    comment: str | None = None
    token_id: int | None = None
    feature: str | None = None
    document_mark: str | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.columns != "auto":
            problems = [
                f"{name}: there is no column {column} of {self.columns}; count columns from 0"
                for name, column in self._columns().items()
                if not -self.columns <= column < self.columns
            ]
        if not problems and self._token_is_tag(self.columns):
            problems.append(
                f"token and tag: {self.token} and {self.tag} are the same column; correct one of "
                "them"
            )
        if "" in (self.separator, self.comment, self.feature, self.document_mark):
            problems.append(
                "separator, comment, feature and document_mark must not be empty; "
                "remove the empty key"
            )
        if problems:
            raise ValueError("; ".join(problems))

    def _columns(self) -> dict[str, int]:
        """The columns that are read, by option."""
        columns = {"token": self.token, "tag": self.tag, "token_id": self.token_id}
        return {name: column for name, column in columns.items() if column is not None}

    def _token_is_tag(self, width: int | Literal["auto"]) -> bool:
        """Whether token and tag are the same column of a line of `width` columns."""
        difference = self.token - self.tag
        return difference == 0 if width == "auto" else difference % width == 0

    def fits(self, width: int) -> bool:
        """Whether a line of `width` columns has all columns that are read, token and tag apart."""
        has_all = all(-width <= column < width for column in self._columns().values())
        return has_all and not self._token_is_tag(width)

    @property
    def layout(self) -> Layout:
        """How lines form sentences. A separator or columns with auto are None."""
        separator = None if self.separator == "auto" else self.separator
        columns = None if self.columns == "auto" else self.columns
        return Layout(separator, self.comment, self.document_mark, columns)


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `tokens` and IOB2 `tags`. -DOCSTART- lines are skipped, and end a sentence.

    A row whose tags violate the scheme has TAG_PROBLEMS, and the task refuses it.

    `options` must not contain auto: see `resolve_auto`.
    """
    scheme = cast(Scheme, options.tag_scheme)
    for block, tokens, raw_tags in _sentences(source, options, problems):
        tags, errors = to_iob2(raw_tags, scheme)
        row: Row = {"where": block[0].where, "tokens": tokens, "tags": tags}
        if errors:
            row[TAG_PROBLEMS] = [
                Problem(kind, block[position].where, message) for position, message, kind in errors
            ]
        yield row


def resolve_auto(options: Options, files: Iterable[Source]) -> tuple[Options, dict[str, Any]]:
    """The options with each auto replaced by the detected value.

    `files` are all files of the corpus. Also returns the detected values by name.
    """
    files = list(files)
    detected: dict[str, Any] = {}
    if options.separator == "auto" or options.columns == "auto":
        detected |= _detect_layout(options, files)
        options = replace(options, **detected)
    if options.tag_scheme == "auto":
        evidence = SchemeEvidence()
        for source in files:
            for _, _, tags in _sentences(source, options, Problems()):
                evidence.add(tags)
        detected["tag_scheme"] = evidence.scheme()
    return replace(options, **detected), detected


def _detect_layout(options: Options, files: Iterable[Source]) -> dict[str, Any]:
    """The separator and the number of columns, if they are auto."""
    separators: tuple[str | None, ...] = (
        ("\t", None) if options.separator == "auto" else (options.separator,)
    )
    # For each separator, the number of lines by their number of columns.
    widths: dict[str | None, Counter[int]] = {separator: Counter() for separator in separators}
    for source in files:
        for line in chain.from_iterable(blocks(source, options.layout, Problems())):
            for separator, counts in widths.items():
                counts[len(split_columns(line, separator))] += 1
    usual = {
        separator: options.columns if options.columns != "auto" else _usual_width(counts, options)
        for separator, counts in widths.items()
    }
    separator = max(separators, key=lambda candidate: widths[candidate][usual[candidate]])
    detected = {"separator": separator, "columns": usual[separator]}
    return {name: value for name, value in detected.items() if getattr(options, name) == "auto"}


def _usual_width(counts: Counter[int], options: Options) -> int:
    """The most frequent number of columns that fits the options; at least 2."""
    return max(
        (width for width in counts if width >= 2 and options.fits(width)),
        key=lambda width: (counts[width], -width),
        default=next(filter(options.fits, count(2))),
    )


def _sentences(
    source: Source, options: Options, problems: Problems
) -> Iterator[tuple[list[SourceLine], list[str], list[str]]]:
    """The token lines, the tokens and the raw tags of each sentence without problems."""
    for block in blocks(source, options.layout, problems):
        num_problems = len(problems)
        with problems.in_one_row():
            rows = [(line, row) for line in block if (row := _columns(line, options, problems))]
        word_rows = [(line, row) for line, row in rows if _is_word(line, row, options, problems)]
        if len(problems) == num_problems and word_rows:
            _check_ids(word_rows, options, problems)
            tags = [_tag(row, options, problems) for _, row in word_rows]
            tokens = [row[options.token] for _, row in word_rows]
            yield [line for line, _ in word_rows], tokens, tags


def _check_ids(
    word_rows: Sequence[tuple[SourceLine, list[str]]], options: Options, problems: Problems
) -> None:
    """Warn of a sentence whose ids begin again at 1, as if two sentences were joined."""
    if options.token_id is None:
        return
    for line, row in word_rows[1:]:
        if row[options.token_id] == "1":
            problems.add(
                line.where,
                "the ids begin again at 1 inside a sentence; if another sentence begins here, put "
                "a blank line before it",
                "repeated-token-id",
            )


def _is_word(line: SourceLine, row: list[str], options: Options, problems: Problems) -> bool:
    """Whether a line is not a multiword range or an empty node.

    These are skipped and counted. One with a tag adds a warning.
    """
    if options.token_id is None:
        return True
    number = row[options.token_id]
    match = _NOT_A_WORD_ID.fullmatch(number)
    problems.found["token_id"] += match is not None or number.isdigit()
    if match is None:
        return True
    kind, tag = _SKIPPED_IDS[match[1]], _tag(row, options, problems)
    problems.skipped[kind] += 1
    if tag not in _NO_TAG:
        problems.add(
            line.where,
            f"{number} has the tag {tag!r}, but {kind} are skipped with their tags; "
            "move the tag to a word",
            "skipped-tag",
        )
    return False


def _tag(row: list[str], options: Options, problems: Problems) -> str:
    """The raw tag in a row."""
    cell = row[options.tag]
    return cell if options.feature is None else _feature(options.feature, cell, problems)


def _columns(line: SourceLine, options: Options, problems: Problems) -> list[str] | None:
    """The columns of a line; adds a problem and returns None for a wrong number or no token."""
    row = split_columns(line, options.separator)
    if len(row) != options.columns:
        problems.add(
            line.where,
            f"{quantity(len(row), 'column')}, expected {options.columns}: {abbreviate(line.text)}; "
            "correct the line, or the recipe's separator or columns",
            "column-count",
        )
        return None
    if not row[options.token].strip():
        problems.add(
            line.where,
            f"column {options.token}, the token, is empty: {abbreviate(line.text)}; "
            "remove the line or fill it in",
            "empty-token",
        )
        return None
    return row


def _feature(name: str, cell: str, problems: Problems) -> str:
    """The value of a feature in a cell of NAME=VALUE pairs, separated by |; O if it is absent."""
    for feature in cell.split("|"):
        key, _, value = feature.partition("=")
        if key == name:
            problems.found[_FEATURE] += 1
            return value
        if value and not problems.found[_FEATURE] and len(problems.found) < MAX_FEATURE_NAMES:
            problems.found[f"{_FEATURE} {key}"] += 1
    return "O"


def check_options(options: Options, where: str, problems: Problems) -> None:
    """Add a problem for each option that matches nothing in the whole corpus.

    `problems` are those of all files. `where` is the recipe.
    """
    found = problems.found
    if options.feature is not None and not found[_FEATURE]:
        prefix = f"{_FEATURE} "
        names = sorted(name.removeprefix(prefix) for name in found if name.startswith(prefix))
        problems.add(
            where,
            f"feature: no token has the feature {options.feature!r} in column {options.tag}, which "
            f"has {', '.join(names[:MAX_FEATURE_NAMES]) or 'no features'}; correct feature or tag",
            "absent-feature",
            hides=True,
        )
    if options.token_id is not None and not found["token_id"]:
        problems.add(
            where,
            f"token_id: no line has an id (1, 1-2 or 1.1) in column {options.token_id}; "
            "correct token_id, or remove it",
            "unmatched-option",
        )
    options.layout.check_options(where, problems)

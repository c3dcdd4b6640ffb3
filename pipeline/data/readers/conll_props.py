"""Predicates and their arguments in CoNLL columns: one token per line, one column per predicate.

In a predicate's column `(ARG0*` begins an argument, `*)` ends it, `(ARG0*)` is an argument of one
token, and `*` is none of these. CoNLL-2005 (words and props in two files), CoNLL-2012, OntoNotes
and PropBank have this format.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Literal

from pipeline.data.readers.base import (
    Layout,
    Source,
    SourceLine,
    blocks,
    lines,
    split_columns,
)
from pipeline.data.readers.tags import to_iob2
from pipeline.errors import Problems, abbreviate, quantity
from pipeline.tasks.base.row import Row

# Their names in `Problems.skipped`.
WITHOUT_PREDICATES = "sentences without predicates"
REPEATED_PREDICATES = "predicates at the token of another predicate"


@dataclass(frozen=True)
class Options:
    """The layout of the columns, which are counted from 0.

    A row is a predicate of a sentence, or with `rows: sentences` a sentence with the tag B-V at the
    first token of each predicate (a task that finds predicates).

    The columns from `first_predicate` on are predicates, except the last `trailing` columns.
    `marks` is a column with a lemma or roleset at each predicate and - elsewhere; its number of
    predicates must equal that of the predicate columns. `id_columns` together identify a sentence
    (document and sentence number); without them rows have no id. Lines that begin with `comment`
    are skipped, except a line inside a sentence with as many columns as its other lines. Lines that
    begin with `document_mark` are skipped, and end a sentence. `words: {props: words}` reads the
    tokens of a/props/x.props from a/words/x.words, and inserts the columns of that file before
    those of the props.
    """

    token: int
    first_predicate: int
    trailing: int = 0
    marks: int | None = None
    id_columns: tuple[int, ...] = ()
    separator: str | None = None
    comment: str | None = None
    document_mark: str | None = None
    words: dict[str, str] = field(default_factory=dict)
    rows: Literal["predicates", "sentences"] = "predicates"

    def __post_init__(self) -> None:
        problems = []
        if not all(
            0 <= column < self.first_predicate
            for column in (self.token, self.marks or 0, *self.id_columns)
        ):
            problems.append(
                "token, marks and id_columns must be columns before first_predicate; "
                "count columns from 0"
            )
        if self.trailing < 0:
            problems.append(
                f"trailing: {self.trailing} is a negative number of columns; write 0 or more"
            )
        if self.words and (self.comment or self.document_mark):
            problems.append(
                "comment, document_mark: files of words and props cannot have comments and "
                "document marks; remove the key"
            )
        texts = (self.separator, self.comment, self.document_mark)
        if len(self.words) > 1 or "" in self.words or "" in texts:
            problems.append(
                "words needs exactly one pair, the text in a path and its replacement; "
                "words, separator, comment and document_mark must not be empty"
            )
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def layout(self) -> Layout:
        """How lines form sentences."""
        return Layout(self.separator, self.comment, self.document_mark)


def keys(options: Options) -> frozenset[str]:
    """The keys of all rows."""
    return frozenset(
        {"tokens", "tags"} | ({"predicate"} if options.rows == "predicates" else set())
    )


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """One row per predicate: `tokens`, `tags` (roles in IOB2) and `predicate`; or per sentence.

    `predicate` is the position of B-V. Sentences without predicates have no rows, and are counted.
    The id joins the sentence's id columns and the number of the predicate's column with "/".

    With `rows: sentences`, a row has `tokens` and `tags`, all O in a sentence without predicates.
    Its id does not have the number of a predicate's column. Two predicates at one token are one,
    and are counted.
    """
    for sentence in _sentences(source, options, problems):
        _warn_of_skipped_predicates(sentence, options, problems)
        columns = range(options.first_predicate, len(sentence[0][1]) - options.trailing)
        tags = [_tags(sentence, column, problems) for column in columns]
        if options.rows == "sentences":
            yield from _sentence_row(sentence, tags, options, problems)
        else:
            problems.skipped[WITHOUT_PREDICATES] += not columns
            yield from _predicate_rows(sentence, tags, options)


def check_options(options: Options, where: str, problems: Problems) -> None:
    """Add a problem for each option that matches nothing in the whole corpus.

    `problems` are those of all files. `where` is the recipe.
    """
    options.layout.check_options(where, problems)


Sentence = list[tuple[SourceLine, list[str]]]
"""For each token its line and the columns of the line."""


def _tags(sentence: Sentence, column: int, problems: Problems) -> list[str] | None:
    """The roles in a predicate's column in IOB2; None, and a problem, if it is malformed."""
    tags, errors = to_iob2([row[column] for _, row in sentence], "brackets")
    for position, message, kind in errors:
        problems.add(sentence[position][0].where, message, kind)
    if errors:
        return None
    count = tags.count("B-V")
    if count != 1:
        problems.add(
            sentence[0][0].where,
            f"predicate column {column} has {quantity(count, 'span')} (V*), expected exactly 1; "
            "correct it, or remove the column",
            "not-one-predicate",
        )
    return tags if count == 1 else None


def _predicate_rows(
    sentence: Sentence, tags_by_column: list[list[str] | None], options: Options
) -> Iterator[Row]:
    tokens = [row[options.token] for _, row in sentence]
    for number, tags in enumerate(tags_by_column):
        if tags is None:
            continue
        predicate = tags.index("B-V")
        row: Row = {
            "where": sentence[predicate][0].where,
            "tokens": tokens,
            "predicate": predicate,
            "tags": tags,
        }
        if options.id_columns:
            row["id"] = "/".join([*_id_cells(sentence, options), str(number)])
        yield row


def _sentence_row(
    sentence: Sentence,
    tags_by_column: list[list[str] | None],
    options: Options,
    problems: Problems,
) -> Iterator[Row]:
    """The row of a sentence; none if one of its predicates is malformed."""
    positions = [tags.index("B-V") for tags in tags_by_column if tags is not None]
    if len(positions) < len(tags_by_column):
        return
    problems.skipped[REPEATED_PREDICATES] += len(positions) - len(set(positions))
    row: Row = {
        "where": sentence[0][0].where,
        "tokens": [row[options.token] for _, row in sentence],
        "tags": ["B-V" if number in positions else "O" for number in range(len(sentence))],
    }
    if options.id_columns:
        row["id"] = "/".join(_id_cells(sentence, options))
    yield row


def _id_cells(sentence: Sentence, options: Options) -> list[str]:
    return [sentence[0][1][column] for column in options.id_columns]


def _warn_of_skipped_predicates(sentence: Sentence, options: Options, problems: Problems) -> None:
    """Warn of a predicate's column before `first_predicate` or among the `trailing` columns."""
    num_columns = len(sentence[0][1])
    used = {options.token, options.marks, *options.id_columns}
    before = (column for column in range(options.first_predicate) if column not in used)
    after = range(num_columns - options.trailing, num_columns)
    for column in (*before, *after):
        if _is_predicate([row[column] for _, row in sentence]):
            option = (
                f"before first_predicate ({options.first_predicate})"
                if column < options.first_predicate
                else f"among the trailing columns ({options.trailing})"
            )
            problems.add(
                sentence[0][0].where,
                f"column {column} has one span (V*), as a predicate's column has, but it is "
                f"{option}, so this predicate is skipped; correct first_predicate or trailing",
                "skipped-predicate",
            )


def _is_predicate(cells: list[str]) -> bool:
    """Whether the cells of a column are brackets with exactly one span V."""
    if not any(cell.startswith("(V") for cell in cells):
        return False
    tags, errors = to_iob2(cells, "brackets")
    return not errors and tags.count("B-V") == 1


def _sentences(source: Source, options: Options, problems: Problems) -> Iterator[Sentence]:
    """Each sentence without problems; all its lines have the same number of columns."""
    if options.words:
        assert isinstance(source, Path), "slices of two files do not match"
        sentences = _with_words(source, options, problems)
    else:
        sentences = (
            [(line, split_columns(line, options.separator)) for line in block]
            for block in blocks(source, options.layout, problems)
        )
    for sentence in sentences:
        if _is_valid(sentence, options, problems):
            yield sentence


def _with_words(path: Path, options: Options, problems: Problems) -> Iterator[Sentence]:
    """The sentences of a props file, with the columns of its words file inserted first.

    Stops at the first line where the two files do not match.
    """
    if not (files := companion_files(path, options)):
        problems.add(
            str(path),
            f"its file of words does not exist (options.words {options.words}); "
            "add the file, or correct words",
            "missing-file",
            hides=True,
        )
        return
    sentence: Sentence = []
    for word, line in zip_longest(
        lines(files[0], problems), lines(path, problems), fillvalue=SourceLine("", "")
    ):
        if bool(word.text.strip()) != bool(line.text.strip()):
            problems.add(
                line.where or word.where,
                f"{abbreviate(line.text)} does not match {abbreviate(word.text)} of "
                f"{word.where or files[0]}: only one of them ends a sentence; "
                "give both files the same lines",
                "uneven-files",
                hides=True,
            )
            return
        if word.text.strip():
            columns = split_columns(word, options.separator)
            sentence.append((line, columns + split_columns(line, options.separator)))
        elif sentence:
            yield sentence
            sentence = []
    if sentence:
        yield sentence


def companion_files(path: Path, options: Options) -> list[Path]:
    """The file of words of a props file, if it exists.

    `options.words` replaces a text in the file's name, in its folder's name, or in both.
    """
    if not options.words:
        return []
    text, replacement = next(iter(options.words.items()))
    file_name = path.name.replace(text, replacement)
    folder = path.parent.with_name(path.parent.name.replace(text, replacement))
    candidates = (path.with_name(file_name), folder / path.name, folder / file_name)
    return [file for file in candidates if file != path and file.is_file()][:1]


def _is_valid(sentence: Sentence, options: Options, problems: Problems) -> bool:
    """Whether all lines have a token and the same number of columns, and `marks` matches them."""
    num_problems = len(problems)
    width = max(len(sentence[0][1]), options.first_predicate + options.trailing)
    for line, row in sentence:
        if len(row) != width:
            problems.add(
                line.where,
                f"{quantity(len(row), 'column')}, expected {width} as in the rest of its sentence: "
                f"{abbreviate(line.text)}; "
                "correct the line, or the recipe's separator, first_predicate or trailing",
                "column-count",
            )
        elif not row[options.token].strip():
            problems.add(
                line.where,
                f"column {options.token}, the token, is empty: {abbreviate(line.text)}; "
                "remove the line or fill it in",
                "empty-token",
            )
    if len(problems) > num_problems:
        return False
    num_predicates = width - options.first_predicate - options.trailing
    if options.marks is None:
        return True
    num_marks = sum(row[options.marks] != "-" for _, row in sentence)
    if num_marks != num_predicates:
        problems.add(
            sentence[0][0].where,
            f"column {options.marks} marks {quantity(num_marks, 'predicate')}, but the sentence "
            f"has {quantity(num_predicates, 'predicate column')}; correct the sentence, or the "
            "recipe's marks, first_predicate or trailing",
            "predicate-count",
        )
    return num_marks == num_predicates

"""One token per line in columns, one of them a span tag; blank lines between sentences (CoNLL-2003, WNUT, many others)."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.errors import Problems
from pipeline.readers.base import Line, Row, Source, blocks, cells
from pipeline.readers.tags import Scheme, to_iob2


@dataclass(frozen=True)
class Options:
    """`token` and `tag` are columns counted from 0; every line must have exactly `columns`.

    Without a `separator`, columns are separated by any run of spaces and tabs.
    """

    columns: int
    token: int
    tag: int
    tag_scheme: Scheme
    separator: str | None = None

    def __post_init__(self) -> None:
        for name, column in (("token", self.token), ("tag", self.tag)):
            if not 0 <= column < self.columns:
                raise ValueError(f"{name}: {column} is no column of {self.columns}; they are counted from 0")


def read(path: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `tokens` and IOB2 `tags`. -DOCSTART- lines are left out, and end a sentence like a blank line."""
    for block in blocks(path, ("-DOCSTART-",), problems):
        before = len(problems)
        rows = [_columns(line, options, problems) for line in block]
        tokens, tags = [row[0] for row in rows], [row[1] for row in rows]
        if len(problems) > before:
            continue
        tags, wrong = to_iob2(tags, options.tag_scheme)
        for position, message in wrong:
            problems.add(block[position].where, message)
        if not wrong:
            yield {"where": block[0].where, "tokens": tokens, "tags": tags}


def _columns(line: Line, options: Options, problems: Problems) -> tuple[str, str]:
    """The token and the tag of one line; what is wrong with it is added to `problems`."""
    row = cells(line, options.separator)
    if len(row) != options.columns:
        problems.add(line.where, f"{len(row)} columns, expected {options.columns}: {line.text!r}; "
                                 "correct the line, or the recipe's separator or columns")
        return "", "O"
    token, tag = row[options.token], row[options.tag]
    if not token.strip():
        problems.add(line.where, f"column {options.token}, the token, is empty: {line.text!r}; remove the line or fill it in")
    return token, tag

"""What all readers share: what a row is, and text files cut into lines and blocks."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from pipeline.errors import UNDECODABLE, Problems

Row = dict[str, Any]
"""One unchecked example as plain Python. Always `where` (its "file:line"), perhaps `id`; the other keys are the task's:
tokens and tags (IOB2); or tokens, predicate and tags; or question, context, answers (text, answer_start) and perhaps title; or
text and label, perhaps text_pair, spans (segment, start, end) and question; or context, question, choices and answers (texts),
perhaps starts."""

_GAP = re.compile(r"[ \t]+")  # str.split() would also cut at a no-break space inside a token

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Splits:
    """Where each split is: a file, a pattern of files (`train-*.json`), or a hub split's name; or several, read in order."""

    train: str | tuple[str, ...]
    test: str | tuple[str, ...]
    validation: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        out = [name for split in SPLITS for name in self.of(split) if Path(name).is_absolute() or ".." in Path(name).parts]
        if out:
            raise ValueError(f"{', '.join(out)} leads out of the corpus's folder; put the files into it")

    def of(self, split: str) -> tuple[str, ...]:
        """The names that make up `split`; none for a validation split that is carved from train."""
        names: str | tuple[str, ...] | None = getattr(self, split)
        return (names,) if isinstance(names, str) else names or ()


def paths(folder: Path, name: str) -> list[Path]:
    """The files that a split's `name` stands for, in order; none where there is no such file."""
    return sorted(path for path in folder.glob(name) if path.is_file())


class Slice(NamedTuple):
    """Bytes [start, stop) of a text file: whole records, the first of which begins in line `first_line`."""

    path: Path
    start: int
    stop: int
    first_line: int

    def __str__(self) -> str:
        return str(self.path)

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """The slice's lines in the opened file."""
        file.seek(self.start)
        return io.BytesIO(file.read(self.stop - self.start))


Source = Path | Slice
"""What a reader whose files can be cut is asked to read."""


class Line(NamedTuple):
    """A line without its end, and where it stands ("file:line", counted from 1)."""

    where: str
    text: str


def lines(source: Source, problems: Problems) -> Iterator[Line]:
    r"""The lines of a UTF-8 file, with or without a byte order mark. Only \n and \r\n end a line: U+0085 and U+2028 are text.

    Bytes that are not UTF-8 are a problem each line; they come out as U+FFFD so that the rest of the file can be checked.
    """
    path, first = (source.path, source.first_line) if isinstance(source, Slice) else (source, 1)
    with path.open("rb") as file:
        for number, raw in enumerate(source.lines(file) if isinstance(source, Slice) else file, start=first):
            where = f"{path}:{number}"
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                problems.add(where, not_utf8(error), UNDECODABLE)
                text = raw.decode(errors="replace")
            yield Line(where, text.rstrip("\r\n"))


def blocks(source: Source, boundaries: tuple[str, ...], problems: Problems) -> Iterator[list[Line]]:
    """Runs of lines between separators: lines of nothing but whitespace, or that begin with one of `boundaries`."""
    block: list[Line] = []
    for line in lines(source, problems):
        if line.text.strip() and not line.text.startswith(boundaries):
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block


def cells(line: Line, separator: str | None) -> list[str]:
    """The columns of a line: cut at each `separator`, or at runs of spaces and tabs where it is None."""
    return line.text.split(separator) if separator else _GAP.split(line.text.strip(" \t"))


def not_utf8(error: UnicodeDecodeError) -> str:
    """The message for bytes that are not UTF-8: which byte, and the remedy."""
    byte = error.object[error.start]
    return f"byte {error.start + 1}, 0x{byte:02x}, is not UTF-8; convert the file, e.g. with iconv -f latin1 -t utf-8"

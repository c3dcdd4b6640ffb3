"""What all readers share: what a row is, and files, perhaps compressed, cut into lines and blocks."""

import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import pyarrow as pa

from pipeline.errors import UNDECODABLE, Problems
from pipeline.tasks.base.row import SPLITS

_GAP = re.compile(r"[ \t]+")  # str.split() would also cut at a no-break space inside a token

_MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
COMPRESSIONS = {".gz": "gzip", ".xz": "xz", ".zst": "zstd"}  # by the end of a file's name

DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading a file from `open_file` may raise: it is damaged, cut off, or cannot be read at all."""


@dataclass(frozen=True)
class Splits:
    """Where each split is: a file, a pattern of files (`train-*.json`), or a hub split's name; or several, read in order."""

    train: str | tuple[str, ...]
    test: str | tuple[str, ...] | None = None
    validation: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        names = [name for split in SPLITS for name in self.of(split)]
        out = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
        if out:
            raise ValueError(
                f"{', '.join(out)} leads out of the corpus's folder; put the files into it"
            )
        odd = [
            name
            for name in names
            if not name.strip("./")
            or any("**" in part and part != "**" for part in Path(name).parts)
        ]
        if odd:
            raise ValueError(
                f"{', '.join(map(repr, odd))} is no name or pattern of files; write e.g. train-*.jsonl"
            )

    def of(self, split: str) -> tuple[str, ...]:
        """The names that make up `split`; none for a split that is assign_split from train."""
        names: str | tuple[str, ...] | None = getattr(self, split)
        return (names,) if isinstance(names, str) else names or ()


def paths(folder: Path, name: str) -> list[Path]:
    """The files that a split's `name` stands for, in order; none where there is no such file."""
    if (folder / name).is_file():  # its name may have a [ or a *
        return [folder / name]
    return sorted(path for path in folder.glob(name) if path.is_file())


def compression(path: Path) -> str | None:
    """What a file is compressed with, by its first bytes, else by its name; None where it is not."""
    with path.open("rb") as file:
        head = file.read(max(map(len, _MAGIC)))
    return next(
        (name for magic, name in _MAGIC.items() if head.startswith(magic)),
        COMPRESSIONS.get(path.suffix),
    )


def open_file(path: Path) -> BinaryIO:
    """The file's content, unpacked as it is read. Opening and reading raise one of DAMAGED."""
    kind = compression(path)
    if kind and not path.stat().st_size:  # gzip and zstd would take it for one that holds nothing
        raise EOFError("it is empty")
    match kind:
        case "gzip":
            return cast(BinaryIO, gzip.open(path))
        case "xz":
            return cast(BinaryIO, lzma.open(path))
        case "zstd":
            return io.BufferedReader(pa.CompressedInputStream(path.open("rb"), "zstd"))
        case _:
            return path.open("rb")


def damaged(error: Exception) -> str:
    """The message for one of DAMAGED: what is wrong, and the remedy."""
    return f"the file cannot be read any further: {error}; get it again, or unpack it and see"


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


class SourceLine(NamedTuple):
    """A line without its end, and where it stands ("file:line", counted from 1)."""

    where: str
    text: str


def lines(source: Source, problems: Problems, ends: bool = False) -> Iterator[SourceLine]:
    r"""The lines of a UTF-8 file, with or without a byte order mark. Only \n and \r\n end a line: U+0085 and U+2028 are text.

    Bytes that are not UTF-8 are a problem each line; they come out as U+FFFD so that the rest of the file can be checked.
    With `ends`, lines keep their ends.
    """
    path, first = (source.path, source.first_line) if isinstance(source, Slice) else (source, 1)
    number = first - 1
    try:
        with open_file(path) as file:
            for number, raw in enumerate(
                source.lines(file) if isinstance(source, Slice) else file, start=first
            ):
                where = f"{path}:{number}"
                try:
                    text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    problems.add(where, not_utf8(error), UNDECODABLE)
                    text = raw.decode(errors="replace")
                yield SourceLine(
                    where, text if ends else text.removesuffix("\n").removesuffix("\r")
                )
    except DAMAGED as error:
        problems.add(f"{path}:{number + 1}", damaged(error), "damaged-file", hides=True)


def blocks(
    source: Source, boundaries: tuple[str, ...], problems: Problems, comments: tuple[str, ...] = ()
) -> Iterator[list[SourceLine]]:
    """Runs of lines between separators: lines of nothing but whitespace, or that begin with one of `boundaries`.

    Lines that begin with one of `comments` are left out, and separate nothing.
    """
    block: list[SourceLine] = []
    for line in lines(source, problems):
        if not line.text.strip() or line.text.startswith(boundaries):
            if block:
                yield block
            block = []
        elif not line.text.startswith(comments):
            block.append(line)
    if block:
        yield block


def cells(line: SourceLine, separator: str | None) -> list[str]:
    """The columns of a line: cut at each `separator`, or at runs of spaces and tabs where it is None."""
    return line.text.split(separator) if separator else _GAP.split(line.text.strip(" \t"))


def shown(value: object, length: int = 80) -> str:
    """A value for a message, which need not be as long as the value."""
    text = str(value)
    return repr(text if len(text) <= length else f"{text[:length]}...")


def not_utf8(error: UnicodeDecodeError, before: int = 0) -> str:
    """The message for bytes that are not UTF-8: which byte, `before` bytes further on, and the remedy."""
    byte = error.object[error.start]
    return f"byte {before + error.start + 1}, 0x{byte:02x}, is not UTF-8; convert the file, e.g. with iconv -f latin1 -t utf-8"

"""Code shared by all readers: the files of each split, decompression, lines and blocks of text."""

import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import pyarrow as pa

from pipeline.data.readers.saved_datasets import data_files
from pipeline.errors import UNDECODABLE, UNDECODED, Problems, abbreviate
from pipeline.tasks.base.row import SPLITS

DOCUMENT_BOUNDARIES = ("-DOCSTART-", "#begin document", "#end document")
COMMENT_LINES = "comment lines"  # their name in `Problems.skipped`
DOCUMENT_MARK = "document_mark"  # its name in `Problems.found`
BYTE_ORDER_MARK = "\ufeff"
_SPACES = re.compile(r"[ \t]+")  # str.split() would also split at a no-break space inside a token

_MAGIC = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
COMPRESSIONS = {".gz": "gzip", ".xz": "xz", ".zst": "zstd"}  # by file extension

# The first bytes of files that are not UTF-8 text, with what they are and the remedy.
_FOREIGN = {
    b"\xff\xfe\x00\x00": "UTF-32; convert it with iconv -f utf-32 -t utf-8",
    b"\xff\xfe": "UTF-16; convert it with iconv -f utf-16 -t utf-8",
    b"\xfe\xff": "UTF-16; convert it with iconv -f utf-16 -t utf-8",
    b"PK\x03\x04": "a zip archive; unpack it, or save a spreadsheet as CSV",
    b"BZh91AY&SY": "compressed with bzip2; unpack it with bunzip2",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive; unpack it",
    b"%PDF-": "a PDF; convert it to text",
    b"version https://git-lfs": "a Git LFS pointer, not the file; get the file with git lfs pull",
    b"<!DOCTYPE html": "a web page, not the file; download the file again",
    b"PAR1\x15": "Parquet; read it with the reader records and the option format: parquet",
    b"ARROW1\x00\x00": "Arrow; read it with the reader records and the option format: arrow",
    b"\xff\xff\xff\xff": "Arrow; read it with the reader records and the option format: arrow",
}


class ForeignFileError(OSError):
    """A file is not UTF-8 text, or has other line endings. The text has the remedy."""


READ_ERRORS = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""The exceptions of a read from `open_file`: the file is damaged, truncated or not readable."""


@dataclass(frozen=True)
class Splits:
    """The sources of each split: a file, a pattern of files (`train-*.json`) or a hub split.

    A source may also be the folder of a split that `datasets.save_to_disk` wrote.

    A tuple lists several sources; they are read in order.
    """

    train: str | tuple[str, ...]
    test: str | tuple[str, ...] | None = None
    validation: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        names = [name for split in SPLITS for name in self.of(split)]
        outside = [name for name in names if Path(name).is_absolute() or ".." in Path(name).parts]
        if outside:
            raise ValueError(
                f"{', '.join(outside)} leads out of the corpus's folder; move the files into it"
            )
        invalid = [name for name in names if not _is_pattern(name)]
        if invalid:
            raise ValueError(
                f"{', '.join(map(repr, invalid))} is not a file name or pattern; "
                "write e.g. train-*.jsonl"
            )

    def of(self, split: str) -> tuple[str, ...]:
        """The sources of `split`; empty for a split that is carved out of the training split."""
        names: str | tuple[str, ...] | None = getattr(self, split)
        return (names,) if isinstance(names, str) else names or ()


def _is_pattern(name: str) -> bool:
    """Whether `name` is a file name or a pattern that `Path.glob` accepts."""
    parts = Path(name).parts
    return bool(name.strip("./")) and all(part == "**" or "**" not in part for part in parts)


def matching_files(folder: Path, name: str) -> list[Path]:
    """The files in `folder` with the name or pattern `name`, in order; empty if there is none.

    The name may be that of a folder of `datasets.save_to_disk`; its files are those that it lists.
    """
    path = folder / name
    if path.is_file():  # its name may contain [ or *
        return [path]
    if path.is_dir():
        return data_files(path)
    return sorted(path for path in folder.glob(name) if path.is_file())


def compression(path: Path) -> str | None:
    """The compression of a file by its first bytes, else by its extension; None if uncompressed."""
    with path.open("rb") as file:
        head = file.read(max(map(len, _MAGIC)))
    return compression_of(head) or COMPRESSIONS.get(path.suffix)


def uncompressed(path: Path) -> Path:
    """The path without the extension of a compression."""
    return path.with_suffix("") if path.suffix in COMPRESSIONS else path


def compression_of(head: bytes) -> str | None:
    """The compression of a file with these first bytes; None if it is not compressed."""
    return next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)


def open_text(path: Path) -> BinaryIO:
    """Open a file of text, and decompress it on the fly.

    To open and to read it may raise READ_ERRORS. One of them is ForeignFileError, if the first
    bytes are those of a file that is not text in UTF-8.
    """
    with path.open("rb") as raw:  # also of a file that only has the extension of a compression
        content = foreign_content(raw.read(64))
    if content:
        raise ForeignFileError(f"the file is {content}")
    file = open_file(path)
    try:
        if content := foreign_content(_head(file)):
            raise ForeignFileError(f"the file is {content}")
    except BaseException:
        file.close()
        raise
    return file


def open_lines(path: Path) -> BinaryIO:
    """As `open_text`, for a file that is read line by line.

    ForeignFileError is also raised if its line endings seem to be lone carriage returns.
    """
    file = open_text(path)
    head = _head(file)
    if b"\n" not in head and re.search(rb"\r[^\r]", head):
        file.close()
        raise ForeignFileError(
            "the lines end with a carriage return (CR) only; convert them with tr '\\r' '\\n'"
        )
    return file


def foreign_content(head: bytes) -> str | None:
    """What a file with these first bytes is and the remedy, if it is not text in UTF-8."""
    for encoding, zeros in (("utf-16le", head[1:64:2]), ("utf-16be", head[0:64:2])):
        if len(zeros) > 3 and not any(zeros):
            return f"UTF-16 without a mark; convert it with iconv -f {encoding} -t utf-8"
    return next((content for magic, content in _FOREIGN.items() if head.startswith(magic)), None)


def _head(file: BinaryIO) -> bytes:
    """The first bytes of a file that was just opened, up to a few KB."""
    return cast(io.BufferedReader, file).peek(1024)


def open_file(path: Path) -> BinaryIO:
    """Open a file, and decompress it on the fly. To open and to read it may raise READ_ERRORS."""
    kind = compression(path)
    if kind and not path.stat().st_size:  # gzip and zstd would accept it as empty content
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


def damaged_message(error: Exception) -> str:
    """The message for one of READ_ERRORS: what is wrong, and the remedy."""
    if isinstance(error, ForeignFileError):
        return str(error)
    return f"the rest of the file cannot be read: {error}; download it again, or try to unpack it"


class Slice(NamedTuple):
    """Bytes [start, stop) of a text file: whole records, the first of them in `first_line`."""

    path: Path
    start: int
    stop: int
    first_line: int

    def __str__(self) -> str:
        return str(self.path)

    def lines(self, file: BinaryIO) -> Iterator[bytes]:
        """The lines of the slice in the open file."""
        file.seek(self.start)
        return io.BytesIO(file.read(self.stop - self.start))


Source = Path | Slice
"""The input of a reader: a whole file, or a slice of it if its format can be split."""


_MARK = "deep-prompt-mark"
codecs.register_error(_MARK, lambda error: (UNDECODED, cast(UnicodeDecodeError, error).end))


class SourceLine(NamedTuple):
    """A line without its line ending, and its position "file:line" (counted from 1)."""

    where: str
    text: str


def lines(source: Source, problems: Problems, keep_ends: bool = False) -> Iterator[SourceLine]:
    r"""The lines of a UTF-8 file, with or without a byte order mark.

    Only \n and \r\n end a line; U+0085 and U+2028 are text. Each line with bytes that are not UTF-8
    adds a problem; these bytes become UNDECODED so that the rest of the file can be checked. A byte
    order mark at the start of a later line is removed, and adds a warning. With `keep_ends`, lines
    keep their line endings.
    """
    path, first = (source.path, source.first_line) if isinstance(source, Slice) else (source, 1)
    number = first - 1
    try:
        with open_lines(path) as file:
            raw_lines = source.lines(file) if isinstance(source, Slice) else file
            for number, raw in enumerate(raw_lines, start=first):
                where, encoding = f"{path}:{number}", "utf-8-sig" if number == 1 else "utf-8"
                try:
                    text = raw.decode(encoding)
                except UnicodeDecodeError as error:
                    problems.add(where, not_utf8_message(error), UNDECODABLE)
                    text = raw.decode(encoding, errors=_MARK)
                if text.startswith(BYTE_ORDER_MARK):
                    problems.add(
                        where,
                        "a byte-order mark (U+FEFF) is inside the file, as if two files were "
                        "joined; it is ignored: remove it",
                        "byte-order-mark",
                    )
                    text = text.lstrip(BYTE_ORDER_MARK)
                if not keep_ends:
                    text = text.removesuffix("\n").removesuffix("\r")
                yield SourceLine(where, text)
    except READ_ERRORS as error:
        problems.add(f"{path}:{number + 1}", damaged_message(error), "damaged-file", hides=True)


class Layout(NamedTuple):
    """How the lines of a file form sentences.

    `separator` separates the columns of a line (see `split_columns`). A line has `columns` columns;
    None: as many as the first line of its sentence. Lines that begin with `comment` are comments,
    except a line inside a sentence with the number of columns of a token. Lines that begin with
    `document_mark` end a sentence, as blank lines and DOCUMENT_BOUNDARIES do.
    """

    separator: str | None
    comment: str | None
    document_mark: str | None = None
    columns: int | None = None

    @property
    def boundaries(self) -> tuple[str, ...]:
        """The beginnings of lines that end a sentence. Blank lines end one too."""
        mark = (self.document_mark,) if self.document_mark else ()
        return (*DOCUMENT_BOUNDARIES, *mark)

    def num_columns(self, line: SourceLine) -> int:
        """The number of columns of a line."""
        return len(split_columns(line, self.separator))

    def num_token_columns(self, block: Sequence[SourceLine]) -> int | None:
        """The number of columns of a token in a block; None if it is not known."""
        return self.columns or (self.num_columns(block[0]) if block else None)

    def is_comment(self, line: SourceLine, block: Sequence[SourceLine]) -> bool:
        """Whether a line after the lines of `block` is a comment."""
        if self.comment is None or not line.text.startswith(self.comment):
            return False
        return not block or self.num_columns(line) != self.num_token_columns(block)

    def check_options(self, where: str, problems: Problems) -> None:
        """Add a warning for a comment sign or a document mark that no line begins with.

        `problems` are those of the whole corpus. `where` is the recipe.
        """
        options = (
            ("comment", self.comment, problems.skipped[COMMENT_LINES]),
            ("document_mark", self.document_mark, problems.found[DOCUMENT_MARK]),
        )
        for name, text, count in options:
            if text is not None and not count:
                problems.add(
                    where,
                    f"{name}: no line is skipped because it begins with {text!r}; "
                    "correct it, or remove the key",
                    "unmatched-option",
                )


class _Comment(NamedTuple):
    """A comment line after `num_tokens` lines of its block."""

    line: SourceLine
    num_tokens: int


def blocks(source: Source, layout: Layout, problems: Problems) -> Iterator[list[SourceLine]]:
    """Runs of lines between separators: blank lines, document boundaries and document marks.

    Comments are skipped and counted, and do not separate blocks. A comment inside a sentence, or
    with the number of columns of a token, adds a warning.
    """
    mark, boundaries = layout.document_mark, layout.boundaries
    block, comments = list[SourceLine](), list[_Comment]()
    for line in chain(lines(source, problems), [SourceLine("", "")]):
        if not line.text.strip() or line.text.startswith(boundaries):
            problems.found[DOCUMENT_MARK] += mark is not None and line.text.startswith(mark)
            _check_comments(comments, block, layout, problems)
            if block:
                yield block
            block, comments = [], []
        elif layout.is_comment(line, block):
            comments.append(_Comment(line, len(block)))
        else:
            block.append(line)


def _check_comments(
    comments: Sequence[_Comment], block: Sequence[SourceLine], layout: Layout, problems: Problems
) -> None:
    """Count the comments of a block, and warn of those that may be tokens or end a sentence."""
    problems.skipped[COMMENT_LINES] += len(comments)
    num_columns = layout.num_token_columns(block) if comments else None
    sign = str(layout.comment).strip()
    for line, num_tokens in comments:
        # A sign alone in the first column, as in "# id 7", begins a comment of several words.
        columns = split_columns(line, layout.separator)
        if len(columns) == num_columns and columns[0] != sign:
            problems.add(
                line.where,
                f"{abbreviate(line.text)} is skipped as a comment, but it has {num_columns} "
                "columns as a token has; if it is a token, correct comment in the recipe's "
                f"options, e.g. {f'{str(layout.comment).rstrip()} '!r}",
                "comment-or-token",
            )
        elif 0 < num_tokens < len(block):
            problems.add(
                line.where,
                f"the comment {abbreviate(line.text)} is inside a sentence and does not end it; "
                "if it should, put a blank line before it, or set document_mark in the recipe's "
                "options",
                "comment-in-sentence",
            )


def split_columns(line: SourceLine, separator: str | None) -> list[str]:
    """The columns of a line, split at each `separator`; None splits at runs of spaces and tabs."""
    return line.text.split(separator) if separator else _SPACES.split(line.text.strip(" \t"))


def not_utf8_message(error: UnicodeDecodeError, offset: int = 0) -> str:
    """The message for bytes that are not UTF-8: the byte, `offset` bytes later, and the remedy."""
    byte = error.object[error.start]
    # In Latin-1, 0x80 to 0x9f are control characters; in Windows-1252 most are quotes and dashes.
    encoding = "windows-1252" if 0x80 <= byte <= 0x9F else "latin1"
    return (
        f"byte {offset + error.start + 1}, 0x{byte:02x}, is not UTF-8; "
        f"convert the file, e.g. with iconv -f {encoding} -t utf-8"
    )

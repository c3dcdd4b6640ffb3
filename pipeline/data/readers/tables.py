"""Files of records, each a mapping of keys to values: JSON, CSV, TSV, Parquet and Arrow."""

import csv
import json
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.readers.base import (
    READ_ERRORS,
    Source,
    compression,
    damaged_message,
    foreign_content,
    lines,
    open_file,
    uncompressed,
)
from pipeline.data.readers.json_documents import is_document, items
from pipeline.data.readers.json_values import objects
from pipeline.errors import Problems, abbreviate, closest, quantity

_DELIMITERS = (";", "\t", "|", ",")
Quote = Literal["auto", "double", "none"]
Format = Literal["jsonl", "csv", "tsv", "parquet", "json", "arrow"]
FORMATS: tuple[Format, ...] = get_args(Format)
Record = dict[str, Any]

_EXTENSIONS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
}
NESTED: tuple[Format, ...] = ("jsonl", "json", "parquet", "arrow")  # values are not only text
PARQUET_BATCH_ROWS = 1024  # in memory at once
_ARROW_FILE = b"ARROW1"  # an Arrow stream begins otherwise
# A damaged file may have the length of a value beyond the memory of the machine.
_FORMAT_ERRORS = (pa.ArrowException, ValueError, KeyError, OverflowError, MemoryError)
MAX_CELL_CHARACTERS = 1 << 24  # limits the cell of a quote that is never closed


class Dialect(NamedTuple):
    """The options of CSV and TSV. `columns` are names; empty if the file begins with a header."""

    delimiter: str | None
    columns: tuple[str, ...]
    quote: Quote


def format_of(source: Source, override: Format | None) -> Format | None:
    """`override`, else the format by the file's extension (without that of a compression)."""
    return override or _EXTENSIONS.get(uncompressed(Path(str(source))).suffix.lower())


def records(
    source: Source, kind: Format, columns: Sequence[str], dialect: Dialect, problems: Problems
) -> Iterator[tuple[str, Record]]:
    """The position and the values of each record; the values of CSV and TSV are text.

    A table without all of `columns` adds a problem and has no records. JSON is not checked. Records
    of `json` are the items of a list, those of the list `data` of a mapping, or JSON lines.
    """
    path = Path(str(source))
    if kind == "json" and isinstance(source, Path) and is_document(source, columns):
        return items(source, problems)
    if kind in ("jsonl", "json"):
        return objects(source, problems)
    if kind in ("parquet", "arrow"):
        return _columnar(path, kind, columns, problems)
    return _table(path, kind, columns, dialect, problems)


def has_columns(
    names: Sequence[str],
    required: Iterable[str],
    where: str,
    problems: Problems,
    has_header: bool = False,
) -> bool:
    """Whether `names` contains all `required` columns; adds a problem if one is missing."""
    missing = [name for name in required if name not in names]
    if missing:
        noun = "column" if len(missing) == 1 else "columns"
        verb = "is" if len(missing) == 1 else "are"
        problems.add(
            where,
            f"{noun} {', '.join(map(repr, missing))} {verb} missing: "
            f"{_missing_remedy(missing, names, has_header)}",
            "missing-column",
            hides=True,
        )
    return not missing


def _missing_remedy(missing: Sequence[str], names: Sequence[str], has_header: bool) -> str:
    """How to make columns with the names `missing`; `names` are those of the file."""
    # Without a header, a name is a cell of any length.
    present = [name[:40] for name in names[:20] if name.strip()]
    delimiter = next((mark for mark in _DELIMITERS if len(names) == 1 and mark in names[0]), None)
    if delimiter is not None:
        return (
            f"the only column is {present[0]!r}; set delimiter: {json.dumps(delimiter)} in the "
            "recipe's options"
        )
    pronoun, name = ("it", "its name") if len(missing) == 1 else ("them", "their names")
    if all(f'"{name}"' in names for name in missing):
        return f"the header has {pronoun} in quotes; set quote: double in the recipe's options"
    similar = [match for name in missing if (match := closest(name, present))]
    hint = (
        f"did you mean {' and '.join(map(repr, similar))}?"
        if similar
        else f"the columns are {', '.join(present) or 'without names'}"
    )
    if has_header and not similar:
        hint += (
            f"; if the file has no header, set columns in the options, e.g. [{', '.join(missing)}]"
        )
    return f"add {pronoun}, or set {name} in the recipe's fields; {hint}"


def _table(
    path: Path, kind: Format, required: Sequence[str], dialect: Dialect, problems: Problems
) -> Iterator[tuple[str, Record]]:
    rows = _rows(path, kind, dialect, problems)
    if dialect.columns:
        header_where, names = str(path), list(dialect.columns)
    else:
        header_where, names = next(rows, (str(path), []))
    if not names:  # an empty file
        return
    if _is_delimiter_line(names):
        problems.add(
            header_where,
            f"the line {abbreviate(names[0])} tells Excel the delimiter and is not a header; "
            "remove it; the recipe's option delimiter is read instead",
            "missing-column",
            hides=True,
        )
        return
    is_valid = _are_unique(names, header_where, problems)
    has_header = not dialect.columns
    if not is_valid or not has_columns(names, required, header_where, problems, has_header):
        return
    check_quotes = kind == "tsv" and dialect.quote == "auto"
    for where, cells in rows:
        if len(cells) != len(names):
            problems.add(
                where,
                f"{quantity(len(cells), 'column')}, expected {len(names)}: {abbreviate(cells)}; "
                "correct the line, or the recipe's delimiter, quote or columns",
                "column-count",
            )
        elif check_quotes and (quoted := next(filter(is_quoted, cells), None)):
            problems.add(
                where,
                f"cell {abbreviate(quoted, 40)} seems to be in quotes; set quote in the "
                "recipe's options: double (the quotes are not part of the text) or none (they are)",
                "quoting",
            )
        else:
            yield where, dict(zip(names, cells, strict=True))


def _is_delimiter_line(cells: Sequence[str]) -> bool:
    """Whether the cells of the first line are those of `sep=;`, which Excel writes."""
    first, *others = cells
    return (first == "sep=" and others == [""]) or re.fullmatch("sep=.", first) is not None


def _are_unique(names: Sequence[str], where: str, problems: Problems) -> bool:
    """Whether all names of columns differ; adds a problem if not."""
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        problems.add(
            where,
            f"two columns have the name {', '.join(duplicates)}; rename one",
            "duplicate-column",
            hides=True,
        )
    return not duplicates


def is_quoted(cell: str) -> bool:
    """Whether a cell that was read without quotes begins and ends with one."""
    return len(cell) > 1 and cell[0] == cell[-1] == '"'


def _rows(
    path: Path, kind: Format, dialect: Dialect, problems: Problems
) -> Iterator[tuple[str, list[str]]]:
    """The position of the first line and the cells of each row. Blank lines are skipped."""
    positions: list[str] = []  # of the lines of the current row

    def texts() -> Iterator[str]:
        for where, text in lines(path, problems, keep_ends=True):
            positions.append(where)
            yield text

    csv.field_size_limit(MAX_CELL_CHARACTERS)
    double = dialect.quote == "double" or (dialect.quote == "auto" and kind == "csv")
    rows = csv.reader(
        texts(),
        delimiter=dialect.delimiter or ("," if kind == "csv" else "\t"),
        strict=True,
        quoting=csv.QUOTE_MINIMAL if double else csv.QUOTE_NONE,
    )
    while True:
        positions.clear()
        try:
            cells = next(rows, None)
        except csv.Error as error:
            problems.add(
                positions[0],
                f"not valid {kind.upper()}: {error}; put cells with quotes, delimiters or line "
                "endings into double quotes, and double the quotes in them, or set quote: none",
                "quoting",
                hides=True,
            )
            continue
        if cells is None:
            return
        if cells:
            yield positions[0], cells


def features(path: Path, kind: Format) -> dict[str, Any]:
    """The features that the library `datasets` wrote into a Parquet or Arrow file; {} if none.

    They have the names of class numbers. A file that cannot be read has none.
    """
    if kind not in ("parquet", "arrow"):
        return {}
    try:
        with _seekable(path) as file:
            metadata = _schema(file, kind).metadata or {}
            value = json.loads(metadata.get(b"huggingface", b"{}"))
    except (*_FORMAT_ERRORS, *READ_ERRORS):
        return {}
    info = value.get("info") if isinstance(value, dict) else None
    found = info.get("features") if isinstance(info, dict) else None
    return found if isinstance(found, dict) else {}


def _columnar(
    path: Path, kind: Format, columns: Sequence[str], problems: Problems
) -> Iterator[tuple[str, Record]]:
    previous = number = 0
    try:
        with _seekable(path) as file:
            names = _schema(file, kind).names
            if not has_columns(names, columns, str(path), problems):
                return
            if not _are_unique([name for name in names if name in columns], str(path), problems):
                return
            for batch in _batches(file, kind, columns):
                for number, record in enumerate(batch.to_pylist(), start=previous + 1):
                    yield f"{path}: row {number}", record
                previous = number
    except _FORMAT_ERRORS as error:
        problems.add(
            f"{path}: row {number + 1}",
            f"not valid {kind.capitalize()}: {error}; {_format_remedy(path)}",
            "not-parquet" if kind == "parquet" else "not-arrow",
            hides=True,
        )
    except READ_ERRORS as error:
        problems.add(
            f"{path}: row {number + 1}", damaged_message(error), "damaged-file", hides=True
        )


def _format_remedy(path: Path) -> str:
    """The remedy for a file that is not of its format, from its first bytes."""
    with path.open("rb") as file:
        content = foreign_content(file.read(64))
    if content:
        return f"the file is {content}"
    return "download it again, or correct the recipe's format"


def _schema(file: BinaryIO, kind: Format) -> pa.Schema:
    """The schema of the open file, which is at its start again afterwards."""
    schema = pq.read_schema(file) if kind == "parquet" else _open_arrow(file).schema
    file.seek(0)
    return schema


def _batches(file: BinaryIO, kind: Format, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
    """The columns of the open file, `PARQUET_BATCH_ROWS` rows at once."""
    if kind == "parquet":
        with pq.ParquetFile(file) as table:
            yield from table.iter_batches(batch_size=PARQUET_BATCH_ROWS, columns=list(columns))
        return
    reader = _open_arrow(file)
    batches = (
        (reader.get_batch(number) for number in range(reader.num_record_batches))
        if isinstance(reader, pa.RecordBatchFileReader)
        else reader
    )
    for batch in batches:
        selected = batch.select(list(columns))
        selected.validate(full=True)  # pyarrow does not check offsets when it reads a batch
        for start in range(0, len(selected), PARQUET_BATCH_ROWS):
            yield selected.slice(start, PARQUET_BATCH_ROWS)


def _open_arrow(file: BinaryIO) -> pa.RecordBatchStreamReader | pa.RecordBatchFileReader:
    """The reader of an Arrow stream (as `datasets` writes it) or of an Arrow file (Feather)."""
    is_file = file.read(len(_ARROW_FILE)) == _ARROW_FILE
    file.seek(0)
    return pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file)


@contextmanager
def _seekable(path: Path) -> Iterator[BinaryIO]:
    """The open file, with random access; a compressed file is unpacked on disk."""
    if compression(path) is None:
        with path.open("rb") as file:
            yield file
        return
    with open_file(path) as packed, tempfile.TemporaryFile() as file:
        shutil.copyfileobj(packed, file)
        file.seek(0)
        yield file

"""Files of records, each a mapping of keys to values: JSON lines, CSV, TSV and Parquet."""

import csv
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, get_args

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.readers.base import (
    COMPRESSIONS,
    DAMAGED,
    Source,
    compression,
    damaged,
    lines,
    open_file,
    shown,
)
from pipeline.data.readers.json_values import objects
from pipeline.errors import Problems, did_you_mean

Quote = Literal["auto", "double", "none"]
Format = Literal["jsonl", "csv", "tsv", "parquet"]
FORMATS: tuple[Format, ...] = get_args(Format)
Record = dict[str, Any]

_ENDINGS: dict[str, Format] = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
}
BATCH = 1024  # Parquet rows that are held in memory
LONGEST_CELL = (
    1 << 24
)  # characters: where a quote is never closed, no more than this is read for it


class Cells(NamedTuple):
    """How CSV and TSV are written: `columns` are names, none where the file begins with them."""

    delimiter: str | None
    columns: tuple[str, ...]
    quote: Quote


def format_of(source: Source, said: Format | None) -> Format | None:
    """The format that is said, else that of the file's name, as it is when unpacked."""
    path = Path(str(source))
    return said or _ENDINGS.get(
        (path.with_suffix("") if path.suffix in COMPRESSIONS else path).suffix.lower()
    )


def records(
    source: Source, kind: Format, columns: Sequence[str], style: Cells, problems: Problems
) -> Iterator[tuple[str, Record]]:
    """Where each record is, and the record, which has `columns` at least, except in JSON. Cells of CSV and TSV are text."""
    if kind == "jsonl":
        return objects(source, problems)
    path = Path(str(source))
    return (
        _parquet(path, columns, problems)
        if kind == "parquet"
        else _table(path, kind, columns, style, problems)
    )


def has_columns(
    names: Sequence[str], needed: Sequence[str], where: str, problems: Problems
) -> bool:
    """Whether there is each column; a problem for each that there is not."""
    missing = [name for name in needed if name not in names]
    found = [name[:40] for name in names[:20]]  # which may be a line of text
    for name in missing:
        problems.add(
            where,
            f"there is no column {name!r}{did_you_mean(name, found)}: add it, or say in the recipe's fields what "
            "it is called",
            "missing-column",
            hides=True,
        )
    return not missing


def _table(
    path: Path, kind: Format, needed: Sequence[str], style: Cells, problems: Problems
) -> Iterator[tuple[str, Record]]:
    rows = _rows(path, kind, style, problems)
    place, names = (
        (str(path), list(style.columns)) if style.columns else next(rows, (str(path), []))
    )
    if not names:  # an empty file
        return
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        problems.add(
            place,
            f"two columns are called {', '.join(twice)}; rename one",
            "duplicate-column",
            hides=True,
        )
    if twice or not has_columns(names, needed, place, problems):
        return
    unsure = kind == "tsv" and style.quote == "auto"
    for where, cells in rows:
        if len(cells) != len(names):
            problems.add(
                where,
                f"{len(cells)} columns, expected {len(names)}: {shown(cells)}; correct the line, or the recipe's "
                "delimiter, quote or columns",
                "column-count",
            )
        elif unsure and (
            quoted := [cell for cell in cells if len(cell) > 1 and cell[0] == cell[-1] == '"']
        ):
            problems.add(
                where,
                f"cell {shown(quoted[0], 40)} looks quoted; say in the recipe's options whether quote is double "
                "(the quotes are not part of the text) or none (they are)",
                "quoting",
            )
        else:
            yield where, dict(zip(names, cells, strict=True))


def _rows(
    path: Path, kind: Format, style: Cells, problems: Problems
) -> Iterator[tuple[str, list[str]]]:
    """Where each row begins, and its cells. Blank lines are skipped."""
    began: list[str] = []  # the lines of the row that is being read

    def texts() -> Iterator[str]:
        for where, text in lines(path, problems, ends=True):
            began.append(where)
            yield text

    csv.field_size_limit(LONGEST_CELL)
    double = style.quote == "double" or (style.quote == "auto" and kind == "csv")
    rows = csv.reader(
        texts(),
        delimiter=style.delimiter or ("," if kind == "csv" else "\t"),
        strict=True,
        quoting=csv.QUOTE_MINIMAL if double else csv.QUOTE_NONE,
    )
    while True:
        began.clear()
        try:
            cells = next(rows, None)
        except csv.Error as error:
            problems.add(
                began[0],
                f"not valid {kind.upper()}: {error}; put cells with quotes, delimiters or line ends into "
                "double quotes, and double the quotes in them, or set quote: none",
                "quoting",
                hides=True,
            )
            continue
        if cells is None:
            return
        if cells:
            yield began[0], cells


def _parquet(
    path: Path, columns: Sequence[str], problems: Problems
) -> Iterator[tuple[str, Record]]:
    before = number = 0
    try:
        with _seekable(path) as file, pq.ParquetFile(file) as table:
            if not has_columns(table.schema_arrow.names, columns, str(path), problems):
                return
            for batch in table.iter_batches(batch_size=BATCH, columns=list(columns)):
                for number, record in enumerate(batch.to_pylist(), start=before + 1):
                    yield f"{path}: row {number}", record
                before = number
    except (pa.ArrowException, UnicodeDecodeError) as error:
        problems.add(
            f"{path}: row {number + 1}",
            f"not valid Parquet: {error}; get it again, or correct the recipe's format",
            "not-parquet",
            hides=True,
        )
    except DAMAGED as error:
        problems.add(f"{path}: row {number + 1}", damaged(error), "damaged-file", hides=True)


@contextmanager
def _seekable(path: Path) -> Iterator[BinaryIO]:
    """The file; unpacked on disk where it is compressed as a whole, since Parquet is not read from front to back."""
    if compression(path) is None:
        with path.open("rb") as file:
            yield file
        return
    with open_file(path) as packed, tempfile.TemporaryFile() as file:
        shutil.copyfileobj(packed, file)
        yield file

"""Checked examples, as they lie on disk: one Parquet file per split."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.seeding import Ints
from pipeline.tasks.base.task import Task


def read_examples(
    path: Path, task: Task[Any, Any, Any], rows: Sequence[int] | Ints | None = None
) -> Iterator[Any]:
    """The examples of one of the Parquet files, in order; those with the numbers `rows`, which rise, where they are given.

    Holds one row group in memory, and reads only those that it needs.
    """
    wanted = None if rows is None else np.asarray(rows, np.int64)
    with pq.ParquetFile(path) as file:
        first = 0
        for group in range(file.num_row_groups):
            last = first + file.metadata.row_group(group).num_rows
            inside = (
                slice(None) if wanted is None else slice(*np.searchsorted(wanted, [first, last]))
            )
            if wanted is None or inside.start < inside.stop:
                table = file.read_row_group(group, use_threads=False)
                yield from map(
                    task.from_record,
                    records(table if wanted is None else table.take(wanted[inside] - first)),
                )
            first = last


def count_examples(path: Path) -> int:
    """How many examples one of the Parquet files has."""
    return int(pq.read_metadata(path).num_rows)


def records(table: pa.Table) -> Iterator[dict[str, Any]]:
    """What `table.to_pylist()` gives, several times as fast."""
    columns = [_values(column.combine_chunks()) for column in table.columns]
    return (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))


def _values(array: Any) -> list[Any]:
    if isinstance(array, pa.ChunkedArray):  # of no chunk at all
        return []
    if pa.types.is_list(array.type):
        flat, offsets = _values(array.flatten()), array.offsets.to_numpy()
        return [flat[start:end] for start, end in pairwise((offsets - offsets[0]).tolist())]
    if pa.types.is_string(array.type) or pa.types.is_integer(array.type):
        found: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
        return found
    return list(array.to_pylist())

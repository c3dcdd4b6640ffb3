"""Checked examples on disk: one Parquet file per split."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.seeding import Ints
from pipeline.tasks.base.row import RowsWith
from pipeline.tasks.base.task import Task


def read_examples(
    path: Path, task: Task[Any, Any, Any], rows: Sequence[int] | Ints | None = None
) -> Iterator[Any]:
    """The examples of a Parquet file, in order.

    `rows` selects examples by row number, in ascending order. One row group is in memory at a time,
    and only row groups with selected rows are read.
    """
    selected = None if rows is None else np.asarray(rows, np.int64)
    with pq.ParquetFile(path) as file:
        start = 0
        for group in range(file.num_row_groups):
            end = start + file.metadata.row_group(group).num_rows
            if selected is None:
                table = file.read_row_group(group, use_threads=False)
                yield from map(task.from_record, records(table))
            else:
                first, last = np.searchsorted(selected, [start, end])
                if first < last:
                    table = file.read_row_group(group, use_threads=False)
                    table = table.take(selected[first:last] - start)
                    yield from map(task.from_record, records(table))
            start = end


def count_examples(path: Path) -> int:
    """The number of examples in a Parquet file."""
    return int(pq.read_metadata(path).num_rows)


def optional_inputs(path: Path, task: Task[Any, Any, Any]) -> dict[str, RowsWith]:
    """The optional keys of rows that are input of the model -> how many examples have them."""
    names = [name for name in task.row_keys.optional if name in task.inputs]
    counts = dict.fromkeys(names, 0)
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(columns=names) if names else ():
            for name in names:
                counts[name] += sum(map(bool, batch.column(name).to_pylist()))
    total = count_examples(path)
    return {
        name: "none" if count == 0 else "all" if count == total else "some"
        for name, count in counts.items()
    }


def records(table: pa.Table) -> Iterator[dict[str, Any]]:
    """The same records as `table.to_pylist()`, several times as fast."""
    columns = [_values(column.combine_chunks()) for column in table.columns]
    return (dict(zip(table.column_names, row, strict=True)) for row in zip(*columns, strict=True))


def _values(array: Any) -> list[Any]:
    if isinstance(array, pa.ChunkedArray):  # a column without chunks
        return []
    if pa.types.is_list(array.type):
        flat, offsets = _values(array.flatten()), array.offsets.to_numpy()
        return [flat[start:end] for start, end in pairwise((offsets - offsets[0]).tolist())]
    if pa.types.is_string(array.type) or pa.types.is_integer(array.type):
        values: list[Any] = array.to_numpy(zero_copy_only=False).tolist()
        return values
    return list(array.to_pylist())

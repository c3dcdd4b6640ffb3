"""A corpus that was read in chunks, as one sequence of rows on disk."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.data.chunks import Chunk
from pipeline.data.recipe import Recipe
from pipeline.tasks import task_named
from pipeline.tasks.base.row import SPLITS


class ChunkedCorpus:
    """The chunks of a corpus, the results of `read_chunk`, and the folders with their files.

    A row's number counts the kept examples of all chunks, in order: chunk i has the numbers from
    `starts[i]` to `starts[i + 1]`.
    """

    def __init__(
        self,
        recipe: Recipe,
        chunks: Sequence[Chunk],
        results: Sequence[dict[str, Any]],
        folders: Sequence[Path],
    ) -> None:
        self.recipe, self.chunks, self.results, self.folders = recipe, chunks, results, folders
        self.task = task_named(recipe.task)
        kept = [sum(result["kept"].values()) for result in results]
        self.starts = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        self.rows = int(self.starts[-1])
        self.dropped = sum(result["dropped"] for result in results)
        self.with_id = sum(result["with_id"] for result in results)
        # The form of ids in the output: see `pipeline.data.repeated_rows`.
        self.ids_have_split, self.number_prefix = False, "-"
        self._first_numbers: list[int] = []
        rows_so_far = dict.fromkeys(SPLITS, 0)
        for chunk, result in zip(chunks, results, strict=True):
            self._first_numbers.append(rows_so_far[chunk.split])
            rows_so_far[chunk.split] += result["rows"]

    def row_numbers(self) -> Iterator[NDArray[np.int64]]:
        """The numbers of the rows of each chunk."""
        return (np.arange(start, stop) for start, stop in pairwise(self.starts))

    def read(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of a chunk; None reads all. The ids are those of the output."""
        if columns is not None and "id" in columns:
            columns = list(dict.fromkeys([*columns, "_has_id", "_number"]))
        table = self._read_raw(index, columns)
        return self._with_ids(table, index) if "id" in table.column_names else table

    def _read_raw(self, index: int, columns: Sequence[str] | None) -> pa.Table:
        """As `read`, with the ids of the files."""
        path = self.folders[index] / "examples.parquet"
        return pq.read_table(path, columns=columns and list(columns))

    def _with_ids(self, table: pa.Table, index: int) -> pa.Table:
        """The table with ids for rows without; other ids get the split if `ids_have_split`."""
        if pc.all(table["_has_id"]).as_py() and not self.ids_have_split:
            return table
        number = pc.cast(pc.add(table["_number"], self._first_numbers[index]), pa.string())
        ids, new_ids = (
            pc.binary_join_element_wise(self.chunks[index].split, values, separator)
            for values, separator in ((table["id"], "-"), (number, self.number_prefix))
        )
        ids = pc.if_else(table["_has_id"], ids if self.ids_have_split else table["id"], new_ids)
        return table.set_column(table.schema.get_field_index("id"), "id", ids)

    def sources(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the split whose files have each row, before splits are carved."""
        splits = np.array([SPLITS.index(chunk.split) for chunk in self.chunks])
        return splits[np.searchsorted(self.starts, rows, side="right") - 1]

    def look_up(self, rows: NDArray[np.int64], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Columns of some rows, by row number. The ids are those of the files."""
        result: dict[int, dict[str, Any]] = {}
        rows = np.unique(rows)
        for index in np.unique(np.searchsorted(self.starts, rows, side="right") - 1):
            inside = rows[(rows >= self.starts[index]) & (rows < self.starts[index + 1])]
            table = self._read_raw(int(index), columns).take(inside - self.starts[index])
            result |= dict(zip(inside.tolist(), table.to_pylist(), strict=True))
        return result

"""Feature tables on disk, with one row per window of an example. They are read memory-mapped.

A table is a folder of shards (Arrow files with all columns), one .npy file per number column, and
an index.

The *positions* of a feature are the tokens whose hidden states the head reads. In tagging they are
the first sub-word of every word that the window owns. In span extraction they are the candidate
tokens, and position 0 means "no answer".
"""

import json
import os
import shutil
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate, chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.errors import UserError, quantity
from pipeline.files import sha256, write_json
from pipeline.tasks.base.features import Feature

ROWS_PER_CHUNK = 2048  # row i of a shard is in chunk i // ROWS_PER_CHUNK

LIST_COLUMNS = {
    "input_ids": pa.int32(),
    "token_types": pa.int8(),
    "positions": pa.int32(),
    "labels": pa.int32(),  # may be ids of a vocabulary
    "begins": pa.int32(),
    "ends": pa.int32(),
}
NUMBER_COLUMNS = ("lengths", "label_counts", "examples")  # one int32 per row
SCHEMA = pa.schema(
    [
        *((name, pa.int32()) for name in NUMBER_COLUMNS),
        *((name, pa.list_(kind)) for name, kind in LIST_COLUMNS.items()),
    ]
)
INDEX = "index.json"


def write_shard(features: Iterable[Feature], path: Path) -> dict[str, int]:
    """Stream features into an Arrow file.

    Returns the summary for `join_shards`: the number of rows and of tokens, and the length of the
    longest row.
    """
    summary = {"rows": 0, "tokens": 0, "longest": 0}
    iterator = iter(features)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        while chunk := list(islice(iterator, ROWS_PER_CHUNK)):
            batch = _record_batch(chunk)
            lengths = batch.column("lengths").to_numpy()
            summary["rows"] += len(chunk)
            summary["tokens"] += int(lengths.sum())
            summary["longest"] = max(summary["longest"], int(lengths.max()))
            writer.write_batch(batch)
    return summary


def _record_batch(chunk: list[Feature]) -> pa.RecordBatch:
    example, input_ids, token_types, positions, labels, begins, ends, label_count = zip(
        *chunk, strict=True
    )
    lists = dict(
        zip(LIST_COLUMNS, (input_ids, token_types, positions, labels, begins, ends), strict=True)
    )
    numbers = dict(
        zip(NUMBER_COLUMNS, (list(map(len, input_ids)), label_count, example), strict=True)
    )
    arrays = [pa.array(np.fromiter(numbers[name], np.int32, len(chunk))) for name in NUMBER_COLUMNS]
    for name, kind in LIST_COLUMNS.items():
        offsets = np.fromiter(
            accumulate(map(len, lists[name]), initial=0), np.int32, len(chunk) + 1
        )
        values = np.fromiter(chain.from_iterable(lists[name]), np.int32, int(offsets[-1]))
        arrays.append(
            pa.ListArray.from_arrays(
                pa.array(offsets), pa.array(values.astype(kind.to_pandas_dtype()))
            )
        )
    return pa.record_batch(arrays, schema=SCHEMA)


def join_shards(
    shards: Sequence[Path], summaries: Sequence[Mapping[str, int]], folder: Path
) -> int:
    """Make a table in the new `folder` from shards and their summaries, in order.

    The files of the shards are linked if possible, otherwise copied. Returns the number of rows.
    Raises UserError if a shard has another number of rows than its summary.
    """
    folder.mkdir()
    total, shard_files = sum(summary["rows"] for summary in summaries), []
    with _NumberFiles(folder, total) as number_files:
        for number, (path, summary) in enumerate(zip(shards, summaries, strict=True)):
            if (rows := number_files.append(path)) != summary["rows"]:
                raise UserError(
                    f"{path}: has {quantity(rows, 'row')}, expected {summary['rows']}; "
                    "delete it and run the stage again"
                )
            _link(path, folder / f"{number:05}.arrow")
            shard_files.append({"rows": rows, "sha256": sha256(path)})
    write_json(
        folder / INDEX,
        {
            "shards": shard_files,
            "numbers": {name: sha256(folder / f"{name}.npy") for name in NUMBER_COLUMNS},
            "tokens": sum(summary["tokens"] for summary in summaries),
            "longest": max((summary["longest"] for summary in summaries), default=0),
        },
    )
    return total


def write_features(features: Iterable[Feature], folder: Path) -> int:
    """Write a table of one shard; returns the number of rows."""
    shard = folder.with_name(f"{folder.name}.shard")
    summary = write_shard(features, shard)
    rows = join_shards([shard], [summary], folder)
    shard.unlink()
    return rows


class _NumberFiles:
    """The .npy files of the number columns, over all shards."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._files = {name: (folder / f"{name}.npy").open("wb") for name in NUMBER_COLUMNS}
        for file in self._files.values():
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<i4", "fortran_order": False, "shape": (rows,)}
            )

    def __enter__(self) -> "_NumberFiles":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def append(self, path: Path) -> int:
        """Copy the number columns of a shard; returns its number of rows."""
        rows = 0
        with pa.memory_map(str(path)) as source:
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                rows += len(batch)
                for name, file in self._files.items():
                    _write(file, batch.column(name).to_numpy())
        return rows


def _write(file: BinaryIO, values: NDArray[Any]) -> None:
    file.write(values.astype("<i4").tobytes())


def _link(path: Path, to: Path) -> None:
    try:
        os.link(path, to)
    except OSError:
        shutil.copyfile(path, to)


class Columns(Protocol):
    """List columns of features, by row: the input of `collate`."""

    def column(self, name: str, row: int) -> NDArray[Any]:
        """The list column `name` of one row."""


class FeatureList:
    """Features in memory, as the columns of a table."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features

    def column(self, name: str, row: int) -> NDArray[Any]:
        """The list column `name` of one row."""
        return np.fromiter(getattr(self._features[row], name), np.int64)


class Table(Columns, Protocol):
    """The features of a split, or of some of its examples.

    `lengths` (in tokens), `label_counts` and `examples` (the index of the example of each row) are
    [rows]. `tokens` is the sum of the lengths and `longest` their maximum. `path` is the folder of
    the table on disk.
    """

    path: Path
    lengths: NDArray[np.int32]
    label_counts: NDArray[np.int32]
    examples: NDArray[np.int32]
    tokens: int
    longest: int

    def __len__(self) -> int: ...


def rows_of_examples(table: Table, examples: NDArray[np.int64]) -> list[range]:
    """The rows of each example of a table, in which the indices of examples rise."""
    indices = examples.astype(np.int32)  # another type would make searchsorted copy the column
    starts, ends = (np.searchsorted(table.examples, indices, side) for side in ("left", "right"))
    return list(map(range, starts.tolist(), ends.tolist()))


class FeatureTable:
    """The memory-mapped `Table` of a folder.

    The constructor reads the index only. Access to a row reads the chunk of that row.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        self._starts: list[int] = list(
            accumulate((shard["rows"] for shard in index["shards"]), initial=0)
        )
        self.tokens, self.longest = int(index["tokens"]), int(index["longest"])
        self.lengths, self.label_counts, self.examples = (
            self._numbers(name) for name in NUMBER_COLUMNS
        )
        self._shard = lru_cache(maxsize=None)(self._open)
        self._lists = lru_cache(maxsize=1 << 16)(self._list_arrays)

    def __len__(self) -> int:
        return self._starts[-1]

    def _numbers(self, name: str) -> NDArray[np.int32]:
        if not len(self):  # an empty file cannot be mapped
            return np.empty(0, np.int32)
        values: NDArray[np.int32] = np.load(self.path / f"{name}.npy", mmap_mode="r")
        return values

    def _open(self, shard: int) -> Any:
        return pa.ipc.open_file(pa.memory_map(str(self.path / f"{shard:05}.arrow")))

    def _list_arrays(self, name: str, shard: int, chunk: int) -> tuple[NDArray[Any], NDArray[Any]]:
        lists = self._shard(shard).get_batch(chunk).column(name)
        return lists.values.to_numpy(), lists.offsets.to_numpy()

    def column(self, name: str, row: int) -> NDArray[Any]:
        """The list column `name` of one row, without a copy."""
        shard = bisect_right(self._starts, row) - 1
        chunk, offset = divmod(int(row) - self._starts[shard], ROWS_PER_CHUNK)
        values, offsets = self._lists(name, shard, chunk)
        return values[offsets[offset] : offsets[offset + 1]]

"""Features: what the model reads, one row a window of an example. Written once, read memory-mapped.

A table is a folder: shards (Arrow files of the lists), a .npy file for each number a row has, and an index.

A feature's *positions* are the tokens whose hidden states the head reads: the first sub-word of every word a window owns
(tagging), or every candidate token (span extraction, where position 0 stands for "no answer").
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

from pipeline.errors import UserError
from pipeline.files import sha256, write_json
from pipeline.tasks.base.features import Feature

ROWS_PER_CHUNK = 2048  # in a shard, so that its row i lies in chunk i // ROWS_PER_CHUNK

LISTS = {
    "input_ids": pa.int32(),
    "token_types": pa.int8(),
    "positions": pa.int16(),
    "labels": pa.int16(),
    "begins": pa.int32(),
    "ends": pa.int32(),
}
NUMBERS = ("lengths", "label_counts", "examples")  # one each row; int32
SCHEMA = pa.schema(
    [
        *((name, pa.int32()) for name in NUMBERS),
        *((name, pa.list_(kind)) for name, kind in LISTS.items()),
    ]
)
INDEX = "index.json"


def write_shard(features: Iterable[Feature], path: Path) -> dict[str, int]:
    """Stream features into an Arrow file; returns what `join_shards` must know of it: rows, tokens, and the longest row."""
    about = {"rows": 0, "tokens": 0, "longest": 0}
    left = iter(features)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        while chunk := list(islice(left, ROWS_PER_CHUNK)):
            batch = _record_batch(chunk)
            lengths = batch.column("lengths").to_numpy()
            about["rows"] += len(chunk)
            about["tokens"] += int(lengths.sum())
            about["longest"] = max(about["longest"], int(lengths.max()))
            writer.write_batch(batch)
    return about


def _record_batch(chunk: list[Feature]) -> pa.RecordBatch:
    example, input_ids, token_types, positions, labels, begins, ends, label_count = zip(
        *chunk, strict=True
    )
    lists = dict(zip(LISTS, (input_ids, token_types, positions, labels, begins, ends), strict=True))
    numbers = dict(zip(NUMBERS, (list(map(len, input_ids)), label_count, example), strict=True))
    arrays = [pa.array(np.fromiter(numbers[name], np.int32, len(chunk))) for name in NUMBERS]
    for name, kind in LISTS.items():
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


def join_shards(shards: Sequence[Path], about: Sequence[Mapping[str, int]], folder: Path) -> int:
    """Make the new `folder` a table out of shards and what `write_shard` said of them, in order; returns how many rows it has.

    The shards' files are linked, not copied, where that can be. Raises UserError where one has not the rows that it should have.
    """
    folder.mkdir()
    rows, shard_files = sum(shard["rows"] for shard in about), []
    with _Numbers(folder, rows) as numbers:
        for number, (path, shard) in enumerate(zip(shards, about, strict=True)):
            if (found := numbers.add(path)) != shard["rows"]:
                raise UserError(f"{path}: has {found} rows, expected {shard['rows']}; run it again")
            _link(path, folder / f"{number:05}.arrow")
            shard_files.append({"rows": found, "sha256": sha256(path)})
    write_json(
        folder / INDEX,
        {
            "shards": shard_files,
            "numbers": {name: sha256(folder / f"{name}.npy") for name in NUMBERS},
            "tokens": sum(shard["tokens"] for shard in about),
            "longest": max((shard["longest"] for shard in about), default=0),
        },
    )
    return rows


def write_features(features: Iterable[Feature], folder: Path) -> int:
    """Write a table of one shard; returns how many rows it has."""
    beside = folder.with_name(f"{folder.name}.shard")
    about = write_shard(features, beside)
    rows = join_shards([beside], [about], folder)
    beside.unlink()
    return rows


class _Numbers:
    """The files of the columns NUMBERS, over all shards, as .npy."""

    def __init__(self, folder: Path, rows: int) -> None:
        self._files = {name: (folder / f"{name}.npy").open("wb") for name in NUMBERS}
        for file in self._files.values():
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<i4", "fortran_order": False, "shape": (rows,)}
            )

    def __enter__(self) -> "_Numbers":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files.values():
            file.close()

    def add(self, path: Path) -> int:
        """Copy a shard's numbers; returns how many rows it has."""
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
    """Features by number, a column at a time: the input of `collate`."""

    def column(self, name: str, row: int) -> NDArray[Any]:
        """One list column of one row."""


class FeatureList:
    """Features in memory, as the columns of a table."""

    def __init__(self, features: Sequence[Feature]) -> None:
        self._features = features

    def column(self, name: str, row: int) -> NDArray[Any]:
        """One list column of one row."""
        return np.fromiter(getattr(self._features[row], name), np.int64)


class Table(Columns, Protocol):
    """The features of a split, or of some of its examples.

    `lengths` (in tokens), `label_counts` and `examples` (the number of each row's example) have shape [rows]; `tokens` is the
    sum of the lengths and `longest` their maximum; `path` is the folder that the rows are read from.
    """

    path: Path
    lengths: NDArray[np.int32]
    label_counts: NDArray[np.int32]
    examples: NDArray[np.int32]
    tokens: int
    longest: int

    def __len__(self) -> int: ...


class FeatureTable:
    """Memory-mapped features: opening reads an index of a line, and a row or a batch of them what it shows.

    `lengths`, `label_counts` and `examples` [rows] are maps of files; `tokens` is the sum of lengths, `longest` the greatest.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        index = json.loads((path / INDEX).read_text(encoding="utf-8"))
        self._starts: list[int] = list(
            accumulate((shard["rows"] for shard in index["shards"]), initial=0)
        )
        self.tokens, self.longest = int(index["tokens"]), int(index["longest"])
        self.lengths, self.label_counts, self.examples = (self._numbers(name) for name in NUMBERS)
        self._shard = lru_cache(maxsize=None)(self._open)
        self._lists = lru_cache(maxsize=1 << 16)(self._list_arrays)

    def __len__(self) -> int:
        return self._starts[-1]

    def _numbers(self, name: str) -> NDArray[np.int32]:
        if not len(self):  # nothing cannot be mapped
            return np.empty(0, np.int32)
        values: NDArray[np.int32] = np.load(self.path / f"{name}.npy", mmap_mode="r")
        return values

    def _open(self, shard: int) -> Any:
        return pa.ipc.open_file(pa.memory_map(str(self.path / f"{shard:05}.arrow")))

    def _list_arrays(self, name: str, shard: int, chunk: int) -> tuple[NDArray[Any], NDArray[Any]]:
        found = self._shard(shard).get_batch(chunk).column(name)
        return found.values.to_numpy(), found.offsets.to_numpy()

    def column(self, name: str, row: int) -> NDArray[Any]:
        """One list column of one row, without a copy."""
        shard = bisect_right(self._starts, row) - 1
        chunk, inside = divmod(int(row) - self._starts[shard], ROWS_PER_CHUNK)
        values, offsets = self._lists(name, shard, chunk)
        return values[offsets[inside] : offsets[inside + 1]]

"""Duplicate rows of a corpus, found on disk.

Hashes are distributed over buckets by their first bits, and one bucket at a time is sorted, so
memory does not grow with the number of rows. A row's number counts all rows of the corpus, chunk by
chunk.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
RowPairs: TypeAlias = NDArray[np.int64]
"""[n, 2]: the row with the problem, and the row that it repeats; sorted by the first column."""

BUCKET_ROWS = 1 << 19  # the approximate number of rows in memory
MAX_BUCKETS = 512  # open files
RECORD_DTYPE = np.dtype([("key", "<u8", 2), ("row", "<i8"), ("output", "<u8"), ("split", "i1")])


class Buckets:
    """Records of rows on disk, which can be searched in groups of equal keys."""

    def __init__(self, folder: Path, rows: int) -> None:
        """`rows` is the expected number of rows."""
        count = min(MAX_BUCKETS, 1 + rows // BUCKET_ROWS)
        folder.mkdir()
        self._files = [(folder / f"{number}.bin").open("w+b") for number in range(count)]

    def __enter__(self) -> "Buckets":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def add(self, keys: Array, rows: Array, outputs: Array, splits: Array) -> None:
        """`keys` [n, 2] and `outputs` [n] are hashes."""
        records = np.empty(len(rows), RECORD_DTYPE)
        records["key"], records["row"] = keys, rows
        records["output"], records["split"] = outputs, splits
        bucket = records["key"][:, 0] % np.uint64(len(self._files))
        for number, file in enumerate(self._files):
            file.write(records[bucket == number].tobytes())

    def search(
        self, find: Callable[[Array, Array], RowPairs], dropped: NDArray[np.bool_]
    ) -> RowPairs:
        """The results of `find` in all buckets, without the rows that are `dropped` [rows].

        Its arguments are the records of a bucket [n], sorted by key and then row, and the start of
        each group of equal keys [g].
        """
        pairs = [np.empty((0, 2), np.int64)]
        pairs += [find(*bucket) for bucket in self._sorted(dropped) if len(bucket[0])]
        all_pairs = np.concatenate(pairs)
        return all_pairs[np.argsort(all_pairs[:, 0], kind="stable")]

    def _sorted(self, dropped: NDArray[np.bool_]) -> Iterator[tuple[Array, Array]]:
        for file in self._files:
            file.flush()
            file.seek(0)
            records = np.frombuffer(file.read(), RECORD_DTYPE)
            records = records[~dropped[records["row"]]]
            records = records[
                np.lexsort((records["row"], records["key"][:, 1], records["key"][:, 0]))
            ]
            changes = np.any(records["key"][1:] != records["key"][:-1], axis=1)
            yield records, np.concatenate([[0], np.flatnonzero(changes) + 1])[: len(records)]


def find_repeats(records: Array, starts: Array) -> RowPairs:
    """Each row with the same key as an earlier row."""
    first = _per_record(records["row"][starts], records, starts)
    return _pairs(records["row"], first, records["row"] != first)


def find_conflicts(records: Array, starts: Array) -> RowPairs:
    """Each row with another output than the reference of its key."""
    reference = _references(records, starts)
    return _pairs(records["row"], reference["row"], records["output"] != reference["output"])


def find_shared(records: Array, starts: Array) -> RowPairs:
    """Each row with the same key as a row of a later split, with the reference of its key."""
    reference = _references(records, starts)
    return _pairs(records["row"], reference["row"], records["split"] < reference["split"])


def _references(records: Array, starts: Array) -> Array:
    """For each record, the first record with its key in the last split that has the key.

    The last split is test, so a test row is not the row with the problem if another split has its
    key.
    """
    if not len(starts):
        return records
    last_split = _per_record(np.maximum.reduceat(records["split"], starts), records, starts)
    index = np.where(records["split"] == last_split, np.arange(len(records)), len(records))
    return records[_per_record(np.minimum.reduceat(index, starts), records, starts)]


def _per_record(values: Array, records: Array, starts: Array) -> Array:
    """Repeat the value of each group for each of its records."""
    return np.repeat(values, np.diff(np.append(starts, len(records))))


def _pairs(rows: Array, others: Array, selected: Array) -> RowPairs:
    return np.stack([rows[selected], others[selected]], axis=1).astype(np.int64)

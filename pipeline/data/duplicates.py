"""Rows that a corpus has twice, found on disk: hashes go into buckets by their first bits, and one bucket at a time is sorted.

So memory does not grow with the rows. A row's number counts all rows of the corpus, part by part; `Findings` are two rows each:
the one that is wrong, and the one that it repeats.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = NDArray[Any]
Findings: TypeAlias = NDArray[np.int64]
"""[n, 2], by the first column."""

BUCKET_ROWS = 1 << 19  # about how many are in memory at once
MOST_BUCKETS = 512  # open files
RECORD = np.dtype([("key", "<u8", 2), ("row", "<i8"), ("output", "<u8"), ("split", "i1")])


class Buckets:
    """Records of rows on disk, to be gone through in groups of equal keys."""

    def __init__(self, folder: Path, rows: int) -> None:
        """`rows` is how many there will be."""
        count = min(MOST_BUCKETS, 1 + rows // BUCKET_ROWS)
        folder.mkdir()
        self._files = [(folder / f"{number}.bin").open("w+b") for number in range(count)]

    def __enter__(self) -> "Buckets":
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            file.close()

    def add(self, keys: Array, rows: Array, outputs: Array, splits: Array) -> None:
        """`keys` [n, 2] and `outputs` [n] are hashes."""
        records = np.empty(len(rows), RECORD)
        records["key"], records["row"], records["output"], records["split"] = (
            keys,
            rows,
            outputs,
            splits,
        )
        bucket = records["key"][:, 0] % np.uint64(len(self._files))
        for number, file in enumerate(self._files):
            file.write(records[bucket == number].tobytes())

    def find(self, which: Callable[[Array, Array], Findings]) -> Findings:
        """All that `which` finds in a bucket: records [n] by key and then row, and where each group of equal keys starts [g]."""
        found = [
            np.empty((0, 2), np.int64),
            *(which(*bucket) for bucket in self._sorted() if len(bucket[0])),
        ]
        together = np.concatenate(found)
        return together[np.argsort(together[:, 0], kind="stable")]

    def _sorted(self) -> Iterator[tuple[Array, Array]]:
        for file in self._files:
            file.flush()
            file.seek(0)
            records = np.frombuffer(file.read(), RECORD)
            records = records[
                np.lexsort((records["row"], records["key"][:, 1], records["key"][:, 0]))
            ]
            changes = np.any(records["key"][1:] != records["key"][:-1], axis=1)
            yield records, np.concatenate([[0], np.flatnonzero(changes) + 1])[: len(records)]


def repeated(records: Array, starts: Array) -> Findings:
    """Each row that has an earlier one's key."""
    first = _spread(records["row"][starts], records, starts)
    return _pairs(records["row"], first, records["row"] != first)


def conflicting(records: Array, starts: Array) -> Findings:
    """Each row with another output than the first with its key."""
    first = _spread(starts, records, starts)
    return _pairs(
        records["row"], records["row"][first], records["output"] != records["output"][first]
    )


def shared(records: Array, starts: Array) -> Findings:
    """Each row whose key a later split has too, with the first row there: test comes last, so that it is never the wrong one."""
    if not len(starts):
        return np.empty((0, 2), np.int64)
    last = _spread(np.maximum.reduceat(records["split"], starts), records, starts)
    there = np.where(records["split"] == last, np.arange(len(records)), len(records))
    other = _spread(np.minimum.reduceat(there, starts), records, starts)
    return _pairs(records["row"], records["row"][other], records["split"] < last)


def _spread(values: Array, records: Array, starts: Array) -> Array:
    """Each group's value for each of its records."""
    return np.repeat(values, np.diff(np.append(starts, len(records))))


def _pairs(rows: Array, others: Array, wrong: Array) -> Findings:
    return np.stack([rows[wrong], others[wrong]], axis=1).astype(np.int64)

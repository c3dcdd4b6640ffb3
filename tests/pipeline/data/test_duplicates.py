"""Duplicate rows equal those of a search with dictionaries, for any number of buckets."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from pipeline.data import duplicates
from pipeline.data.duplicates import Buckets, find_conflicts, find_repeats, find_shared

Rows = Sequence[tuple[int, int, int]]
"""(key, output, split) of each row."""
ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.integers(0, 2)), max_size=60)


def search(
    rows: Rows, num_buckets: int, num_chunks: int, dropped: NDArray[np.bool_]
) -> list[list[list[int]]]:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BUCKET_ROWS", max(1, len(rows) // num_buckets))
        with Buckets(Path(folder) / "b", len(rows)) as buckets:
            for numbers in np.array_split(np.arange(len(rows)), num_chunks):
                chunk = np.array([rows[number] for number in numbers], np.int64).reshape(-1, 3)
                # Keys with one equal half are not equal.
                keys = np.stack([chunk[:, 0] // 3, chunk[:, 0] % 3], axis=1)
                buckets.add(keys, numbers, chunk[:, 1], chunk[:, 2])
            finders = (find_repeats, find_conflicts, find_shared)
            return [buckets.search(find, dropped).tolist() for find in finders]


@settings(max_examples=100, deadline=None)
@given(
    rows=ROWS,
    num_buckets=st.integers(1, 7),
    num_chunks=st.integers(1, 4),
    dropped_rows=st.sets(st.integers(0, 59), max_size=10),
)
def test_duplicates_equal_a_search_with_dictionaries(
    rows: Rows, num_buckets: int, num_chunks: int, dropped_rows: set[int]
) -> None:
    first: dict[int, int] = {}
    repeats, conflicts, shared = [], [], []
    kept = [number for number in range(len(rows)) if number not in dropped_rows]
    for number in kept:
        key, output, split = rows[number]
        start = first.setdefault(key, number)
        if start != number:
            repeats.append([number, start])
        # The first row of the last split with this key
        reference = max((rows[other][2], -other) for other in kept if rows[other][0] == key)
        if output != rows[-reference[1]][1]:
            conflicts.append([number, -reference[1]])
        if split < reference[0]:
            shared.append([number, -reference[1]])
    dropped = ~np.isin(np.arange(len(rows)), kept)
    assert search(rows, num_buckets, num_chunks, dropped) == [repeats, conflicts, shared]

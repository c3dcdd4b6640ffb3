"""Repeated rows are those that dictionaries in memory find, whatever the buckets."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data import duplicates
from pipeline.data.duplicates import Buckets, conflicting, repeated, shared

Rows = Sequence[tuple[int, int, int]]
"""(key, output, split) of each."""
ROWS = st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2), st.integers(0, 2)), max_size=60)


def found(rows: Rows, buckets: int, parts: int) -> list[list[list[int]]]:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(duplicates, "BUCKET_ROWS", max(1, len(rows) // buckets))
        with Buckets(Path(folder) / "b", len(rows)) as made:
            for numbers in np.array_split(np.arange(len(rows)), parts):
                some = np.array([rows[number] for number in numbers], np.int64).reshape(-1, 3)
                keys = np.stack(
                    [some[:, 0] // 3, some[:, 0] % 3], axis=1
                )  # equal in one half is not equal
                made.add(keys, numbers, some[:, 1], some[:, 2])
            return [made.find(which).tolist() for which in (repeated, conflicting, shared)]


@settings(max_examples=100, deadline=None)
@given(rows=ROWS, buckets=st.integers(1, 7), parts=st.integers(1, 4))
def test_found_are_those_that_dictionaries_find(rows: Rows, buckets: int, parts: int) -> None:
    first: dict[int, int] = {}
    twice, unlike, leaked = [], [], []
    for number, (key, output, split) in enumerate(rows):
        start = first.setdefault(key, number)
        if start != number:
            twice.append([number, start])
        if output != rows[start][1]:
            unlike.append([number, start])
        later = [
            (other_split, -other)
            for other, (other_key, _, other_split) in enumerate(rows)
            if other_key == key and other_split > split
        ]
        if later:
            leaked.append([number, -max(later)[1]])
    assert found(rows, buckets, parts) == [twice, unlike, leaked]

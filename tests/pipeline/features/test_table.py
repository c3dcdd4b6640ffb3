"""Windows own every unit once; a table returns the features that were written."""

import os
from itertools import islice, pairwise
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from pipeline.features import table as table_module
from pipeline.features.table import FeatureTable, join_shards, write_features, write_shard
from pipeline.tasks.base.features import Feature, Window, windows


@settings(max_examples=300, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 12), min_size=1, max_size=60),
    room=st.integers(1, 20),
    stride=st.integers(0, 25),
)
@example(sizes=[1] * 40 + [10] + [1] * 5, room=10, stride=8)
def test_windows_own_every_unit_once_and_overlap_by_the_stride(
    sizes: list[int], room: int, stride: int
) -> None:
    spans = windows(sizes, room, stride)
    owned = [unit for window in spans for unit in range(window.owned_start, window.owned_end)]
    assert owned == list(range(len(sizes)))
    for window in spans:
        assert window.start <= window.owned_start < window.owned_end <= window.end, (
            "a window owns at least one unit, and only units that it shows"
        )
        assert sum(sizes[window.start : window.end]) <= room or window.end == window.start + 1
    for left, right in pairwise(spans):
        assert left.start < right.start <= left.end < right.end
        overlap = sum(sizes[right.start : left.end])
        assert overlap <= stride
        larger = overlap + sizes[right.start - 1]
        assert (
            larger > stride or larger + sizes[left.end] > room or right.start == left.start + 1
        ), "the overlap could be larger"
        assert left.end == len(sizes) or sum(sizes[left.start : left.end + 1]) > room, (
            "the window could show more"
        )


def test_the_ownership_of_an_overlap_is_split_in_the_middle() -> None:
    assert windows([1] * 10, 6, 2) == [Window(0, 6, 0, 5), Window(4, 10, 5, 10)]


def test_units_that_fit_make_one_window() -> None:
    assert windows([2, 3, 1], 6, 3) == [Window(0, 3, 0, 3)]
    assert windows([], 6, 3) == [Window(0, 0, 0, 0)]


def test_a_unit_larger_than_the_room_has_a_window_of_its_own() -> None:
    assert windows([1, 9, 1], 4, 1) == [Window(0, 1, 0, 1), Window(1, 2, 1, 2), Window(2, 3, 2, 3)]


def make_feature(number: int) -> Feature:
    """A feature whose lists have different lengths, some of them 0.

    Its labels are as large as the ids of a vocabulary.
    """
    n = number % 4
    ids, types, positions, labels = (
        list(range(n + 2)),
        [1] * (n + 2),
        list(range(n)),
        [151_000 - label for label in range(2 * n)],
    )
    return Feature(number, ids, types, positions, labels, [number] * n, [70_000 + number] * n, n)


@pytest.mark.parametrize("rows", [0, 1, 4, 5, 8, 11])
def test_a_table_returns_the_features_that_were_written(
    rows: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "ROWS_PER_CHUNK", 4)
    assert write_features(map(make_feature, range(rows)), tmp_path / "a.arrow") == rows
    table = FeatureTable(tmp_path / "a.arrow")
    assert len(table) == rows
    assert table.lengths.tolist() == [len(make_feature(i).input_ids) for i in range(rows)]
    assert table.label_counts.tolist() == [make_feature(i).label_count for i in range(rows)]
    assert table.examples.tolist() == list(range(rows))
    for name in ("input_ids", "token_types", "positions", "labels", "begins", "ends"):
        assert [table.column(name, i).tolist() for i in range(rows)] == [
            getattr(make_feature(i), name) for i in range(rows)
        ]


def test_rows_of_the_second_chunk_are_read_correctly(tmp_path: Path) -> None:
    rows = table_module.ROWS_PER_CHUNK + 3
    write_features(map(make_feature, range(rows)), tmp_path / "a.arrow")
    table = FeatureTable(tmp_path / "a.arrow")
    chunk = table_module.ROWS_PER_CHUNK
    for number in (0, chunk - 1, chunk, rows - 1):
        assert table.column("begins", number).tolist() == make_feature(number).begins
        assert table.column("ends", number).tolist() == make_feature(number).ends


def test_equal_features_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_features(map(make_feature, range(50)), tmp_path / name)
    first, second = (
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in "ab"
    )
    assert first == second
    assert sorted(first) == [
        "00000.arrow",
        "examples.npy",
        "index.json",
        "label_counts.npy",
        "lengths.npy",
    ]


@pytest.mark.parametrize("sizes", [[3, 4, 5], [0, 1, 0], [9, 0, 2]])
def test_joined_shards_equal_one_table(
    sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_module, "ROWS_PER_CHUNK", 4)
    features = [make_feature(number) for number in range(sum(sizes))]
    iterator = iter(features)
    paths = [tmp_path / f"{number}.arrow" for number in range(len(sizes))]
    summaries = [
        write_shard(islice(iterator, size), path) for size, path in zip(sizes, paths, strict=True)
    ]
    assert join_shards(paths, summaries, tmp_path / "joined") == len(features)
    table = FeatureTable(tmp_path / "joined")
    lengths = [len(feature.input_ids) for feature in features]
    assert (table.tokens, table.longest, table.lengths.tolist()) == (
        sum(lengths),
        max(lengths),
        lengths,
    )
    assert [table.column("ends", number).tolist() for number in range(len(features))] == [
        feature.ends for feature in features
    ]


def test_a_shard_that_lacks_rows_is_refused(tmp_path: Path) -> None:
    summary = write_shard(map(make_feature, range(5)), tmp_path / "a.arrow")
    with pytest.raises(UserError, match="has 5 rows, expected 6; delete it"):
        join_shards([tmp_path / "a.arrow"], [summary | {"rows": 6}], tmp_path / "joined")


def test_opening_a_table_reads_no_column(tmp_path: Path) -> None:
    """The columns are damaged here. Only the access to a row fails."""
    write_features(map(make_feature, range(50)), tmp_path / "a")
    for path in (tmp_path / "a").iterdir():
        if path.suffix != ".json":
            os.truncate(path, 128 if path.suffix == ".npy" else 0)
            os.truncate(path, 1 << 20)
    table = FeatureTable(tmp_path / "a")
    assert (len(table), table.longest) == (50, 5)
    with pytest.raises(pa.ArrowInvalid):
        table.column("labels", 3)

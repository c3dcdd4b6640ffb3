"""Features: what the model reads, one row a window of an example. Written once, read memory-mapped.

A feature's *positions* are the tokens whose hidden states the head reads: the first sub-word of every word a window owns
(tagging), or every candidate token (span extraction, where position 0 stands for "no answer").
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

ROWS_PER_CHUNK = 8192  # fixed, so that row i lies in chunk i // ROWS_PER_CHUNK

SCHEMA = pa.schema([
    ("example", pa.int32()),
    ("length", pa.int32()),
    ("label_count", pa.int32()),
    ("input_ids", pa.list_(pa.int32())),
    ("token_types", pa.list_(pa.int8())),
    ("positions", pa.list_(pa.int16())),
    ("labels", pa.list_(pa.int16())),
    ("begins", pa.list_(pa.int32())),
    ("ends", pa.list_(pa.int32())),
])


@dataclass(frozen=True)
class Feature:
    """One window. N positions; `labels` is N class numbers (tagging) or 2 indices into positions (span).

    `begins` and `ends` [N] say where each position lies in the example: word numbers (tagging), characters (span).
    """

    example: int
    input_ids: Sequence[int]
    token_types: Sequence[int]
    positions: Sequence[int]
    labels: Sequence[int]
    begins: Sequence[int]
    ends: Sequence[int]
    label_count: int


class WindowLogits(NamedTuple):
    """What the model said about one window: `logits` [N, classes] at its positions, which lie at `begins`, `ends` [N]."""

    begins: NDArray[Any]
    ends: NDArray[Any]
    logits: NDArray[Any]


@dataclass(frozen=True)
class Window:
    """Units [start, end) that one window shows, and those of them, [own_start, own_end), that it answers for."""

    start: int
    end: int
    own_start: int
    own_end: int


def windows(sizes: Sequence[int], room: int, stride: int) -> list[Window]:
    """Cut units (words, or tokens of size 1) into windows of at most `room` tokens that overlap by about `stride` tokens.

    Every unit is owned by exactly one window, the one that shows more of its context: the overlap is split in the middle.
    A unit larger than `room` gets a window of its own (its tokens are cut, its label is not).
    """
    bounds: list[tuple[int, int]] = []
    start = 0
    while True:
        end, used = start, 0
        while end < len(sizes) and (end == start or used + sizes[end] <= room):
            used += sizes[end]
            end += 1
        bounds.append((start, end))
        if end >= len(sizes):
            break
        back, overlap = end, 0
        limit = min(stride, room - sizes[end])  # so that every window shows at least one new unit
        while back > start + 1 and overlap + sizes[back - 1] <= limit:
            back -= 1
            overlap += sizes[back]
        start = back
    middles = [(first_end + second_start) // 2 for (_, first_end), (second_start, _) in pairwise(bounds)]
    owned = pairwise([0, *middles, len(sizes)])
    return [Window(start, end, *own) for (start, end), own in zip(bounds, owned, strict=True)]


def write_features(features: Iterable[Feature], path: Path) -> int:
    """Stream features into an Arrow file (deterministic bytes; the caller's folder is atomic); returns how many rows."""
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        for chunk in _chunks(features):
            writer.write_batch(_record_batch(chunk))
            rows += len(chunk)
    return rows


def _chunks(features: Iterable[Feature]) -> Iterator[list[Feature]]:
    chunk: list[Feature] = []
    for feature in features:
        chunk.append(feature)
        if len(chunk) == ROWS_PER_CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _record_batch(chunk: list[Feature]) -> pa.RecordBatch:
    columns = {name: [getattr(feature, name) for feature in chunk] for name in SCHEMA.names if name != "length"}
    columns["length"] = [len(feature.input_ids) for feature in chunk]
    return pa.record_batch([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)


class FeatureTable:
    """Memory-mapped features; opening reads no rows but the three integer columns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with pa.memory_map(str(path)) as source:
            self._table = pa.ipc.open_file(source).read_all()
        self.lengths = self._integers("length")
        self.label_counts = self._integers("label_count")
        self.examples = self._integers("example")
        self._lists = {field.name: [self._list_arrays(chunk) for chunk in self._table.column(field.name).chunks]
                       for field in SCHEMA if pa.types.is_list(field.type)}

    def __len__(self) -> int:
        return len(self.lengths)

    def _integers(self, name: str) -> NDArray[np.int64]:
        return np.asarray(self._table.column(name).to_numpy(), dtype=np.int64)

    @staticmethod
    def _list_arrays(chunk: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        return chunk.values.to_numpy(zero_copy_only=False), chunk.offsets.to_numpy(zero_copy_only=False)

    def column(self, name: str, row: int) -> NDArray[Any]:
        """One list column of one row, without a copy."""
        chunk, inside = divmod(int(row), ROWS_PER_CHUNK)
        values, offsets = self._lists[name][chunk]
        return values[offsets[inside] : offsets[inside + 1]]

"""Features and windows: what the model reads of an example, and what it says of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from numpy.typing import NDArray


class Feature(NamedTuple):
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
    middles = [
        (first_end + second_start) // 2 for (_, first_end), (second_start, _) in pairwise(bounds)
    ]
    owned = pairwise([0, *middles, len(sizes)])
    return [Window(start, end, *own) for (start, end), own in zip(bounds, owned, strict=True)]

"""Features and windows: the model's input for an example, and the logits that it returns."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.seeding import Ints
from pipeline.tasks.base.candidates import Ranking


class Feature(NamedTuple):
    """The model's input for one window, with N positions to predict.

    `input_ids` and `token_types` are [T]. `positions` [N] are indices into them. `labels` are N
    class numbers (tagging), 2 indices into `positions` (spans), or the next tokens (a text to
    generate, which follows the token at the first position). `begins` and `ends` [N] locate
    each position in the example: word numbers (tagging) or characters (spans). `example` is the
    number of the example in its split. `label_count` is the number of labels in the loss.
    """

    example: int
    input_ids: Sequence[int]
    token_types: Sequence[int]
    positions: Sequence[int]
    labels: Sequence[int]
    begins: Sequence[int]
    ends: Sequence[int]
    label_count: int


def source_tokens(input_ids: Iterable[int], positions: Sequence[int] | Ints) -> list[int]:
    """The tokens of a window up to the first position to predict."""
    return list(islice(map(int, input_ids), int(positions[0]) + 1))


class WindowLogits(NamedTuple):
    """The model's output for one window: `logits` [N, classes] at N positions.

    `begins` and `ends` [N] locate each position in the example, as in `Feature`. The output for a
    task that generates text is only the `text`, that for a task that ranks candidates only the
    `ranking`, and N is 0.
    """

    begins: NDArray[Any]
    ends: NDArray[Any]
    logits: NDArray[Any]
    text: str = ""
    ranking: Ranking | None = None


def generated_window(text: str) -> WindowLogits:
    """The model's output for a window from which it generated a text."""
    return WindowLogits(np.empty(0), np.empty(0), np.empty((0, 0)), text)


def ranked_window(ranking: Ranking) -> WindowLogits:
    """The model's output for a window after which it ranked candidates."""
    return generated_window("")._replace(ranking=ranking)


@dataclass(frozen=True)
class Window:
    """A window over the units [start, end). It predicts the units [owned_start, owned_end) only."""

    start: int
    end: int
    owned_start: int
    owned_end: int


def windows(sizes: Sequence[int], max_size: int, stride: int) -> list[Window]:
    """Split units into windows of at most `max_size` tokens that overlap by about `stride` tokens.

    `sizes` are the units' numbers of tokens: a unit is a word, or one token (size 1). Exactly one
    window owns each unit, the window with more context for it: an overlap is split in the middle. A
    unit larger than `max_size` gets a separate window; the caller truncates its tokens.
    """
    bounds: list[tuple[int, int]] = []
    start = 0
    while True:
        end, used = start, 0
        while end < len(sizes) and (end == start or used + sizes[end] <= max_size):
            used += sizes[end]
            end += 1
        bounds.append((start, end))
        if end >= len(sizes):
            break
        next_start, overlap = end, 0
        limit = min(stride, max_size - sizes[end])  # so that every window has at least one new unit
        while next_start > start + 1 and overlap + sizes[next_start - 1] <= limit:
            next_start -= 1
            overlap += sizes[next_start]
        start = next_start
    middles = [
        (first_end + second_start) // 2 for (_, first_end), (second_start, _) in pairwise(bounds)
    ]
    owned_bounds = pairwise([0, *middles, len(sizes)])
    return [
        Window(start, end, *owned) for (start, end), owned in zip(bounds, owned_bounds, strict=True)
    ]

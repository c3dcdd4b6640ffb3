"""Mixing is arithmetic: which corpus and which of its rows come k-th is a closed-form function of (seed, k).

Words: *row* one feature; *micro-batch* rows of one corpus, of similar length, under a token budget; *step* `G` consecutive
micro-batches; *rate* a corpus's share of the micro-batches, an integer out of `RATE_SCALE`. Nothing here keeps state, so a run resumes
at any k and the order is the same for any number of ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.mixing.rates import RATE_BITS, RATE_SCALE
from pipeline.seeding import Ints, derive_seed, permute

WINDOW = 1024  # rows, at least, that are shuffled together before they are sorted by length
BATCHES = 64  # micro-batches, at least, that such a window is cut into


def _reverse_bits(k: int) -> int:
    return int(f"{k:0{RATE_BITS}b}"[::-1], 2)


def _count_below(k: int, bound: int) -> int:
    """How many i < k have bit-reversed(i) < bound: k's set bits cut [0, k) into blocks that are evenly spaced once reversed."""
    count = (k >> RATE_BITS) * bound
    k &= RATE_SCALE - 1
    done = 0
    for bit in reversed(range(RATE_BITS)):
        if k >> bit & 1:
            spacing = 1 << (RATE_BITS - bit)
            count += max(0, -((_reverse_bits(done) - bound) // spacing))
            done |= 1 << bit
    return count


@dataclass(frozen=True)
class Schedule:
    """Which corpus the k-th micro-batch is from: a van der Corput sequence over the cumulated rates.

    Every stretch of micro-batches holds the corpora in proportion, to within a few: evenly spread, never in blocks.
    """

    rates: tuple[int, ...]

    def __post_init__(self) -> None:
        assert sum(self.rates) == RATE_SCALE, "rates must sum to RATE_SCALE"

    def corpus(self, k: int) -> int:
        """Index of the corpus that micro-batch k is from."""
        return int(
            np.searchsorted(
                np.cumsum(self.rates), _reverse_bits(k & (RATE_SCALE - 1)), side="right"
            )
        )

    def count(self, corpus: int, k: int) -> int:
        """How many of the first k micro-batches are from `corpus`; so micro-batch k is its count(corpus, k)-th."""
        upper = sum(self.rates[: corpus + 1])
        return _count_below(k, upper) - _count_below(k, upper - self.rates[corpus])


class TokenBudgetBatches:
    """A corpus's rows as micro-batches, a fixed number per epoch, each epoch in another order.

    The rows are permuted, and their line is cut into windows. In a window they are sorted by length, and the line of their
    tokens is cut into equal parts: a row belongs to the part that holds its middle token. Where a window lies and how many parts
    it has does not depend on the permutation, so that any micro-batch takes a look at the lengths of its own window alone.
    A micro-batch has about `budget` tokens; in a corpus of one window less than 2 * budget + the longest row.
    """

    def __init__(
        self,
        lengths: NDArray[Any] | Sequence[int],
        tokens_per_micro_batch: int,
        seed: int,
        tokens: int | None = None,
        longest: int | None = None,
    ) -> None:
        """`lengths` [rows] in tokens; `tokens` and `longest`, their sum and maximum, are computed where they are not given.

        The budget is raised to the longest row, so that no micro-batch is empty.
        """
        self.lengths = np.asarray(lengths) if isinstance(lengths, Sequence) else lengths
        rows = len(self.lengths)
        assert rows > 0, "a corpus without rows cannot be packed"
        self.seed = seed
        total = int(self.lengths.sum()) if tokens is None else tokens
        self.per_epoch = max(
            1,
            total
            // max(tokens_per_micro_batch, int(self.lengths.max()) if longest is None else longest),
        )
        self._windows = max(1, min(rows // WINDOW, self.per_epoch // BATCHES))
        self._window = lru_cache(maxsize=64)(self._lay_out)

    def rows(self, m: int) -> Ints:
        """Row numbers of the corpus's m-th micro-batch, counted over all epochs."""
        epoch, index = divmod(m, self.per_epoch)
        batch = int(permute(np.array([index]), self.per_epoch, derive_seed(self.seed, epoch, 1))[0])
        window = ((batch + 1) * self._windows - 1) // self.per_epoch
        order, starts = self._window(epoch, window)
        inside = batch - self._first_batch(window)
        return order[starts[inside] : starts[inside + 1]]

    def _first_batch(self, window: int) -> int:
        return window * self.per_epoch // self._windows

    def _lay_out(self, epoch: int, window: int) -> tuple[Ints, Ints]:
        """The window's rows in order, and where each of its micro-batches starts in it, and the last one ends."""
        bounds = [self._first_batch(window), self._first_batch(window + 1)]
        first, last = (len(self.lengths) * batch // self.per_epoch for batch in bounds)
        order = permute(np.arange(first, last), len(self.lengths), derive_seed(self.seed, epoch, 0))
        order = order[np.argsort(self.lengths[order], kind="stable")]
        parts = bounds[1] - bounds[0]
        length = self.lengths[order].astype(np.int64)
        middle = (
            np.cumsum(length) * 2 - length
        )  # twice the position of a row's middle, to stay in integers
        starts = np.searchsorted(middle * parts // (2 * int(length.sum())), np.arange(parts + 1))
        steps = np.arange(
            parts + 1
        )  # by chance a window may have less than `parts` longest rows: then still none is empty
        starts = np.maximum.accumulate(starts - steps) + steps
        return order, np.minimum(starts, len(order) - parts + steps).astype(np.int64)

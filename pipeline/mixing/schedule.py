"""The corpus and the rows of the k-th micro-batch, as closed-form functions of (seed, k).

A *row* is one feature. A *micro-batch* holds rows of one corpus, of similar length, under a token
budget. A *step* is a fixed number of consecutive micro-batches. A *rate* is the share of a corpus
in the micro-batches, as an integer out of `RATE_SCALE`. The functions keep no state, so a run can
resume at any k, and the order is the same for any number of ranks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.mixing.rates import RATE_BITS, RATE_SCALE
from pipeline.seeding import Ints, derive_seed, permute

# A window is a group of rows that are shuffled together and then sorted by length.
MIN_WINDOW_ROWS = 1024
MIN_WINDOW_BATCHES = 64


def _reverse_bits(k: int) -> int:
    return int(f"{k:0{RATE_BITS}b}"[::-1], 2)


def _count_below(k: int, bound: int) -> int:
    """Number of i < k with bit-reversed(i) < bound.

    The set bits of k cut [0, k) into blocks. The bit-reversed numbers of a block are evenly spaced.
    """
    count = (k >> RATE_BITS) * bound
    k &= RATE_SCALE - 1
    prefix = 0  # the higher set bits of k, the start of the current block
    for bit in reversed(range(RATE_BITS)):
        if k >> bit & 1:
            spacing = 1 << (RATE_BITS - bit)
            count += max(0, -((_reverse_bits(prefix) - bound) // spacing))
            prefix |= 1 << bit
    return count


@dataclass(frozen=True)
class Schedule:
    """The corpus of the k-th micro-batch, by a van der Corput sequence over the cumulative rates.

    The corpora are evenly spread: in every interval of micro-batches, the count of each corpus
    differs from its share by a few at most.
    """

    rates: tuple[int, ...]

    def __post_init__(self) -> None:
        assert sum(self.rates) == RATE_SCALE, "rates must sum to RATE_SCALE"

    def corpus(self, k: int) -> int:
        """Index of the corpus of micro-batch k."""
        return int(np.searchsorted(self._bounds, _reverse_bits(k & (RATE_SCALE - 1)), side="right"))

    @cached_property
    def _bounds(self) -> Ints:
        """The upper end of each corpus in the cumulative rates."""
        return np.cumsum(self.rates)

    def count(self, corpus: int, k: int) -> int:
        """Number of micro-batches of `corpus` (an index) among the first k.

        If micro-batch k is of `corpus`, it is the count(corpus, k)-th micro-batch of that corpus.
        """
        upper = sum(self.rates[: corpus + 1])
        return _count_below(k, upper) - _count_below(k, upper - self.rates[corpus])


class TokenBudgetBatches:
    """The rows of a corpus as micro-batches, a fixed number per epoch, in a new order each epoch.

    The rows are permuted and cut into windows. The rows of a window are sorted by length, and their
    tokens are cut into equal parts. A row belongs to the part with its middle token. The bounds of
    the windows and the number of their parts do not depend on the permutation. So a micro-batch
    reads only the lengths of its window. A micro-batch has about `tokens_per_micro_batch`
    tokens. In a corpus of one window it has fewer than twice that number plus the longest row.
    """

    def __init__(
        self,
        lengths: NDArray[Any] | Sequence[int],
        tokens_per_micro_batch: int,
        seed: int,
        tokens: int | None = None,
        longest: int | None = None,
    ) -> None:
        """`lengths` [rows] is in tokens, `tokens` is its sum and `longest` its maximum.

        Both are computed if they are None. The budget is raised to the length of the longest row,
        so that no micro-batch is empty.
        """
        self.lengths = np.asarray(lengths) if isinstance(lengths, Sequence) else lengths
        rows = len(self.lengths)
        assert rows > 0, "a corpus without rows has no micro-batches"
        self.seed = seed
        total = int(self.lengths.sum()) if tokens is None else tokens
        self.per_epoch = max(
            1,
            total
            // max(tokens_per_micro_batch, int(self.lengths.max()) if longest is None else longest),
        )
        self._num_windows = max(
            1, min(rows // MIN_WINDOW_ROWS, self.per_epoch // MIN_WINDOW_BATCHES)
        )
        self._window = lru_cache(maxsize=64)(self._sort_and_cut)

    def rows(self, m: int) -> Ints:
        """Row indices of the m-th micro-batch of the corpus, counted over all epochs."""
        epoch, index = divmod(m, self.per_epoch)
        batch = int(permute(np.array([index]), self.per_epoch, derive_seed(self.seed, epoch, 1))[0])
        window = ((batch + 1) * self._num_windows - 1) // self.per_epoch
        order, starts = self._window(epoch, window)
        part = batch - self._first_batch(window)
        return order[starts[part] : starts[part + 1]]

    def _first_batch(self, window: int) -> int:
        return window * self.per_epoch // self._num_windows

    def _sort_and_cut(self, epoch: int, window: int) -> tuple[Ints, Ints]:
        """The rows of the window in order, and the bounds of its micro-batches in that order.

        The shapes are [rows of the window] and [parts + 1].
        """
        bounds = [self._first_batch(window), self._first_batch(window + 1)]
        first, last = (len(self.lengths) * batch // self.per_epoch for batch in bounds)
        order = permute(np.arange(first, last), len(self.lengths), derive_seed(self.seed, epoch, 0))
        order = order[np.argsort(self.lengths[order], kind="stable")]
        parts = bounds[1] - bounds[0]
        length = self.lengths[order].astype(np.int64)
        middle = np.cumsum(length) * 2 - length  # twice the position of the middle, an integer
        starts = np.searchsorted(middle * parts // (2 * int(length.sum())), np.arange(parts + 1))
        # A long row may be longer than a part; move the bounds so that no part is empty.
        steps = np.arange(parts + 1)
        starts = np.maximum.accumulate(starts - steps) + steps
        return order, np.minimum(starts, len(order) - parts + steps).astype(np.int64)

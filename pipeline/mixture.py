"""Mixing is arithmetic: which corpus and which of its rows come k-th is a closed-form function of (seed, k).

Words: *row* one feature; *micro-batch* rows of one corpus, of similar length, under a token budget; *step* `G` consecutive
micro-batches; *rate* a corpus's share of the micro-batches, an integer out of `UNIT`. Nothing here keeps state, so a run resumes
at any k and the order is the same for any number of ranks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]

UNIT_BITS = 20
UNIT = 1 << UNIT_BITS
WINDOW = 1024  # rows, at least, that are shuffled together before they are sorted by length
BATCHES = 64  # micro-batches, at least, that such a window is cut into
ROUNDS = 8  # of a Feistel network


@dataclass(frozen=True)
class MixtureParams:
    """How corpora are mixed; `corpora` lists them, or is "all" that params.yaml has.

    Shares are in proportion to weight * min(examples, cap)^(1/temperature): a temperature of 1 is proportional, "equal" is equal.
    `shares` gives them outright instead (any positive numbers, one a corpus), and then the others have no say. `on_leak` says
    what becomes of train rows whose text is in a validation or test split of any of the corpora: they are only reported,
    dropped from what the mixture trains on, or make it fail. A corpus that is seen more than `most_epochs` times, or of which
    less than `least_epochs` is seen, is warned of: rows repeated up to 4 times are about as good as new ones (Muennighoff et
    al. 2023).
    """

    corpora: Literal["all"] | tuple[str, ...]
    temperature: float | Literal["equal"] = 2.0
    cap: int = 100_000
    weights: dict[str, float] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)
    on_leak: Literal["fail", "drop", "report"] = "report"
    most_epochs: float = 4.0
    least_epochs: float = 0.05

    def __post_init__(self) -> None:
        if self.temperature != "equal" and self.temperature <= 0:
            raise ValueError(f"temperature is {self.temperature}; give a number above 0 (1 is proportional), or equal")
        if self.cap < 1:
            raise ValueError(f"cap is {self.cap}; give the largest number of examples that counts, at least 1")
        for key, given in (("weights", self.weights), ("shares", self.shares)):
            for name, value in given.items():
                if not 0 < value < math.inf:
                    raise ValueError(f"{key}.{name} is {value}; give a number above 0, or leave the corpus out of `corpora`")
        if self.shares and self.weights:
            raise ValueError("shares says what weights would only change; remove one of the two")
        if not 0 <= self.least_epochs < self.most_epochs:
            raise ValueError(f"least_epochs is {self.least_epochs} and most_epochs {self.most_epochs}; give 0 or more, and more")


def sampling_rates(sizes: Mapping[str, int], params: MixtureParams, draws: int = UNIT) -> dict[str, int]:
    """Rate of each corpus: its share (see `MixtureParams`), as integers that sum to `UNIT`, rounded by largest remainder.

    `sizes` counts training *examples* (not tokens or windows), as in T5's examples-proportional mixing with temperature
    (Raffel et al. 2020, section 3.5.2). No rate is so small that the corpus would have none of `draws` micro-batches. Raises
    ValueError where there are more corpora than that allows, or `shares` are not of these corpora.
    """
    if params.shares and params.shares.keys() != sizes.keys():
        raise ValueError(f"shares: found {', '.join(params.shares)}; give one for each of {', '.join(sizes)}")
    least = UNIT >> (min(draws, UNIT).bit_length() - 1)  # the first 2^m of a van der Corput sequence are UNIT / 2^m apart
    if least * len(sizes) > UNIT:
        raise ValueError(f"{len(sizes)} corpora cannot each have one of {draws} micro-batches; train longer, or mix fewer")
    power = 0.0 if params.temperature == "equal" else 1 / params.temperature
    raw = {name: params.shares.get(name) or params.weights.get(name, 1.0) * min(n, params.cap) ** power
           for name, n in sizes.items()}
    small: set[str] = set()
    while True:
        rest = UNIT - least * len(small)
        total = sum(value for name, value in raw.items() if name not in small)
        exact = {name: value / total * rest for name, value in raw.items() if name not in small}
        if not (less := {name for name, value in exact.items() if value < least}):
            break
        small |= less
    rates = {name: int(exact.get(name, least)) for name in sizes}
    by_remainder = sorted(exact, key=lambda name: (int(exact[name]) - exact[name], name))
    for name in by_remainder[: UNIT - sum(rates.values())]:
        rates[name] += 1
    return rates


def steps_for(per_epoch: Iterable[int], micro_batches: int, epochs: float) -> int:
    """How many steps of so many micro-batches make `epochs` of corpora that have `per_epoch` micro-batches each."""
    return max(1, math.ceil(epochs * sum(per_epoch) / micro_batches))


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Steele et al. 2014's mixer: a bijection of 64-bit integers that looks random."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def mix_seed(*parts: int) -> int:
    """One 64-bit seed out of several integers; order matters."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = splitmix64(state ^ np.array([part % (1 << 64)], np.uint64))
    return int(state[0])


def shuffled(positions: Ints, n: int, seed: int) -> Ints:
    """What a permutation of range(n), which depends on (n, seed) alone, has at `positions` [k]; takes time and memory for these.

    A Feistel network permutes the numbers of an even number of bits; what it puts beyond n goes through it again.
    """
    half = np.uint64(max(1, -(-(n - 1).bit_length() // 2)))
    mask = np.uint64((1 << int(half)) - 1)
    keys = splitmix64(np.arange(ROUNDS, dtype=np.uint64) ^ np.uint64(seed))
    values = positions.astype(np.uint64)
    todo = np.arange(len(values))
    while len(todo):
        left, right = values[todo] >> half, values[todo] & mask
        for key in keys:
            left, right = right, left ^ (splitmix64(right ^ key) & mask)
        values[todo] = (left << half) | right
        todo = todo[values[todo] >= n]
    return values.astype(np.int64)


def permutation(n: int, seed: int) -> Ints:
    """All of it."""
    return shuffled(np.arange(n), n, seed)


def _reverse_bits(k: int) -> int:
    return int(f"{k:0{UNIT_BITS}b}"[::-1], 2)


def _count_below(k: int, bound: int) -> int:
    """How many i < k have bit-reversed(i) < bound: k's set bits cut [0, k) into blocks that are evenly spaced once reversed."""
    count = (k >> UNIT_BITS) * bound
    k &= UNIT - 1
    done = 0
    for bit in reversed(range(UNIT_BITS)):
        if k >> bit & 1:
            spacing = 1 << (UNIT_BITS - bit)
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
        assert sum(self.rates) == UNIT, "rates must sum to UNIT"

    def corpus(self, k: int) -> int:
        """Index of the corpus that micro-batch k is from."""
        return int(np.searchsorted(np.cumsum(self.rates), _reverse_bits(k & (UNIT - 1)), side="right"))

    def count(self, corpus: int, k: int) -> int:
        """How many of the first k micro-batches are from `corpus`; so micro-batch k is its count(corpus, k)-th."""
        upper = sum(self.rates[: corpus + 1])
        return _count_below(k, upper) - _count_below(k, upper - self.rates[corpus])


class Packing:
    """A corpus's rows as micro-batches, a fixed number per epoch, each epoch in another order.

    The rows are permuted, and their line is cut into windows. In a window they are sorted by length, and the line of their
    tokens is cut into equal parts: a row belongs to the part that holds its middle token. Where a window lies and how many parts
    it has does not depend on the permutation, so that any micro-batch takes a look at the lengths of its own window alone.
    A micro-batch has about `budget` tokens; in a corpus of one window less than 2 * budget + the longest row.
    """

    def __init__(self, lengths: NDArray[Any] | Sequence[int], batch_tokens: int, seed: int, tokens: int | None = None,
                 longest: int | None = None) -> None:
        """`lengths` [rows] in tokens; `tokens` and `longest`, their sum and maximum, are computed where they are not given.

        The budget is raised to the longest row, so that no micro-batch is empty.
        """
        self.lengths = np.asarray(lengths) if isinstance(lengths, Sequence) else lengths
        rows = len(self.lengths)
        assert rows > 0, "a corpus without rows cannot be packed"
        self.seed = seed
        total = int(self.lengths.sum()) if tokens is None else tokens
        self.per_epoch = max(1, total // max(batch_tokens, int(self.lengths.max()) if longest is None else longest))
        self._windows = max(1, min(rows // WINDOW, self.per_epoch // BATCHES))
        self._window = lru_cache(maxsize=64)(self._lay_out)

    def rows(self, m: int) -> Ints:
        """Row numbers of the corpus's m-th micro-batch, counted over all epochs."""
        epoch, index = divmod(m, self.per_epoch)
        batch = int(shuffled(np.array([index]), self.per_epoch, mix_seed(self.seed, epoch, 1))[0])
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
        order = shuffled(np.arange(first, last), len(self.lengths), mix_seed(self.seed, epoch, 0))
        order = order[np.argsort(self.lengths[order], kind="stable")]
        parts = bounds[1] - bounds[0]
        length = self.lengths[order].astype(np.int64)
        middle = np.cumsum(length) * 2 - length  # twice the position of a row's middle, to stay in integers
        starts = np.searchsorted(middle * parts // (2 * int(length.sum())), np.arange(parts + 1))
        steps = np.arange(parts + 1)  # by chance a window may have less than `parts` longest rows: then still none is empty
        starts = np.maximum.accumulate(starts - steps) + steps
        return order, np.minimum(starts, len(order) - parts + steps).astype(np.int64)

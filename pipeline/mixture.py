"""Mixing is arithmetic: which corpus and which of its rows come k-th is a closed-form function of (seed, k).

Words: *row* one feature; *micro-batch* rows of one corpus, of similar length, under a token budget; *step* `G` consecutive
micro-batches; *rate* a corpus's share of the micro-batches, an integer out of `UNIT`. Nothing here keeps state, so a run resumes
at any k and the order is the same for any number of ranks.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]

UNIT_BITS = 20
UNIT = 1 << UNIT_BITS
WINDOW = 1024  # rows that are shuffled together before they are sorted by length


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


def permutation(n: int, seed: int) -> Ints:
    """A permutation of range(n) that depends on (n, seed) alone: argsort of splitmix64."""
    keys = splitmix64(np.arange(n, dtype=np.uint64) ^ np.uint64(seed))
    return np.argsort(keys, kind="stable").astype(np.int64)


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

    The rows are permuted, sorted by length inside windows (up and down in turn, so that neighbors stay similar), and the
    line of their tokens is cut into equal parts: a row belongs to the part that holds its middle token. The number of parts
    does not depend on the permutation, so no epoch has to be laid out to know where another begins.
    A micro-batch holds less than 2 * budget + the longest row of tokens (its mean is `budget` in a large corpus).
    """

    def __init__(self, lengths: Ints | Sequence[int], batch_tokens: int, seed: int) -> None:
        """`lengths` [rows] in tokens. The budget is raised to the longest row, so that no micro-batch is empty."""
        self.lengths = np.asarray(lengths, dtype=np.int64)
        assert len(self.lengths) > 0, "a corpus without rows cannot be packed"
        self.seed = seed
        self.total = int(self.lengths.sum())
        self.per_epoch = max(1, self.total // max(batch_tokens, int(self.lengths.max())))
        self._epoch = lru_cache(maxsize=2)(self._lay_out)

    def rows(self, m: int) -> Ints:
        """Row numbers of the corpus's m-th micro-batch, counted over all epochs."""
        epoch, index = divmod(m, self.per_epoch)
        order, starts, batches = self._epoch(epoch)
        batch = batches[index]
        return order[starts[batch] : starts[batch + 1]]

    def _lay_out(self, epoch: int) -> tuple[Ints, Ints, Ints]:
        n = len(self.lengths)
        order = permutation(n, mix_seed(self.seed, epoch, 0))
        window = np.arange(n) // WINDOW
        length = self.lengths[order]
        order = order[np.lexsort((np.where(window % 2, -length, length), window))]
        length = self.lengths[order]
        middle = np.cumsum(length) * 2 - length  # twice the position of a row's middle, to stay in integers
        batch = middle * self.per_epoch // (2 * self.total)
        starts = np.searchsorted(batch, np.arange(self.per_epoch + 1))
        return order, starts.astype(np.int64), permutation(self.per_epoch, mix_seed(self.seed, epoch, 1))

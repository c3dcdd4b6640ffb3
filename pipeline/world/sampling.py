"""Seeded random draws. A row depends only on (seed, corpus, split, row number)."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Generic, NamedTuple, TypeVar
from zlib import crc32

ItemT = TypeVar("ItemT")
UINT64_MASK = (1 << 64) - 1


class Pool(NamedTuple, Generic[ItemT]):
    """Items to draw from: `seen` in every split, `held_out` in validation and test only."""

    seen: tuple[ItemT, ...]
    held_out: tuple[ItemT, ...]


def is_held_out(word: str) -> bool:
    """Whether a name never occurs in training.

    This holds for a fifth of all words; it is the same in every pool and on every machine.
    """
    return crc32(word.lower().encode()) % 5 == 0


def split_names(words: Iterable[str]) -> Pool[str]:
    """Split these names into a pool; repeated names count once."""
    names = list(dict.fromkeys(words))
    return Pool(
        tuple(name for name in names if not is_held_out(name)),
        tuple(name for name in names if is_held_out(name)),
    )


def row_seed(*numbers: int) -> int:
    """Hash integers into one 64-bit seed (splitmix64's finalizer after each number)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & UINT64_MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & UINT64_MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & UINT64_MASK
        state ^= state >> 31
    return state


class RowRandom:
    """The random draws of one row.

    `random()` returns a float in [0, 1). `used_held_out` is whether the row has drawn an item that
    never occurs in training.
    """

    def __init__(self, seed: int, held_out_rate: float) -> None:
        # Python promises that Random.random() of an integer seed never changes; it promises
        # this of no other method of Random.
        self.random = Random(seed).random
        self.held_out_rate = held_out_rate
        self.used_held_out = False

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.random() < probability

    def choice(self, items: Sequence[ItemT]) -> ItemT:
        """Draw one item; all are equally likely."""
        return items[int(self.random() * len(items))]

    def draw(self, pool: Pool[ItemT]) -> ItemT:
        """Draw one item of a pool; a held-out item only in validation and test."""
        may_hold_out = bool(self.held_out_rate and pool.held_out)
        if may_hold_out and (not pool.seen or self.chance(self.held_out_rate)):
            self.used_held_out = True
            return self.choice(pool.held_out)
        return self.choice(pool.seen)

    def sample(self, items: Sequence[ItemT], count: int) -> list[ItemT]:
        """Draw `count` items without replacement, in random order."""
        remaining = list(items)
        return [remaining.pop(int(self.random() * len(remaining))) for _ in range(count)]

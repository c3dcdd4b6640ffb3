"""Seeded draws: every row has its own dice, so a row depends on (seed, corpus, split, row number) and on nothing else."""

from collections.abc import Iterable, Sequence
from random import Random
from typing import Generic, NamedTuple, TypeVar
from zlib import crc32

ItemT = TypeVar("ItemT")
MASK = (1 << 64) - 1


class Pool(NamedTuple, Generic[ItemT]):
    """What may be drawn: `seen` in every split, `held` in validation and test only."""

    seen: tuple[ItemT, ...]
    held: tuple[ItemT, ...]


def is_held(word: str) -> bool:
    """Whether a name is kept out of train: a fifth of all words, the same in every pool and on every machine."""
    return crc32(word.lower().encode()) % 5 == 0


def split_names(words: Iterable[str]) -> Pool[str]:
    """The pool of these names."""
    unique = list(dict.fromkeys(words))
    return Pool(tuple(w for w in unique if not is_held(w)), tuple(w for w in unique if is_held(w)))


def mix(*numbers: int) -> int:
    """One 64-bit number out of several (splitmix64's finalizer after each)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
        state ^= state >> 31
    return state


class Dice:
    """A row's draws. `novel` tells whether anything held out from train has been drawn."""

    def __init__(self, key: int, held_share: float) -> None:
        # Random.random() of an integer seed is the one sequence Python promises never to change.
        self.roll = Random(key).random
        self.held_share = held_share
        self.novel = False

    def chance(self, share: float) -> bool:
        """True in `share` of the cases."""
        return self.roll() < share

    def pick(self, items: Sequence[ItemT]) -> ItemT:
        """One of the items, each as likely."""
        return items[int(self.roll() * len(items))]

    def draw(self, pool: Pool[ItemT]) -> ItemT:
        """One item of a pool; a held one only in validation and test."""
        if self.held_share and pool.held and (not pool.seen or self.roll() < self.held_share):
            self.novel = True
            return self.pick(pool.held)
        return self.pick(pool.seen)

    def sample(self, items: Sequence[ItemT], count: int) -> list[ItemT]:
        """`count` different positions of `items`, in random order."""
        left = list(items)
        return [left.pop(int(self.roll() * len(left))) for _ in range(count)]

"""Seeds and permutations as pure functions: equal arguments give equal numbers, on any machine and in any order."""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
ROUNDS = 8  # of a Feistel network


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Steele et al. 2014's mixer: a bijection of 64-bit integers that looks random."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def derive_seed(*parts: int) -> int:
    """One 64-bit seed out of several integers; order matters."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = splitmix64(state ^ np.array([part % (1 << 64)], np.uint64))
    return int(state[0])


def permute(positions: Ints, n: int, seed: int) -> Ints:
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
    return permute(np.arange(n), n, seed)

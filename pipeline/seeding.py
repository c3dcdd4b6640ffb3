"""Seeds and permutations as pure functions: equal arguments give equal results on any machine."""

from enum import IntEnum
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Ints: TypeAlias = NDArray[np.int64]
FEISTEL_ROUNDS = 8


def splitmix64(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply SplitMix64 (Steele et al., 2014), a pseudorandom bijection of 64-bit integers."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


def derive_seed(*parts: int) -> int:
    """Hash several integers into one 64-bit seed; their order matters."""
    state = np.zeros(1, np.uint64)
    for part in parts:
        state = splitmix64(state ^ np.array([part % (1 << 64)], np.uint64))
    return int(state[0])


def torch_seed(*parts: int) -> int:
    """Hash several integers into a seed of torch, which is below 2**63."""
    return derive_seed(*parts) % (1 << 63)


class Stream(IntEnum):
    """The random values of a model; each kind has its own stream of the seed of the run.

    A new kind takes a new number, because kinds with the same number would have equal values.
    """

    HEADS = 2
    KEY_VALUES = 3
    PROJECTION_EMBEDDING = 4
    PROJECTION = 5
    TASK_FACTORS = 6
    LORA = 7
    RANDOM_BACKBONE = 8


def permute(positions: Ints, n: int, seed: int) -> Ints:
    """Return the elements at `positions` [k] of a permutation of range(n).

    The permutation depends on (n, seed) only. Time and memory grow with k, not with n. A Feistel
    network permutes the integers of an even number of bits; values of n or more pass through it
    again (cycle walking).
    """
    half = np.uint64(max(1, -(-(n - 1).bit_length() // 2)))
    mask = np.uint64((1 << int(half)) - 1)
    keys = splitmix64(np.arange(FEISTEL_ROUNDS, dtype=np.uint64) ^ np.uint64(seed))
    values = positions.astype(np.uint64)
    pending = np.arange(len(values))
    while len(pending):
        left, right = values[pending] >> half, values[pending] & mask
        for key in keys:
            left, right = right, left ^ (splitmix64(right ^ key) & mask)
        values[pending] = (left << half) | right
        pending = pending[values[pending] >= n]
    return values.astype(np.int64)


def permutation(n: int, seed: int) -> Ints:
    """Return the complete permutation of range(n)."""
    return permute(np.arange(n), n, seed)

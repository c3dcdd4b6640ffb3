"""Mixture rates: the share of each corpus in the micro-batches, and the number of steps."""

import math
from collections.abc import Iterable, Mapping

from pipeline.params import MixtureParams

RATE_BITS = 20
RATE_SCALE = 1 << RATE_BITS


def sampling_rates(
    sizes: Mapping[str, int], params: MixtureParams, num_micro_batches: int = RATE_SCALE
) -> dict[str, int]:
    """Sampling rate of each corpus: its share of the micro-batches (see `MixtureParams`).

    Rates are integers that sum to `RATE_SCALE`, rounded by the largest remainder. `sizes` counts
    training *examples* (not tokens or windows), as in T5's examples-proportional mixing with
    temperature (Raffel et al. 2020, section 3.5.2). Every corpus gets at least one of
    `num_micro_batches` micro-batches; small rates are raised for that. Raises ValueError if there
    are too many corpora for that, or if `shares` does not list exactly the corpora of `sizes`.
    """
    if params.shares and params.shares.keys() != sizes.keys():
        raise ValueError(
            f"shares: found {', '.join(params.shares)}; give one for each of {', '.join(sizes)}"
        )
    # The first 2^m elements of a van der Corput sequence are RATE_SCALE / 2^m apart.
    min_rate = RATE_SCALE >> (min(num_micro_batches, RATE_SCALE).bit_length() - 1)
    if min_rate * len(sizes) > RATE_SCALE:
        raise ValueError(
            f"{num_micro_batches} micro-batches are too few to give each of {len(sizes)} corpora "
            "at least one; train longer, or mix fewer corpora"
        )
    power = 0.0 if params.temperature == "equal" else 1 / params.temperature
    largest = min(max(sizes.values()), params.cap)  # a ratio to it does not overflow
    raw = {
        name: params.shares.get(name)
        or params.weights.get(name, 1.0) * (min(n, params.cap) / largest) ** power
        for name, n in sizes.items()
    }
    small: set[str] = set()
    while True:
        rest = RATE_SCALE - min_rate * len(small)
        total = sum(value for name, value in raw.items() if name not in small)
        exact = {name: value / total * rest for name, value in raw.items() if name not in small}
        if not (too_small := {name for name, value in exact.items() if value < min_rate}):
            break
        small |= too_small
    rates = {name: int(exact.get(name, min_rate)) for name in sizes}
    by_remainder = sorted(exact, key=lambda name: (int(exact[name]) - exact[name], name))
    for name in by_remainder[: RATE_SCALE - sum(rates.values())]:
        rates[name] += 1
    return rates


def steps_for(per_epoch: Iterable[int], micro_batches: int, epochs: float) -> int:
    """Number of steps, at least 1, that make `epochs` epochs over all corpora together.

    `per_epoch` holds the number of micro-batches per epoch of each corpus; a step has
    `micro_batches` of them.
    """
    return max(1, math.ceil(epochs * sum(per_epoch) / micro_batches))

"""Mixture rates: each corpus's share of the micro-batches, and how many steps make an epoch."""

import math
from collections.abc import Iterable, Mapping

from pipeline.params import MixtureParams

RATE_BITS = 20
RATE_SCALE = 1 << RATE_BITS


def sampling_rates(
    sizes: Mapping[str, int], params: MixtureParams, num_micro_batches: int = RATE_SCALE
) -> dict[str, int]:
    """Rate of each corpus: its share (see `MixtureParams`), as integers that sum to `RATE_SCALE`, rounded by largest remainder.

    `sizes` counts training *examples* (not tokens or windows), as in T5's examples-proportional mixing with temperature
    (Raffel et al. 2020, section 3.5.2). No rate is so small that the corpus would have none of `num_micro_batches` micro-batches. Raises
    ValueError where there are more corpora than that allows, or `shares` are not of these corpora.
    """
    if params.shares and params.shares.keys() != sizes.keys():
        raise ValueError(
            f"shares: found {', '.join(params.shares)}; give one for each of {', '.join(sizes)}"
        )
    least = RATE_SCALE >> (
        min(num_micro_batches, RATE_SCALE).bit_length() - 1
    )  # the first 2^m of a van der Corput sequence are RATE_SCALE / 2^m apart
    if least * len(sizes) > RATE_SCALE:
        raise ValueError(
            f"{len(sizes)} corpora cannot each have one of {num_micro_batches} micro-batches; train longer, or mix fewer"
        )
    power = 0.0 if params.temperature == "equal" else 1 / params.temperature
    raw = {
        name: params.shares.get(name) or params.weights.get(name, 1.0) * min(n, params.cap) ** power
        for name, n in sizes.items()
    }
    small: set[str] = set()
    while True:
        rest = RATE_SCALE - least * len(small)
        total = sum(value for name, value in raw.items() if name not in small)
        exact = {name: value / total * rest for name, value in raw.items() if name not in small}
        if not (less := {name for name, value in exact.items() if value < least}):
            break
        small |= less
    rates = {name: int(exact.get(name, least)) for name in sizes}
    by_remainder = sorted(exact, key=lambda name: (int(exact[name]) - exact[name], name))
    for name in by_remainder[: RATE_SCALE - sum(rates.values())]:
        rates[name] += 1
    return rates


def steps_for(per_epoch: Iterable[int], micro_batches: int, epochs: float) -> int:
    """How many steps of so many micro-batches make `epochs` of corpora that have `per_epoch` micro-batches each."""
    return max(1, math.ceil(epochs * sum(per_epoch) / micro_batches))

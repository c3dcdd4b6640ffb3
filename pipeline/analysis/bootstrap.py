"""How sure a figure is, by the bootstrap: units are drawn with replacement, and the figure is computed of each sample anew.

Percentile intervals are those of Efron and Tibshirani (An Introduction to the Bootstrap, 1993, chapter 13). Arms of a task are
compared on the same samples (paired: Koehn 2004; Berg-Kirkpatrick, Burkett and Klein 2012). Of one run, all of it is about which
units were tested; what another seed of the training would give, it cannot know. Several seeds' runs show that too.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.base import UnitCounts, apply_formula

SAMPLES = 2000
SEED = 7
LEVEL = 0.95
BLOCK = 1 << 22  # units drawn at once, of all samples: 32 MB of weights

Samples = dict[str, NDArray[np.float64]]
"""Figure -> what it is in each of R samples, in percent."""


class Difference(NamedTuple):
    """Of two arms in one figure, in points: as measured, its interval, and the two-sided p of there being none."""

    value: float
    low: float
    high: float
    p: float

    @property
    def real(self) -> bool:
        """Whether the interval leaves out 0."""
        return not self.low <= 0 <= self.high


def resampled(
    arms: Sequence[UnitCounts], samples: int = SAMPLES, seed: int = SEED
) -> list[Samples]:
    """Every figure of each arm in R samples of the units, the same samples for all. The arms' units must be equal."""
    assert len({one.units for one in arms}) == 1
    table = np.concatenate([np.stack(list(one.columns.values()), axis=1) for one in arms], axis=1)
    sums = np.concatenate([weights @ table for weights in _weights(len(table), samples, seed)])
    found, start = [], 0
    for one in arms:
        columns = dict(zip(one.columns, sums[:, start:].T, strict=False))
        found.append(
            {name: apply_formula(formula, columns) for name, formula in one.formulas.items()}
        )
        start += len(one.columns)
    return found


def _weights(units: int, samples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each unit is in each sample [R', N], in blocks of samples: multinomial, N draws each."""
    draw, block = np.random.default_rng(seed), max(1, BLOCK // max(units, 1))
    for first in range(0, samples, block):
        rows = min(block, samples - first)
        drawn = (
            draw.integers(0, units, (rows, units)) + units * np.arange(rows)[:, None]
            if units
            else np.empty(0, np.int64)
        )
        yield (
            np.bincount(drawn.ravel(), minlength=rows * units)
            .reshape(rows, units)
            .astype(np.float64)
        )


def over_seeds(runs: Sequence[Samples], arm: int = 0, seed: int = SEED) -> Samples:
    """Samples of the mean over an arm's runs with S seeds, of which each has its own samples of the same units.

    To the mean in each sample comes what other seeds might have made of it: Student's t with S - 1 degrees of freedom times
    the runs' standard error, drawn for each `arm` apart. So few seeds give wide intervals, as they must: 2, of 12.7 of them.
    """
    count = len(runs)
    if count == 1:
        return runs[0]
    values = {name: np.stack([one[name] for one in runs]) for name in runs[0]}
    luck = (
        np.random.default_rng([seed, arm]).standard_t(
            count - 1, next(iter(values.values())).shape[1]
        )
        / count**0.5
    )
    return {
        name: np.clip(each.mean(axis=0) + luck * each.std(axis=0, ddof=1), 0.0, 100.0)
        for name, each in values.items()
    }


def interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The middle 95 % of a figure's samples; None where all are equal: one unit, or all right, from which nothing follows."""
    low, high = (float(end) for end in np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return (low, high) if low < high else None


def difference(value: float, one: NDArray[np.float64], other: NDArray[np.float64]) -> Difference:
    """That of two arms, of which `one` and `other` are the same samples, and `value` what was measured on all units.

    p is twice the share of samples on the rarer side of 0, counting 0 to both, with one more sample on either (Davison and
    Hinkley 1997, section 4.2), so that it is never 0.
    """
    gaps = one - other
    low, high = (float(end) for end in np.quantile(gaps, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    rarer = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
    return Difference(value, low, high, min(1.0, 2 * (1 + rarer) / (1 + len(gaps))))

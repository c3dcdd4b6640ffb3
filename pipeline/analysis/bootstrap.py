"""Confidence intervals of metrics by the bootstrap: resample units, and recompute the metric.

Intervals are percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993,
chapter 13). The arms of a task are compared on the same samples (paired: Koehn 2004;
Berg-Kirkpatrick, Burkett and Klein 2012). With one run, an interval covers test-set sampling only.
With runs of several seeds it also covers seed variance.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.metrics.base import UnitCounts, apply_formula

NUM_SAMPLES = 2000
SEED = 7
LEVEL = 0.95
BLOCK_SIZE = 1 << 22  # units to draw at once, over all samples: 32 MB of weights

Samples = dict[str, NDArray[np.float64]]
"""Metric -> its value [R] in each of R samples, in percent."""


class Difference(NamedTuple):
    """The difference of two arms in a metric, in points.

    `value` is the measured difference, `low` and `high` its interval, and `p` the two-sided p-value
    of no difference.
    """

    value: float
    low: float
    high: float
    p: float

    @property
    def is_significant(self) -> bool:
        """Whether the interval excludes 0."""
        return not self.low <= 0 <= self.high


def resample(
    arms: Sequence[UnitCounts], num_samples: int = NUM_SAMPLES, seed: int = SEED
) -> list[Samples]:
    """All metrics of each arm in R samples of the units. All arms have the same samples.

    The arms must have the same units.
    """
    assert len({counts.units for counts in arms}) == 1
    columns_by_arm = [np.stack(list(counts.columns.values()), axis=1) for counts in arms]
    table = np.concatenate(columns_by_arm, axis=1)
    sums = np.concatenate([weights @ table for weights in _weights(len(table), num_samples, seed)])
    samples, start = [], 0
    for counts in arms:
        columns = dict(zip(counts.columns, sums[:, start:].T, strict=False))
        samples.append(
            {name: apply_formula(formula, columns) for name, formula in counts.formulas.items()}
        )
        start += len(counts.columns)
    return samples


def _weights(num_units: int, num_samples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """The count of each unit in each sample [R', N], in blocks of samples: multinomial, N draws."""
    generator, block = np.random.default_rng(seed), max(1, BLOCK_SIZE // max(num_units, 1))
    for first in range(0, num_samples, block):
        rows = min(block, num_samples - first)
        units = np.empty(0, np.int64)
        if num_units:
            offsets = num_units * np.arange(rows)[:, None]
            units = generator.integers(0, num_units, (rows, num_units)) + offsets
        counts = np.bincount(units.ravel(), minlength=rows * num_units)
        yield counts.reshape(rows, num_units).astype(np.float64)


def over_seeds(runs: Sequence[Samples], arm: int = 0, seed: int = SEED) -> Samples:
    """Samples of the mean over an arm's runs with S seeds.

    Each run has its own samples of the same units. The mean in each sample is shifted by seed
    variance: Student's t with S - 1 degrees of freedom times the standard error of the runs, drawn
    separately for each `arm`. Few seeds give wide intervals: with 2 seeds, 12.7 standard errors.
    """
    num_seeds = len(runs)
    if num_seeds == 1:
        return runs[0]
    values = {name: np.stack([run[name] for run in runs]) for name in runs[0]}
    num_samples = next(iter(values.values())).shape[1]
    generator = np.random.default_rng([seed, arm])
    shift = generator.standard_t(num_seeds - 1, num_samples) / num_seeds**0.5
    return {
        name: np.clip(array.mean(axis=0) + shift * array.std(axis=0, ddof=1), 0.0, 100.0)
        for name, array in values.items()
    }


def interval(values: NDArray[np.float64]) -> tuple[float, float] | None:
    """The central 95 % interval of a metric's samples.

    None if all samples are equal (one unit, or all right): they carry no information.
    """
    low, high = (float(end) for end in np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    return (low, high) if low < high else None


def score_interval(counts: UnitCounts, metric: str) -> tuple[float, float] | None:
    """The 95 % interval of a metric of one run; None also if it is not a function of the counts."""
    if metric not in counts.formulas:
        return None
    (samples,) = resample([counts])
    return interval(samples[metric])


def difference(
    value: float, samples: NDArray[np.float64], other_samples: NDArray[np.float64]
) -> Difference:
    """The difference of two arms. `value` is measured on all units; the samples are paired.

    p is twice the share of samples on the rarer side of 0, where 0 counts for both sides, with one
    more sample on each side (Davison and Hinkley 1997, section 4.2), so it is never 0.
    """
    gaps = samples - other_samples
    low, high = (float(end) for end in np.quantile(gaps, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]))
    num_rarer = min(int((gaps <= 0).sum()), int((gaps >= 0).sum()))
    return Difference(value, low, high, min(1.0, 2 * (1 + num_rarer) / (1 + len(gaps))))

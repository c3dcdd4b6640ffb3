"""What the metrics share: their result, precision, recall and F1 of counts, and the counts of each unit that add up to them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Formula = tuple[tuple[str, ...], ...]
"""How a figure comes out of summed counts, by their columns: of (part, whole) it is the ratio in percent, of (correct, predicted,
gold) it is F1; of several such it is the mean of those that have any predicted or gold."""


@dataclass(frozen=True)
class Metrics:
    """A task's scores on one split: `overall` by name, and `labels`: the same kind of figures for each label (none for QA).

    Ratios are percents from 0 to 100; counts are counts. `dataclasses.asdict` of it is what the metrics' JSON holds.
    """

    overall: dict[str, float]
    labels: dict[str, dict[str, float]]


@dataclass
class Counts:
    """How many things were predicted, are there in the gold reference, and are both."""

    correct: int = 0
    predicted: int = 0
    gold: int = 0

    def __add__(self, other: Self) -> "Counts":
        return Counts(
            self.correct + other.correct, self.predicted + other.predicted, self.gold + other.gold
        )

    def figures(self) -> dict[str, float]:
        """Precision, recall and F1 in percent, 0 where nothing was predicted or there is nothing to find; and the counts."""
        precision = 100.0 * self.correct / self.predicted if self.predicted else 0.0
        recall = 100.0 * self.correct / self.gold if self.gold else 0.0
        f1 = 2 * precision * recall / (precision + recall) if self.correct else 0.0
        return {
            "precision": precision,
            "recall": recall,
            "f1": f1,
            "correct": self.correct,
            "predicted": self.predicted,
            "gold": self.gold,
        }


def count(gold: Counter[str], predicted: Counter[str], correct: Counter[str]) -> dict[str, Counts]:
    """Counts per label, in alphabetical order, of every label that occurs in gold or predicted."""
    return {
        label: Counts(correct[label], predicted[label], gold[label])
        for label in sorted({*gold, *predicted})
    }


F1: Formula = (("correct", "predicted", "gold"),)
PRECISION: Formula = (("correct", "predicted"),)
RECALL: Formula = (("correct", "gold"),)


@dataclass(frozen=True)
class UnitCounts:
    """The counts of each unit, which may be resampled, as what it says depends on no other's: `columns` by name, [N] each.

    `figures` says how each figure of `Metrics.overall` that is a percentage comes out of their sums.
    """

    units: tuple[str, ...]
    columns: dict[str, NDArray[np.float64]]
    figures: dict[str, Formula]


def by_unit(
    units: Sequence[str], columns: Mapping[str, Sequence[float]], figures: Mapping[str, Formula]
) -> UnitCounts:
    """Add up the rows [M] of each unit; units are in the order in which they first come."""
    place = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    at = np.array([place[unit] for unit in units], np.int64)
    sums = {
        name: np.bincount(at, np.asarray(values, np.float64), len(place)).astype(np.float64)
        for name, values in columns.items()
    }
    return UnitCounts(tuple(place), sums, dict(figures))


def figure(formula: Formula, sums: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """A figure in percent of each of R samples, whose counts add up to `sums`, [R] each; 0 where there is nothing to count.

    It is the same arithmetic as that of `Counts.figures`, in the same order, so that of the whole the figures are equal.
    """
    total = known = np.zeros_like(sums[formula[0][0]])
    for names in formula:
        counts = [sums[name] for name in names]
        total = total + (_f1(*counts) if len(counts) == 3 else _ratio(*counts))
        known = known + (sum(counts[1:]) > np.zeros_like(known))
    return total / np.maximum(known, 1.0)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(100.0 * part, whole, out=np.zeros_like(whole), where=whole > 0)


def _f1(
    correct: NDArray[np.float64], predicted: NDArray[np.float64], gold: NDArray[np.float64]
) -> NDArray[np.float64]:
    precision, recall = _ratio(correct, predicted), _ratio(correct, gold)
    return np.divide(
        2 * precision * recall, precision + recall, out=np.zeros_like(precision), where=correct > 0
    )

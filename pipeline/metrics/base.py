"""The result type of all metrics, F1 of counts, and counts per unit that add up to the metrics."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

UNSPACED = re.compile(
    "[\u4e00-\u9fa5\u3040-\u30ff\u0e00-\u0e7f\u0e80-\u0eff\u1000-\u109f\u1780-\u17ff]"
)
"""A character of a script that is written without spaces: Chinese (the range of the scripts of CMRC
2018 and MLQA), Japanese, Thai, Lao, Burmese or Khmer."""

UNSPACED_OR_RARE = re.compile(
    f"{UNSPACED.pattern}|[\u3400-\u4dff\u9fa6-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
"""The same with all other Chinese characters; the official metrics do not know these."""

# Not in `knowledge`: candidates are ranked by code of all stages, and few stages run `knowledge`.
MAX_RANK = 100
"""The greatest rank of a candidate that is computed; a greater one costs time and says little."""

Formula = tuple[tuple[str, ...], ...]
"""How to compute a metric from summed counts, as tuples of column names.

(part, whole) is the ratio in percent, (correct, predicted, gold) is the F1 in percent. Several
tuples mean the average over those with any predicted or gold counts.
"""


@dataclass(frozen=True)
class Metrics:
    """The scores of a task on one split: `overall` by name, and `labels` by label and name.

    Ratios are percentages from 0 to 100; counts are counts. `labels` is empty for question
    answering. The metrics' JSON holds `dataclasses.asdict` of it.
    """

    overall: dict[str, float]
    labels: dict[str, dict[str, float]]


@dataclass
class Counts:
    """The numbers of predicted items, of gold items, and of correct items (predicted and gold)."""

    correct: int = 0
    predicted: int = 0
    gold: int = 0

    def __add__(self, other: Self) -> "Counts":
        return Counts(
            self.correct + other.correct, self.predicted + other.predicted, self.gold + other.gold
        )

    def scores(self) -> dict[str, float]:
        """Precision, recall and F1 in percent, and the counts. A ratio with denominator 0 is 0."""
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


def counts_by_label(
    gold: Counter[str], predicted: Counter[str], correct: Counter[str]
) -> dict[str, Counts]:
    """The counts of each label in `gold` or `predicted`, in alphabetical order."""
    return {
        label: Counts(correct[label], predicted[label], gold[label])
        for label in sorted({*gold, *predicted})
    }


F1: Formula = (("correct", "predicted", "gold"),)
PRECISION: Formula = (("correct", "predicted"),)
RECALL: Formula = (("correct", "gold"),)


@dataclass(frozen=True)
class UnitCounts:
    """The counts of each of N units: `columns` by name, [N] each.

    Units are independent of each other, so a bootstrap may resample them. `formulas` has, for each
    percentage in `Metrics.overall`, its formula from the sums of the columns.
    """

    units: tuple[str, ...]
    columns: dict[str, NDArray[np.float64]]
    formulas: dict[str, Formula]


def sum_by_unit(
    units: Sequence[str], columns: Mapping[str, Sequence[float]], formulas: Mapping[str, Formula]
) -> UnitCounts:
    """Add up the rows [M] of each unit. Units are in the order of their first rows."""
    index = {unit: number for number, unit in enumerate(dict.fromkeys(units))}
    unit_of_row = np.array([index[unit] for unit in units], np.int64)
    sums = {
        name: np.bincount(unit_of_row, np.asarray(values, np.float64), len(index)).astype(
            np.float64
        )
        for name, values in columns.items()
    }
    return UnitCounts(tuple(index), sums, dict(formulas))


def apply_formula(formula: Formula, sums: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64]:
    """The metric in percent of each of R samples; 0 if there is nothing to count.

    `sums` are the summed counts of the samples, [R] each. The arithmetic and its order are those of
    `Counts.scores`, so that both give equal results for the whole test set.
    """
    total = num_terms = np.zeros_like(sums[formula[0][0]])
    for names in formula:
        counts = [sums[name] for name in names]
        total = total + (_f1(*counts) if len(counts) == 3 else _ratio(*counts))
        num_terms = num_terms + (sum(counts[1:]) > np.zeros_like(num_terms))
    return total / np.maximum(num_terms, 1.0)


def _ratio(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.divide(100.0 * part, whole, out=np.zeros_like(whole), where=whole > 0)


def _f1(
    correct: NDArray[np.float64], predicted: NDArray[np.float64], gold: NDArray[np.float64]
) -> NDArray[np.float64]:
    precision, recall = _ratio(correct, predicted), _ratio(correct, gold)
    return np.divide(
        2 * precision * recall, precision + recall, out=np.zeros_like(precision), where=correct > 0
    )

"""What the metrics share: their result, and precision, recall and F1 of counts."""

from collections import Counter
from dataclasses import dataclass
from typing import Self


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
        return Counts(self.correct + other.correct, self.predicted + other.predicted, self.gold + other.gold)

    def figures(self) -> dict[str, float]:
        """Precision, recall and F1 in percent, 0 where nothing was predicted or there is nothing to find; and the counts."""
        precision = 100.0 * self.correct / self.predicted if self.predicted else 0.0
        recall = 100.0 * self.correct / self.gold if self.gold else 0.0
        f1 = 2 * precision * recall / (precision + recall) if self.correct else 0.0
        return {"precision": precision, "recall": recall, "f1": f1,
                "correct": self.correct, "predicted": self.predicted, "gold": self.gold}


def count(gold: Counter[str], predicted: Counter[str], correct: Counter[str]) -> dict[str, Counts]:
    """Counts per label, in alphabetical order, of every label that occurs in gold or predicted."""
    return {label: Counts(correct[label], predicted[label], gold[label]) for label in sorted({*gold, *predicted})}

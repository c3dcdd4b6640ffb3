"""Calibration: fit confidences to the accuracy of a model, and measure the calibration error.

A prediction consists of decisions: a tag for each word, or one answer, label or choice. The
confidence in a decision is the softmax probability of the option taken. One temperature for all
logits of a task is fitted on validation (Guo et al. 2017, On Calibration of Modern Neural
Networks). Division by a temperature changes no order, so it changes no prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.base.claims import TEMPERATURE, Floats, softmax

NUM_BINS = 15  # as in Guo et al.
MAX_TEMPERATURE = 20.0  # the search covers 1 / MAX_TEMPERATURE to MAX_TEMPERATURE


@dataclass(frozen=True)
class Decisions:
    """M decisions.

    `logits` [M, K] are those of the options (-inf: no such option), `taken` [M] is the option
    taken, and `right` [M] says whether it was right.
    """

    logits: Floats
    taken: NDArray[np.int64]
    right: NDArray[np.bool_]

    def confidence(self, temperature: float = 1.0) -> Floats:
        """The probability [M] of the options taken."""
        probabilities = softmax(self.logits, temperature)
        taken: Floats = probabilities[np.arange(len(self.taken)), self.taken]
        return taken


def gather(logits: Sequence[Floats], taken: Sequence[int], right: Sequence[bool]) -> Decisions:
    """Concatenate the decisions of several examples.

    `logits` has an array [M', K'] for each example. K' may differ.
    """
    num_options = max((array.shape[1] for array in logits), default=1)
    table = np.full((len(taken), num_options), -np.inf)
    row = 0
    for array in logits:
        table[row : row + len(array), : array.shape[1]] = array
        row += len(array)
    assert row == len(taken) == len(right)
    return Decisions(table, np.asarray(taken, np.int64), np.asarray(right, np.bool_))


def top_two(decisions: Decisions) -> Decisions:
    """The decisions between the option taken and the next best option only.

    Their confidence is a logistic function of the margin.
    """
    rows, others = np.arange(len(decisions.taken)), decisions.logits.copy()
    others[rows, decisions.taken] = -np.inf
    pairs = np.stack(
        [decisions.logits[rows, decisions.taken], others.max(axis=1, initial=-np.inf)], axis=1
    )
    return Decisions(pairs, np.zeros_like(decisions.taken), decisions.right)


def temperature(decisions: Decisions) -> dict[str, float]:
    """The threshold `TEMPERATURE` that minimizes the log loss of the confidences.

    Empty if all decisions are right, or all are wrong. The loss is that of the confidence in the
    option taken, right or wrong, because users see this confidence. Guo et al. use the right class,
    but a list of the best answers may not contain it. Pass validation decisions, never test
    decisions.
    """
    if decisions.right.all() or not decisions.right.any():
        return {}
    low, high = -np.log(MAX_TEMPERATURE), np.log(MAX_TEMPERATURE)
    best = 0.0
    for _ in range(3):  # Each round searches a tenth of the previous range.
        candidates = np.linspace(low, high, 41)
        losses = [_log_loss(decisions, float(np.exp(candidate))) for candidate in candidates]
        best = float(candidates[int(np.argmin(losses))])
        low, high = best - (high - low) / 20, best + (high - low) / 20
    return {TEMPERATURE: float(np.exp(best))}


def _log_loss(decisions: Decisions, temperature: float) -> float:
    confidence = np.clip(decisions.confidence(temperature), 1e-12, 1 - 1e-12)
    return float(-np.log(np.where(decisions.right, confidence, 1 - confidence)).mean())


class Bin(NamedTuple):
    """A bin of confidences: their mean, the share of right decisions, and their number."""

    confidence: float
    right: float
    size: int


def bins(confidence: Floats, right: NDArray[np.bool_], num_bins: int = NUM_BINS) -> list[Bin]:
    """The non-empty bins of equal width, in ascending order.

    A bin includes its upper edge, as in Guo et al.
    """
    numbers = np.clip(np.ceil(confidence * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    members = (numbers == number for number in range(num_bins))
    return [
        Bin(float(confidence[inside].mean()), float(right[inside].mean()), int(inside.sum()))
        for inside in members
        if inside.any()
    ]


def calibration_error(confidence: Floats, right: NDArray[np.bool_]) -> float | None:
    """The expected calibration error (Guo et al., eq. 3).

    It is the mean absolute difference between a bin's share of right decisions and its mean
    confidence, weighted by the bins' sizes. None if there are no decisions.
    """
    if not len(right):
        return None
    total = sum(item.size * abs(item.right - item.confidence) for item in bins(confidence, right))
    return total / len(right)


def brier(confidence: Floats, right: NDArray[np.bool_]) -> float | None:
    """The mean squared difference between confidence and 1 (right) or 0 (wrong); Brier 1950.

    A constant confidence of 0.5 gives 0.25. None if there are no decisions.
    """
    return float(((confidence - right) ** 2).mean()) if len(right) else None


def risk_coverage(confidence: Floats, right: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Coverage and risk [C] (Geifman and El-Yaniv 2017).

    The risk at a coverage is the share of wrong decisions among the most confident ones. Decisions
    of equal confidence enter together, because no threshold separates them.
    """
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.diff(confidence[order], append=-np.inf))
    num_wrong = np.cumsum(~right[order])
    return (ends + 1) / max(len(order), 1), num_wrong[ends] / (ends + 1)


def risk_area(confidence: Floats, right: NDArray[np.bool_]) -> float | None:
    """The area under the risk-coverage curve (AURC), as a step function; lower is better.

    None if there are no decisions.
    """
    coverage, risk = risk_coverage(confidence, right)
    return float((np.diff(coverage, prepend=0.0) * risk).sum()) if len(right) else None

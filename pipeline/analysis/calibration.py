"""How sure a model is of what it says, made to agree with how often it is right, and how far it does.

A prediction is made of decisions: a tag of each word, or one answer, label or choice. A decision's confidence is the softmax
probability of the option that was taken. One temperature for all logits of a task (Guo et al. 2017, On Calibration of Modern
Neural Networks) is fitted on validation; dividing by it changes no order, and so no prediction.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.tasks.base.claims import Floats, softmax

BINS = 15  # as Guo et al. have it
WIDEST = 20.0  # temperatures are looked for between one over this and this


@dataclass(frozen=True)
class Decisions:
    """M decisions: the logits [M, K] of their options (-inf: no such option), the option taken [M], whether it was right [M]."""

    logits: Floats
    taken: NDArray[np.int64]
    right: NDArray[np.bool_]

    def confidence(self, temperature: float = 1.0) -> Floats:
        """The probability [M] of the options taken."""
        found: Floats = softmax(self.logits, temperature)[np.arange(len(self.taken)), self.taken]
        return found


def gather(logits: Sequence[Floats], taken: Sequence[int], right: Sequence[bool]) -> Decisions:
    """Decisions out of the logits [M', K'] of several examples, which may have different numbers of options."""
    table = np.full((len(taken), max((one.shape[1] for one in logits), default=1)), -np.inf)
    row = 0
    for one in logits:
        table[row : row + len(one), : one.shape[1]] = one
        row += len(one)
    assert row == len(taken) == len(right)
    return Decisions(table, np.asarray(taken, np.int64), np.asarray(right, np.bool_))


def top_two(decisions: Decisions) -> Decisions:
    """The decisions as if between what was taken and the next best alone: their confidence is a logistic of the margin."""
    rows, rest = np.arange(len(decisions.taken)), decisions.logits.copy()
    rest[rows, decisions.taken] = -np.inf
    pairs = np.stack(
        [decisions.logits[rows, decisions.taken], rest.max(axis=1, initial=-np.inf)], axis=1
    )
    return Decisions(pairs, np.zeros_like(decisions.taken), decisions.right)


def temperature(decisions: Decisions) -> dict[str, float]:
    """The threshold "temperature" under which confidences have the least log loss; none where all decisions are right, or wrong.

    The loss is that of the confidence in what was decided, whether right or not, as it is what is told: Guo et al. take that of
    the right class, which a list of the best answers may not even hold. Give *validation* decisions, never those of test.
    """
    if decisions.right.all() or not decisions.right.any():
        return {}
    low, high = -np.log(WIDEST), np.log(WIDEST)
    best = 0.0
    for _ in range(3):  # each time in a tenth of the stretch
        tried = np.linspace(low, high, 41)
        best = float(
            tried[int(np.argmin([_log_loss(decisions, float(np.exp(one))) for one in tried]))]
        )
        low, high = best - (high - low) / 20, best + (high - low) / 20
    return {"temperature": float(np.exp(best))}


def _log_loss(decisions: Decisions, temperature: float) -> float:
    sure = np.clip(decisions.confidence(temperature), 1e-12, 1 - 1e-12)
    return float(-np.log(np.where(decisions.right, sure, 1 - sure)).mean())


class Bin(NamedTuple):
    """The confidences in one of equally wide bins: their mean, how many of them are right (a share), and how many there are."""

    confidence: float
    right: float
    size: int


def bins(confidence: Floats, right: NDArray[np.bool_], number: int = BINS) -> list[Bin]:
    """Those that hold any, from the least sure on. A bin has its upper edge, as in Guo et al."""
    at = np.clip(np.ceil(confidence * number).astype(np.int64) - 1, 0, number - 1)
    return [
        Bin(
            float(confidence[at == one].mean()),
            float(right[at == one].mean()),
            int((at == one).sum()),
        )
        for one in range(number)
        if (at == one).any()
    ]


def calibration_error(confidence: Floats, right: NDArray[np.bool_]) -> float | None:
    """The expected calibration error: by how much, on average, a bin's share of right ones differs from its mean confidence."""
    found = bins(confidence, right)
    return (
        sum(one.size * abs(one.right - one.confidence) for one in found) / len(right)
        if len(right)
        else None
    )


def brier(confidence: Floats, right: NDArray[np.bool_]) -> float | None:
    """The mean square of confidence minus 1 where right, 0 where wrong (Brier 1950); 0.25 is that of a coin."""
    return float(((confidence - right) ** 2).mean()) if len(right) else None


def risk_coverage(confidence: Floats, right: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Coverage and risk [C]: of the most confident share, how many are wrong (Geifman and El-Yaniv 2017).

    Equally confident ones come together, as no threshold could part them.
    """
    order = np.argsort(-confidence, kind="stable")
    ends = np.flatnonzero(np.diff(confidence[order], append=-np.inf))
    wrong = np.cumsum(~right[order])
    return (ends + 1) / max(len(order), 1), wrong[ends] / (ends + 1)


def risk_area(confidence: Floats, right: NDArray[np.bool_]) -> float | None:
    """The area under the risk-coverage curve (AURC), a step for each coverage: the less the better."""
    coverage, risk = risk_coverage(confidence, right)
    return float((np.diff(coverage, prepend=0.0) * risk).sum()) if len(right) else None

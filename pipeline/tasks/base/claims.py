"""Claims of a prediction, and the softmax of the confidences in them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
CharacterSpans = tuple[tuple[int, int], ...]
"""The characters [start, end) of each piece of a span."""
TEMPERATURE = "temperature"
"""The threshold that divides the logits of a confidence; it is fitted on validation."""


class Claim(NamedTuple):
    """A claim of a prediction, such as a span or an answer, compared with the annotation.

    `decisions` are the indices of the decisions that make the claim. A missed annotation is a claim
    without decisions, and its `predicted` is "". `gold_label` and `predicted_label` are the row and
    the column in a confusion table. `gold` and `predicted` are texts for display. `gold_spans` and
    `predicted_spans` are their places in the text of the input `HasConfidence.claim_input`.
    """

    decisions: tuple[int, ...]
    gold_label: str
    predicted_label: str
    gold: str
    predicted: str
    right: bool
    gold_spans: CharacterSpans = ()
    predicted_spans: CharacterSpans = ()


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """The softmax of logits [..., K] / temperature along the last axis."""
    maxima = logits.max(axis=-1, keepdims=True, initial=-np.inf)
    exponentials = np.exp((logits - maxima) / temperature)
    probabilities: Floats = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probabilities


def temperature_of(thresholds: Mapping[str, float]) -> float:
    """The fitted temperature; 1 if none was fitted."""
    return thresholds.get(TEMPERATURE, 1.0)

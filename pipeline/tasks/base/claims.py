"""What a prediction claims, decision by decision, and the softmax that its confidences come from."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Claim(NamedTuple):
    """What a prediction says by some of its decisions, or leaves out (no decision, `predicted` is ""); and the annotation.

    Labels are those of a confusion table; `gold` and `predicted` are words for a person.
    """

    decisions: tuple[int, ...]
    gold_label: str
    predicted_label: str
    gold: str
    predicted: str
    right: bool


def softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """Along the last axis."""
    chances = np.exp((logits - logits.max(axis=-1, keepdims=True, initial=-np.inf)) / temperature)
    found: Floats = chances / chances.sum(axis=-1, keepdims=True)
    return found

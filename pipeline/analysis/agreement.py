"""Measures of confidence other than the probability of a prediction: margin and agreement.

Agreement compares the answer to an example with the answers to paraphrases of it. Confidence from
invariance is due to Bahat and Shakhnarovich (2018, Confidence from Invariance to Image
Transformations). It costs one forward pass per variant, so it is measured on a sample.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.analysis.calibration import Decisions, temperature, top_two
from pipeline.analysis.confidence_tables import CALIBRATED, RAW
from pipeline.analysis.paraphrases import variants
from pipeline.evaluation.evaluate import EvalSet
from pipeline.seeding import Ints, permute
from pipeline.tasks.base.capabilities import AnswersQuestions
from pipeline.tasks.base.claims import Floats, temperature_of
from pipeline.tasks.base.task import in_order

SAMPLE_SIZE = 200  # examples
SEED = 7  # fixed, not the seed of the run: all arms are compared on the same examples
Predict = Callable[[Sequence[Any]], Any]
"""Examples -> their final predictions, as `Task.predictions` returns them."""


def sample(split: EvalSet) -> Ints:
    """The sorted indices [N] of `SAMPLE_SIZE` examples, or of all if there are fewer."""
    count = len(split.examples)
    return np.sort(permute(np.arange(min(SAMPLE_SIZE, count)), count, SEED))


def agreement(split: EvalSet, predictions: Any, indices: Ints, predict: Predict) -> Floats | None:
    """The agreement [N] of the examples at `indices` [N].

    It is the mean F1, by the rules of the metric, between the answer to an example and the answers
    to its variants; 1 without variants. Returns None if no example has a variant, or if the task
    does not answer questions.
    """
    if not isinstance(split.task, AnswersQuestions):
        return None
    predicted = list(in_order(split.examples, predictions))
    pairs = [
        (position, variant)
        for position, number in enumerate(indices)
        for variant in variants(split.task, split.examples[number], predicted[number])
    ]
    if not pairs:
        return None
    positions = np.array([position for position, _ in pairs])
    paraphrases = [variant for _, variant in pairs]
    other_answers = in_order(paraphrases, predict(paraphrases))
    scores = [
        split.task.similarity(predicted[indices[position]], other)
        for position, other in zip(positions, other_answers, strict=True)
    ]
    counts = np.bincount(positions, minlength=len(indices))
    sums = np.bincount(positions, scores, len(indices))
    means: Floats = np.where(counts > 0, sums / np.maximum(counts, 1), 1.0)
    return means


def confidence_measures(
    validation: Decisions, test: Decisions, indices: Ints, agreements: Floats
) -> pd.DataFrame:
    """The confidence in the decisions at `indices` [N]: one column per measure, and `right`.

    `agreements` is [N], as `agreement` returns it. Each example has one decision. The temperatures
    of the probability and the margin are fitted separately, on the validation set.
    """
    assert len(indices) == len(agreements)
    by_margin = top_two(test).confidence(temperature_of(temperature(top_two(validation))))
    probabilities = {
        RAW: test.confidence()[indices],
        CALIBRATED: test.confidence(temperature_of(temperature(validation)))[indices],
    }
    return pd.DataFrame(
        {
            **probabilities,
            "margin": by_margin[indices],
            "agreement": agreements,
            "right": test.right[indices],
        }
    )

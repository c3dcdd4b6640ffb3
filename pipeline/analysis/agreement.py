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
from pipeline.analysis.confidence_tables import CALIBRATED, RAW, in_order
from pipeline.analysis.paraphrases import variants
from pipeline.evaluation.evaluate import EvalSet
from pipeline.metrics import answers
from pipeline.seeding import Ints, permute
from pipeline.tasks.base.capabilities import AnswersQuestions
from pipeline.tasks.base.claims import Floats

SAMPLE_SIZE = 200  # examples
SEED = 7  # fixed, not the seed of the run: all arms are compared on the same examples
Answer = Callable[[Sequence[Any]], Any]
"""Examples -> their final predictions, as `Task.predictions` returns them."""


def sample(split: EvalSet) -> Ints:
    """The sorted indices [N] of `SAMPLE_SIZE` examples, or of all if there are fewer."""
    count = len(split.examples)
    return np.sort(permute(np.arange(min(SAMPLE_SIZE, count)), count, SEED))


def agreement(split: EvalSet, predictions: Any, chosen: Ints, answer: Answer) -> Floats | None:
    """The agreement [N] of each chosen example: the mean word F1 of its answer and its variants'.

    The agreement is 1 for an example without variants. Returns None if no example has a variant or
    if the task does not answer questions.
    """
    if not isinstance(split.task, AnswersQuestions):
        return None
    predicted = list(in_order(split.examples, predictions))
    pairs = [
        (place, variant)
        for place, number in enumerate(chosen)
        for variant in variants(split.task, split.examples[number], predicted[number])
    ]
    if not pairs:
        return None
    places = np.array([place for place, _ in pairs])
    paraphrases = [variant for _, variant in pairs]
    scores = [
        answers.f1(predicted[chosen[place]], other)
        for place, other in zip(places, in_order(paraphrases, answer(paraphrases)), strict=True)
    ]
    counts = np.bincount(places, minlength=len(chosen))
    means: Floats = np.where(
        counts > 0, np.bincount(places, scores, len(chosen)) / np.maximum(counts, 1), 1.0
    )
    return means


def confidence_measures(
    validation: Decisions, test: Decisions, chosen: Ints, agreements: Floats
) -> pd.DataFrame:
    """The confidence in the decision of each chosen example: one column per measure, and `right`.

    `agreements` is [N], as `agreement` returns it. Each example has one decision. The temperatures
    of the probability and the margin are fitted separately, on the validation set.
    """
    assert len(chosen) == len(agreements)
    by_margin = top_two(test).confidence(_temperature(top_two(validation)))
    probabilities = {
        RAW: test.confidence()[chosen],
        CALIBRATED: test.confidence(_temperature(validation))[chosen],
    }
    return pd.DataFrame(
        {
            **probabilities,
            "margin": by_margin[chosen],
            "agreement": agreements,
            "right": test.right[chosen],
        }
    )


def _temperature(decisions: Decisions) -> float:
    return temperature(decisions).get("temperature", 1.0)

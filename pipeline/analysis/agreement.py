"""How sure a model is by other measures than the probability of what it says: its margin, and
whether it says the same of its input in other words.

That an answer which changes with what should not matter is not to be trusted is Bahat and
Shakhnarovich's (2018, Confidence from Invariance to Image Transformations). It costs a forward pass
for each variant, and so is measured on a sample.
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

MOST = 200  # examples
SEED = 7  # not the run's: all arms are compared on the same
Answer = Callable[[Sequence[Any]], Any]
"""What a model finally predicts for some examples: `Task.predictions`."""


def sample(split: EvalSet) -> Ints:
    """The numbers [N] of `MOST` examples, or of all, in order."""
    count = len(split.examples)
    return np.sort(permute(np.arange(min(MOST, count)), count, SEED))


def agreement(split: EvalSet, predictions: Any, chosen: Ints, answer: Answer) -> Floats | None:
    """By how much the answers to variants of each chosen example agree with its own: the mean F1 of
    words [N].

    It is 1 for an example without variants. Returns None if no example has a variant, or if the
    task answers no questions.
    """
    if not isinstance(split.task, AnswersQuestions):
        return None
    own = list(in_order(split.examples, predictions))
    pairs = [
        (place, variant)
        for place, number in enumerate(chosen)
        for variant in variants(split.task, split.examples[number], own[number])
    ]
    if not pairs:
        return None
    places, tried = np.array([place for place, _ in pairs]), [variant for _, variant in pairs]
    same = [
        answers.f1(own[chosen[place]], other)
        for place, other in zip(places, in_order(tried, answer(tried)), strict=True)
    ]
    counts = np.bincount(places, minlength=len(chosen))
    found: Floats = np.where(
        counts > 0, np.bincount(places, same, len(chosen)) / np.maximum(counts, 1), 1.0
    )
    return found


def confidence_measures(
    validation: Decisions, test: Decisions, chosen: Ints, agreed: Floats
) -> pd.DataFrame:
    """The confidence in each chosen example's one decision, a column a measure, and `right`.

    Probability and margin have each the temperature that suits it on validation.
    """
    assert len(chosen) == len(agreed)
    by_margin = top_two(test).confidence(_temperature(top_two(validation)))
    probabilities = {
        RAW: test.confidence()[chosen],
        CALIBRATED: test.confidence(_temperature(validation))[chosen],
    }
    return pd.DataFrame(
        {
            **probabilities,
            "margin": by_margin[chosen],
            "agreement": agreed,
            "right": test.right[chosen],
        }
    )


def _temperature(decisions: Decisions) -> float:
    return temperature(decisions).get("temperature", 1.0)

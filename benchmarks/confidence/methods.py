"""Methods that give the confidence in an answer. Each is fitted on validation answers.

Boosted trees and logistic regression are those of scikit-learn; nothing is written to disk.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from sklearn.ensemble import GradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.confidence.answers import FEATURES, Answers
from pipeline.analysis.calibration import temperature, top_two
from pipeline.errors import UserError
from pipeline.tasks.base.claims import Floats, temperature_of

MIN_ROWS = 50
NUM_FOLDS = 5
Confidence = Callable[[Answers], Floats]
"""Answers to N questions -> the confidence [N] in the best of each."""
Method = Callable[[Answers, int], Confidence]
"""Validation answers and a seed -> the fitted method."""


def base_rate(validation: Answers, seed: int) -> Confidence:
    """The share of right validation answers, for every answer."""
    rate = float(validation.decisions.right.mean())
    return lambda answers: np.full(len(answers), rate)


def probability(validation: Answers, seed: int) -> Confidence:
    """The softmax over the candidates; not fitted."""
    return lambda answers: answers.decisions.confidence()


def scaled_probability(validation: Answers, seed: int) -> Confidence:
    """The softmax at the temperature with the least log loss."""
    fitted = temperature_of(temperature(validation.decisions))
    return lambda answers: answers.decisions.confidence(fitted)


def margin(validation: Answers, seed: int) -> Confidence:
    """The softmax over the best two candidates, at a temperature of its own."""
    fitted = temperature_of(temperature(top_two(validation.decisions)))
    return lambda answers: top_two(answers.decisions).confidence(fitted)


def _classifier(
    make: Callable[[int], Any], names: Sequence[str], validation: Answers, seed: int
) -> Confidence:
    """A classifier of right and wrong answers by the features `names`.

    The base rate if all validation answers are right, or all are wrong. Raises UserError if there
    are fewer than MIN_ROWS.
    """
    if len(validation) < MIN_ROWS:
        raise UserError(
            f"{len(validation)} validation questions are too few to fit confidence on features; "
            f"take at least {MIN_ROWS}"
        )
    right = validation.decisions.right
    if right.all() or not right.any():
        return base_rate(validation, seed)
    columns = [FEATURES.index(name) for name in names]
    fitted = make(seed).fit(validation.features[:, columns], right)
    return lambda answers: fitted.predict_proba(answers.features[:, columns])[:, 1]


def _boosting(seed: int) -> Any:
    """Small trees: there are only hundreds of validation questions."""
    return GradientBoostingClassifier(
        n_estimators=50, learning_rate=0.1, max_depth=2, min_samples_leaf=20, random_state=seed
    )


def _logistic(seed: int) -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(random_state=seed))


boosting: Method = partial(_classifier, _boosting, FEATURES[:-1])
boosting_with_agreement: Method = partial(_classifier, _boosting, FEATURES)
logistic: Method = partial(_classifier, _logistic, FEATURES[:-1])
logistic_with_agreement: Method = partial(_classifier, _logistic, FEATURES)
agreement: Method = partial(_classifier, _logistic, ("agreement",))


def cross_validated(method: Method, validation: Answers, seed: int) -> Floats:
    """The confidence [N] in each validation answer by the method fitted on the other folds.

    A method is selected by it, so that its fit to the validation set does not count.
    """
    folds = np.random.default_rng(seed).permutation(len(validation)) % NUM_FOLDS
    confidence = np.empty(len(validation))
    for fold in range(NUM_FOLDS):
        fitted = method(validation.take(folds != fold), seed)
        confidence[folds == fold] = fitted(validation.take(folds == fold))
    return confidence

"""Exact match and F1 of answers to questions, as the official SQuAD 1.1 and 2.0 scripts do."""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from typing import NamedTuple

from pipeline.metrics.base import Formula, Metrics, UnitCounts, sum_by_unit

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

References = Mapping[str, Sequence[str]]
"""Question id -> its accepted answers; an empty list if the context does not answer it."""


class Threshold(NamedTuple):
    """The threshold of the null score, and the resulting score in percent.

    A question is predicted unanswerable if its null score is greater than `value`.
    """

    value: float
    score: float


def normalize(text: str) -> str:
    """Lowercase; remove ASCII punctuation and English articles; collapse white space."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, prediction: str) -> float:
    """1.0 if the normalized texts are equal, else 0.0."""
    return float(normalize(answer) == normalize(prediction))


def f1(answer: str, prediction: str) -> float:
    """The F1 of the normalized words, from 0 to 1.

    If either text has no words, the F1 is 1 if both have none, else 0.
    """
    gold, guess = normalize(answer).split(), normalize(prediction).split()
    if not gold or not guess:
        return float(gold == guess)
    same = sum((Counter(gold) & Counter(guess)).values())
    if not same:
        return 0.0
    precision, recall = same / len(guess), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def score(references: References, predictions: Mapping[str, str]) -> Metrics:
    """`exact_match` and `f1` in percent.

    If any question is unanswerable (SQuAD 2.0), the same metrics are added for the answerable
    questions (HasAns_) and the unanswerable ones (NoAns_). The prediction "" means "no answer". A
    question without a prediction scores 0, as in the 1.1 script; the 2.0 script skips it.
    """
    exact, word_f1 = (_scores(references, predictions, metric) for metric in (exact_match, f1))
    overall = _mean_scores("", list(references), exact, word_f1)
    unanswerable = [id for id, answers in references.items() if not _accepted(answers)]
    if unanswerable:
        answerable = [id for id, answers in references.items() if _accepted(answers)]
        overall |= _mean_scores("HasAns_", answerable, exact, word_f1)
        overall |= _mean_scores("NoAns_", unanswerable, exact, word_f1)
    return Metrics(overall, {})


def counts(references: References, predictions: Mapping[str, str]) -> UnitCounts:
    """The sums behind `score`, by question."""
    scores = {
        "exact_match": _scores(references, predictions, exact_match),
        "f1": _scores(references, predictions, f1),
    }
    answerable = {id: bool(_accepted(answers)) for id, answers in references.items()}
    subsets: dict[str, Container[str]] = {"": answerable}
    if not all(answerable.values()):
        subsets["HasAns_"] = {id for id, has_answer in answerable.items() if has_answer}
        subsets["NoAns_"] = {id for id, has_answer in answerable.items() if not has_answer}
    columns, formulas = dict[str, list[float]](), dict[str, Formula]()
    for prefix, subset in subsets.items():
        columns[f"{prefix}total"] = [float(id in subset) for id in references]
        for name, values in scores.items():
            columns[prefix + name] = [value * (id in subset) for id, value in values.items()]
            formulas[prefix + name] = ((prefix + name, f"{prefix}total"),)
    return sum_by_unit(list(references), columns, formulas)


def best_threshold(
    references: References,
    predictions: Mapping[str, str],
    null_scores: Mapping[str, float],
    metric: Callable[[str, str], float] = f1,
) -> Threshold:
    """The threshold of the null score that maximizes `metric`. Pass validation, never test data.

    `predictions` are the best answers other than "no answer"; a greater null score means that "no
    answer" is likelier. The threshold is one of the null scores, or just below the smallest of them
    ("never answer"). Of several best thresholds, it is the lowest. Unlike in the official script,
    questions with equal null scores are answered or refused together, because no threshold can
    separate them.
    """
    scores = _scores(references, predictions, metric)
    order = sorted(references, key=lambda id: null_scores[id])
    total = best = float(sum(not _accepted(references[id]) for id in order))  # no question answered
    value = math.nextafter(null_scores[order[0]], -math.inf) if order else 0.0
    for position, id in enumerate(order):
        total += scores[id] - (not _accepted(references[id]))
        last = position + 1 == len(order) or null_scores[order[position + 1]] > null_scores[id]
        if last and total > best:
            best, value = total, null_scores[id]
    return Threshold(value, 100.0 * best / len(order) if order else 0.0)


def _accepted(answers: Sequence[str]) -> list[str]:
    """The answers that are not empty after normalization; if none, the question is unanswerable.

    The 2.0 script does the same.
    """
    return [answer for answer in answers if normalize(answer)]


def _scores(
    references: References, predictions: Mapping[str, str], metric: Callable[[str, str], float]
) -> dict[str, float]:
    """For each question the best `metric` over its accepted answers."""
    return {
        id: max(metric(answer, predictions[id]) for answer in _accepted(answers) or [""])
        if id in predictions
        else 0.0
        for id, answers in references.items()
    }


def _mean_scores(
    prefix: str, ids: Sequence[str], exact: Mapping[str, float], word_f1: Mapping[str, float]
) -> dict[str, float]:
    size = max(len(ids), 1)
    return {
        f"{prefix}exact_match": 100.0 * sum(exact[id] for id in ids) / size,
        f"{prefix}f1": 100.0 * sum(word_f1[id] for id in ids) / size,
        f"{prefix}total": len(ids),
    }

"""Exact match and F1 of answers to questions, as the official SQuAD 1.1 and 2.0 scripts compute them."""

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from typing import NamedTuple

from pipeline.metrics.base import Formula, Metrics, UnitCounts, by_unit

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)

References = Mapping[str, Sequence[str]]
"""Question id -> its accepted answers; none if the text does not answer it."""


class Threshold(NamedTuple):
    """A question is predicted unanswerable when its null score is greater than `value`; that scores `score` percent."""

    value: float
    score: float


def normalize(text: str) -> str:
    """Lower case, without ASCII punctuation and English articles, single spaces."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, prediction: str) -> float:
    """1.0 if both are the same once normalized, else 0.0."""
    return float(normalize(answer) == normalize(prediction))


def f1(answer: str, prediction: str) -> float:
    """The F1 of normalized words, from 0 to 1; where one of the two has none, 1 if neither has."""
    gold, guess = normalize(answer).split(), normalize(prediction).split()
    if not gold or not guess:
        return float(gold == guess)
    same = sum((Counter(gold) & Counter(guess)).values())
    if not same:
        return 0.0
    precision, recall = same / len(guess), same / len(gold)
    return 2 * precision * recall / (precision + recall)


def score(references: References, predictions: Mapping[str, str]) -> Metrics:
    """`exact_match` and `f1` in percent, with HasAns_ and NoAns_ parts where some question is unanswerable (SQuAD 2.0).

    "" predicts that there is no answer. A question without a prediction scores 0, as in the 1.1 script (2.0 leaves it out).
    """
    exact, words = (_scores(references, predictions, metric) for metric in (exact_match, f1))
    overall = _part("", list(references), exact, words)
    unanswerable = [id for id, answers in references.items() if not _accepted(answers)]
    if unanswerable:
        answerable = [id for id, answers in references.items() if _accepted(answers)]
        overall |= _part("HasAns_", answerable, exact, words) | _part(
            "NoAns_", unanswerable, exact, words
        )
    return Metrics(overall, {})


def counts(references: References, predictions: Mapping[str, str]) -> UnitCounts:
    """What `score` adds up, by question."""
    scores = {
        "exact_match": _scores(references, predictions, exact_match),
        "f1": _scores(references, predictions, f1),
    }
    answerable = {id: bool(_accepted(answers)) for id, answers in references.items()}
    columns, figures = dict[str, list[float]](), dict[str, Formula]()
    parts: dict[str, Container[str]] = {
        "": answerable,
        "HasAns_": {id for id, has in answerable.items() if has},
        "NoAns_": {id for id, has in answerable.items() if not has},
    }
    for prefix, part in parts.items() if not all(answerable.values()) else [("", answerable)]:
        columns[f"{prefix}total"] = [float(id in part) for id in references]
        for name, values in scores.items():
            columns[prefix + name] = [value * (id in part) for id, value in values.items()]
            figures[prefix + name] = ((prefix + name, f"{prefix}total"),)
    return by_unit(list(references), columns, figures)


def best_threshold(
    references: References,
    predictions: Mapping[str, str],
    null_scores: Mapping[str, float],
    metric: Callable[[str, str], float] = f1,
) -> Threshold:
    """The null score above which to predict "no answer" so that `metric` is best. Search on validation, never on test.

    `predictions` are the best answers that are not null; the greater `null_scores`, the likelier there is none. The result is one
    of the scores, or just below the least ("never answer"); the lowest of equally good ones. Unlike the official script, equal
    null scores are answered or refused together, since no threshold could part them.
    """
    scores = _scores(references, predictions, metric)
    order = sorted(references, key=lambda id: null_scores[id])
    total = best = float(sum(not _accepted(references[id]) for id in order))  # never answering
    value = math.nextafter(null_scores[order[0]], -math.inf) if order else 0.0
    for position, id in enumerate(order):
        total += scores[id] - (not _accepted(references[id]))
        last = position + 1 == len(order) or null_scores[order[position + 1]] > null_scores[id]
        if last and total > best:
            best, value = total, null_scores[id]
    return Threshold(value, 100.0 * best / len(order) if order else 0.0)


def _accepted(answers: Sequence[str]) -> list[str]:
    """The answers that something is left of; none means unanswerable, as in the 2.0 script."""
    return [answer for answer in answers if normalize(answer)]


def _scores(
    references: References, predictions: Mapping[str, str], metric: Callable[[str, str], float]
) -> dict[str, float]:
    return {
        id: max(metric(answer, predictions[id]) for answer in _accepted(answers) or [""])
        if id in predictions
        else 0.0
        for id, answers in references.items()
    }


def _part(
    prefix: str, ids: Sequence[str], exact: Mapping[str, float], words: Mapping[str, float]
) -> dict[str, float]:
    size = max(len(ids), 1)
    return {
        f"{prefix}exact_match": 100.0 * sum(exact[id] for id in ids) / size,
        f"{prefix}f1": 100.0 * sum(words[id] for id in ids) / size,
        f"{prefix}total": len(ids),
    }

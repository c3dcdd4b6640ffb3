"""Accuracy and F1 of classification, as SuperGLUE's official script computes them.

Each example has one label. In MultiRC, several examples are answers to the same question.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from pipeline.metrics.base import (
    Counts,
    Formula,
    Metrics,
    UnitCounts,
    counts_by_label,
    sum_by_unit,
)


def score(
    gold: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    questions: Sequence[str] | None = None,
) -> Metrics:
    """`accuracy`, `f1_macro` and `total` overall; precision, recall, F1 and counts per label.

    `f1_macro` is the unweighted mean of the labels' F1 (scikit-learn's `average="macro"`,
    SuperGLUE's F1 of CB). A label in neither gold nor predicted does not count; a label in only one
    of them counts as 0. Without examples, all metrics are 0.

    `questions` has the question of each example (MultiRC). It adds two metrics: `f1_answers` is the
    F1 of the last of `labels` over all answers (F1a; 0 if gold or predicted has no right answer);
    `exact_match` is the fraction of questions with all answers labeled correctly.

    Raises ValueError if lengths differ, or if a label is not in `labels`.
    """
    unknown = sorted({*gold, *predicted} - set(labels))
    if unknown:
        raise ValueError(f"{', '.join(unknown)}: not among the labels {', '.join(labels)}")
    hits = [reference == guess for reference, guess in zip(gold, predicted, strict=True)]
    label_counts = counts_by_label(
        Counter(gold),
        Counter(predicted),
        Counter(label for label, hit in zip(gold, hits, strict=True) if hit),
    )
    label_scores = {label: counts.scores() for label, counts in label_counts.items()}
    overall = {
        "accuracy": _percent(sum(hits), len(hits)),
        "f1_macro": sum(scores["f1"] for scores in label_scores.values())
        / max(len(label_scores), 1),
        "total": len(hits),
    }
    if questions is not None:
        answers: defaultdict[str, list[bool]] = defaultdict(list)
        for question, hit in zip(questions, hits, strict=True):
            answers[question].append(hit)
        overall |= {
            "f1_answers": label_counts.get(labels[-1], Counts()).scores()["f1"],
            "exact_match": _percent(sum(map(all, answers.values())), len(answers)),
        }
    return Metrics(overall, label_scores)


def counts(
    units: Sequence[str],
    gold: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    questions: Sequence[str] | None = None,
) -> UnitCounts:
    """The sums behind `score`, by unit. With `questions`, the units are the questions."""
    hits = [reference == guess for reference, guess in zip(gold, predicted, strict=True)]
    columns: dict[str, Sequence[float]] = {"right": hits, "total": [1] * len(hits)}
    for label in sorted(labels):
        columns[f"correct {label}"] = [
            hit and guess == label for guess, hit in zip(predicted, hits, strict=True)
        ]
        columns[f"predicted {label}"] = [guess == label for guess in predicted]
        columns[f"gold {label}"] = [reference == label for reference in gold]
    label_columns = {
        label: (f"correct {label}", f"predicted {label}", f"gold {label}")
        for label in sorted(labels)
    }
    formulas: dict[str, Formula] = {
        "accuracy": (("right", "total"),),
        "f1_macro": tuple(label_columns.values()),
    }
    if questions is None:
        return sum_by_unit(units, columns, formulas)
    formulas["f1_answers"] = (label_columns[labels[-1]],)
    formulas["exact_match"] = (("whole", "one"),)
    by_question = sum_by_unit(questions, columns, formulas)
    all_right = (by_question.columns["right"] == by_question.columns["total"]).astype(float)
    return UnitCounts(
        by_question.units,
        {**by_question.columns, "whole": all_right, "one": np.ones_like(all_right)},
        by_question.formulas,
    )


def _percent(part: int, total: int) -> float:
    return 100.0 * part / total if total else 0.0

"""Accuracy and F1 of one label an example, and of several answers a question, as SuperGLUE's official script computes them."""

from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from pipeline.metrics.base import Counts, Formula, Metrics, UnitCounts, by_unit, count


def score(
    gold: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    questions: Sequence[str] | None = None,
) -> Metrics:
    """`accuracy`, `f1_macro` and `total` overall; precision, recall, F1 and counts of each label that is in gold or predicted.

    `f1_macro` is the plain mean of those labels' F1 (scikit-learn's `average="macro"`, SuperGLUE's F1 of CB): a label that is in
    neither does not count, one that is in only one of them counts as 0. Without examples, all is 0.

    `questions` says which question each example is an answer to (MultiRC). Then `f1_answers` is the F1 of the last of `labels`
    over all answers (F1a; 0 where no answer is right, in gold or as predicted), and `exact_match` the share of questions all of
    whose answers are labeled right. Raises ValueError where lengths differ, or a label is none of `labels`.
    """
    strange = sorted({*gold, *predicted} - set(labels))
    if strange:
        raise ValueError(f"{', '.join(strange)}: not among the labels {', '.join(labels)}")
    hits = [reference == guess for reference, guess in zip(gold, predicted, strict=True)]
    counts = count(
        Counter(gold),
        Counter(predicted),
        Counter(label for label, hit in zip(gold, hits, strict=True) if hit),
    )
    figures = {label: one.figures() for label, one in counts.items()}
    overall = {
        "accuracy": _percent(sum(hits), len(hits)),
        "f1_macro": sum(one["f1"] for one in figures.values()) / max(len(figures), 1),
        "total": len(hits),
    }
    if questions is not None:
        answers: defaultdict[str, list[bool]] = defaultdict(list)
        for question, hit in zip(questions, hits, strict=True):
            answers[question].append(hit)
        overall |= {
            "f1_answers": counts.get(labels[-1], Counts()).figures()["f1"],
            "exact_match": _percent(sum(map(all, answers.values())), len(answers)),
        }
    return Metrics(overall, figures)


def counts(
    units: Sequence[str],
    gold: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    questions: Sequence[str] | None = None,
) -> UnitCounts:
    """What `score` adds up, by unit; those are the questions, where there are questions."""
    hits = [reference == guess for reference, guess in zip(gold, predicted, strict=True)]
    columns: dict[str, Sequence[float]] = {"right": hits, "total": [1] * len(hits)}
    for label in sorted(labels):
        columns[f"correct {label}"] = [
            hit and guess == label for guess, hit in zip(predicted, hits, strict=True)
        ]
        columns[f"predicted {label}"] = [guess == label for guess in predicted]
        columns[f"gold {label}"] = [reference == label for reference in gold]
    of_label = {
        label: (f"correct {label}", f"predicted {label}", f"gold {label}")
        for label in sorted(labels)
    }
    figures: dict[str, Formula] = {
        "accuracy": (("right", "total"),),
        "f1_macro": tuple(of_label.values()),
    }
    if questions is None:
        return by_unit(units, columns, figures)
    summed = by_unit(
        questions,
        columns,
        figures | {"f1_answers": (of_label[labels[-1]],), "exact_match": (("whole", "one"),)},
    )
    whole = (summed.columns["right"] == summed.columns["total"]).astype(float)
    return UnitCounts(
        summed.units, {**summed.columns, "whole": whole, "one": np.ones_like(whole)}, summed.figures
    )


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else 0.0

"""F1 of spans, as the CoNLL-2000 script `conlleval` computes it."""

from collections import Counter
from collections.abc import Sequence

from pipeline.metrics.base import (
    F1,
    PRECISION,
    RECALL,
    Counts,
    Metrics,
    UnitCounts,
    counts_by_label,
    sum_by_unit,
)

Span = tuple[str, int, int]
"""Type, first token, one past the last token."""


def spans(tags: Sequence[str]) -> list[Span]:
    """The spans of IOB2 tags from left to right, as conlleval reads them.

    A span begins at each B-, and at each I- with another type than the token before it: an orphan
    I- is a span, not an error.
    """
    result: list[Span] = []
    previous = ""
    for position, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        if prefix == "I" and label == previous:
            result[-1] = (label, result[-1][1], position + 1)
        elif label:
            result.append((label, position, position + 1))
        previous = label
    return result


def score(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Metrics:
    """Precision, recall, F1 (micro-averaged) and counts, overall and per type; `token_accuracy`.

    `token_accuracy` compares tags, O included. Both inputs have the IOB2 tags of one sentence per
    row, in the same order.

    Raises ValueError if lengths differ.
    """
    totals: tuple[Counter[str], Counter[str], Counter[str]] = (Counter(), Counter(), Counter())
    tokens = same = 0
    for reference, guess in zip(gold, predicted, strict=True):
        same += sum(a == b for a, b in zip(reference, guess, strict=True))
        tokens += len(reference)
        expected, actual = set(spans(reference)), set(spans(guess))
        for total, group in zip(totals, (expected, actual, expected & actual), strict=True):
            total.update(label for label, _, _ in group)
    label_counts = counts_by_label(*totals)
    overall = sum(label_counts.values(), Counts()).scores()
    accuracy = 100.0 * same / tokens if tokens else 0.0
    return Metrics(
        overall | {"token_accuracy": accuracy, "tokens": tokens},
        {label: counts.scores() for label, counts in label_counts.items()},
    )


def counts(
    units: Sequence[str], gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> UnitCounts:
    """The sums behind `score`, by unit."""
    pairs = [
        (set(spans(reference)), set(spans(guess)))
        for reference, guess in zip(gold, predicted, strict=True)
    ]
    columns = {
        "correct": [len(expected & actual) for expected, actual in pairs],
        "predicted": [len(actual) for _, actual in pairs],
        "gold": [len(expected) for expected, _ in pairs],
        "same": [sum(map(str.__eq__, *pair)) for pair in zip(gold, predicted, strict=True)],
        "tokens": [len(reference) for reference in gold],
    }
    return sum_by_unit(
        units,
        columns,
        {
            "precision": PRECISION,
            "recall": RECALL,
            "f1": F1,
            "token_accuracy": (("same", "tokens"),),
        },
    )

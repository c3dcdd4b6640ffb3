"""Span F1 as the CoNLL-2000 script `conlleval` computes it."""

from collections import Counter
from collections.abc import Sequence

from pipeline.metrics.base import F1, PRECISION, RECALL, Counts, Metrics, UnitCounts, by_unit, count

Span = tuple[str, int, int]
"""Type, first token, one past the last token."""


def spans(tags: Sequence[str]) -> list[Span]:
    """The spans of IOB2 tags, left to right, as conlleval reads them.

    A span begins at B-, and at an I- whose type the token before does not have: an orphan I- is a span, not an error.
    """
    found: list[Span] = []
    before = ""
    for position, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        if prefix == "I" and label == before:
            found[-1] = (label, found[-1][1], position + 1)
        elif label:
            found.append((label, position, position + 1))
        before = label
    return found


def score(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Metrics:
    """Precision, recall, F1 (micro-averaged) and counts, overall and per type; `token_accuracy` compares tags, O included.

    Both are IOB2 tags per sentence, in the same order and of the same lengths (else ValueError).
    """
    totals: tuple[Counter[str], Counter[str], Counter[str]] = (Counter(), Counter(), Counter())
    tokens = same = 0
    for reference, guess in zip(gold, predicted, strict=True):
        same += sum(a == b for a, b in zip(reference, guess, strict=True))
        tokens += len(reference)
        expected, found = set(spans(reference)), set(spans(guess))
        for total, group in zip(totals, (expected, found, expected & found), strict=True):
            total.update(label for label, _, _ in group)
    labels = count(*totals)
    overall = sum(labels.values(), Counts()).figures()
    accuracy = 100.0 * same / tokens if tokens else 0.0
    return Metrics(
        overall | {"token_accuracy": accuracy, "tokens": tokens},
        {label: counts.figures() for label, counts in labels.items()},
    )


def counts(
    units: Sequence[str], gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> UnitCounts:
    """What `score` adds up, by unit."""
    pairs = [
        (set(spans(reference)), set(spans(guess)))
        for reference, guess in zip(gold, predicted, strict=True)
    ]
    columns = {
        "correct": [len(expected & found) for expected, found in pairs],
        "predicted": [len(found) for _, found in pairs],
        "gold": [len(expected) for expected, _ in pairs],
        "same": [sum(map(str.__eq__, *both)) for both in zip(gold, predicted, strict=True)],
        "tokens": [len(reference) for reference in gold],
    }
    return by_unit(
        units,
        columns,
        {
            "precision": PRECISION,
            "recall": RECALL,
            "f1": F1,
            "token_accuracy": (("same", "tokens"),),
        },
    )

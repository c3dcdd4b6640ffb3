"""F1 of semantic roles, as the CoNLL-2005 script `srl-eval` computes it."""

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
from pipeline.metrics.spans import spans

Argument = tuple[str, tuple[tuple[int, int], ...]]
"""A role and its pieces: (first token, one past the last token) each."""

PREDICATE_ROLE = "V"


def arguments(tags: Sequence[str]) -> list[Argument]:
    """The arguments of one predicate.

    A span C-X continues the last X before it; both are pieces of one argument. A C-X without an
    earlier X is itself an X, as in srl-eval.
    """
    result: list[tuple[str, list[tuple[int, int]]]] = []
    latest: dict[str, int] = {}
    for label, start, end in spans(tags):
        role = label.removeprefix("C-")
        if label != role and role in latest:
            result[latest[role]][1].append((start, end))
        else:
            latest[role] = len(result)
            result.append((role, [(start, end)]))
    return [(role, tuple(pieces)) for role, pieces in result]


def score(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Metrics:
    """Correct, excess, missed, precision, recall and F1, per role and overall.

    An argument is correct if all its pieces are. The predicate V is an input of the models, so the
    standard `f1` excludes it; `f1_with_v` includes it. Both inputs have the IOB2 tags of one
    predicate per row, in the same order.

    Raises ValueError if lengths differ.
    """
    totals: tuple[Counter[str], Counter[str], Counter[str]] = (Counter(), Counter(), Counter())
    for reference, guess in zip(gold, predicted, strict=True):
        if len(reference) != len(guess):
            raise ValueError(f"{len(guess)} predicted tags for {len(reference)} tokens")
        expected, actual = set(arguments(reference)), set(arguments(guess))
        for total, group in zip(totals, (expected, actual, expected & actual), strict=True):
            total.update(role for role, _ in group)
    role_counts = counts_by_label(*totals)
    all_counts = sum(role_counts.values(), Counts())
    without_v = sum(
        (counts for role, counts in role_counts.items() if role != PREDICATE_ROLE), Counts()
    )
    return Metrics(
        _role_scores(without_v) | {"f1_with_v": all_counts.scores()["f1"]},
        {role: _role_scores(counts) for role, counts in role_counts.items()},
    )


def counts(
    units: Sequence[str], gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> UnitCounts:
    """The sums behind `score`, by unit. Columns with the suffix _v include V."""
    pairs = [
        (set(arguments(reference)), set(arguments(guess)))
        for reference, guess in zip(gold, predicted, strict=True)
    ]
    groups = {
        "correct": [expected & actual for expected, actual in pairs],
        "predicted": [actual for _, actual in pairs],
        "gold": [expected for expected, _ in pairs],
    }
    columns = {
        name: [sum(role != PREDICATE_ROLE for role, _ in arguments) for arguments in group]
        for name, group in groups.items()
    }
    columns |= {f"{name}_v": list(map(len, group)) for name, group in groups.items()}
    with_v = tuple(f"{name}_v" for name in F1[0])
    return sum_by_unit(
        units, columns, {"precision": PRECISION, "recall": RECALL, "f1": F1, "f1_with_v": (with_v,)}
    )


def _role_scores(counts: Counts) -> dict[str, float]:
    """The scores under srl-eval's names: `excess` is predicted only, `missed` is gold only."""
    scores = counts.scores()
    return {name: scores[name] for name in ("precision", "recall", "f1", "correct")} | {
        "excess": counts.predicted - counts.correct,
        "missed": counts.gold - counts.correct,
    }

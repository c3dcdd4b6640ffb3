"""Role F1 as the CoNLL-2005 script `srl-eval` computes it."""

from collections import Counter
from collections.abc import Sequence

from pipeline.metrics.base import F1, PRECISION, RECALL, Counts, Metrics, UnitCounts, by_unit, count
from pipeline.metrics.spans import spans

Argument = tuple[str, tuple[tuple[int, int], ...]]
"""Role, and its pieces: (first token, one past the last) each."""

PREDICATE = "V"


def arguments(tags: Sequence[str]) -> list[Argument]:
    """The arguments of one predicate: a span C-X continues the last X before it, and both count as one argument.

    A C-X without an X before it is itself an X, as srl-eval has it.
    """
    found: list[tuple[str, list[tuple[int, int]]]] = []
    latest: dict[str, int] = {}
    for label, start, end in spans(tags):
        role = label.removeprefix("C-")
        if label != role and role in latest:
            found[latest[role]][1].append((start, end))
        else:
            latest[role] = len(found)
            found.append((role, [(start, end)]))
    return [(role, tuple(pieces)) for role, pieces in found]


def score(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> Metrics:
    """Correct, excess, missed, precision, recall and F1, per role and overall: an argument is correct when all its pieces are.

    V, the predicate itself, is given to the models, so the standard `f1` leaves it out; `f1_with_v` does not. Both inputs are
    IOB2 tags per predicate, in the same order and of the same lengths (else ValueError).
    """
    totals: tuple[Counter[str], Counter[str], Counter[str]] = (Counter(), Counter(), Counter())
    for reference, guess in zip(gold, predicted, strict=True):
        if len(reference) != len(guess):
            raise ValueError(f"{len(guess)} predicted tags for {len(reference)} tokens")
        expected, found = set(arguments(reference)), set(arguments(guess))
        for total, group in zip(totals, (expected, found, expected & found), strict=True):
            total.update(role for role, _ in group)
    labels = count(*totals)
    everything = sum(labels.values(), Counts())
    roles = sum((counts for role, counts in labels.items() if role != PREDICATE), Counts())
    return Metrics(
        _figures(roles) | {"f1_with_v": everything.figures()["f1"]},
        {role: _figures(counts) for role, counts in labels.items()},
    )


def counts(
    units: Sequence[str], gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> UnitCounts:
    """What `score` adds up, by unit; the columns that end in _v count V too."""
    pairs = [
        (set(arguments(reference)), set(arguments(guess)))
        for reference, guess in zip(gold, predicted, strict=True)
    ]
    kinds = {
        "correct": [expected & found for expected, found in pairs],
        "predicted": [found for _, found in pairs],
        "gold": [expected for expected, _ in pairs],
    }
    columns = {
        name: [sum(role != PREDICATE for role, _ in group) for group in groups]
        for name, groups in kinds.items()
    }
    columns |= {f"{name}_v": list(map(len, groups)) for name, groups in kinds.items()}
    with_v = tuple(f"{name}_v" for name in F1[0])
    return by_unit(
        units, columns, {"precision": PRECISION, "recall": RECALL, "f1": F1, "f1_with_v": (with_v,)}
    )


def _figures(counts: Counts) -> dict[str, float]:
    """The figures under srl-eval's names: what is predicted but not correct is excess, what is only in gold is missed."""
    figures = counts.figures()
    return {name: figures[name] for name in ("precision", "recall", "f1", "correct")} | {
        "excess": counts.predicted - counts.correct,
        "missed": counts.gold - counts.correct,
    }

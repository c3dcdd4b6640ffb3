"""The page of one search for training params: what was tried, what it scored, and which params mattered."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.files import atomic_write
from pipeline.report import plots
from pipeline.report.plots import Plot
from pipeline.report.render import Section, page
from pipeline.report.tables import Cell, Table, factor, score

GLOSSARY = {
    "score": "The best validation score of a trial, which is flattered: it is the best of several, and the best trial the best "
    "of many. The test split is never read here.",
    "pruned": "Ended before its time, for at the same validation it did worse than half of the others had (or as search.yaml "
    "says).",
    "importance": "How much of the difference between the best trials and the others a param accounts for (PED-ANOVA: Watanabe "
    "et al., IJCAI 2023). With few trials it says little.",
}


@dataclass(frozen=True)
class Tried:
    """A trial: its best validation score, how many it had (`scored`), and the values it was run with."""

    number: int
    score: float
    pruned: bool
    scored: int
    values: dict[str, Any]


def write_tuning(
    folder: Path, name: str, tried: Sequence[Tried], importance: Mapping[str, float]
) -> None:
    """Write `folder/trials.tsv` and `folder/tuning.html`. `tried` has at least one trial."""
    rows = [
        {
            "trial": one.number,
            "score": one.score,
            "pruned": int(one.pruned),
            "scored": one.scored,
            **one.values,
        }
        for one in tried
    ]
    table = pd.DataFrame(rows).to_csv(sep="\t", index=False, float_format="%.6g")
    atomic_write(folder / "trials.tsv", table)
    drawn = (_history(tried), *_importance(importance), *_slices(tried))
    pruned = sum(one.pruned for one in tried)
    best = best_of(tried)
    summary = (
        f"{len(tried)} trials, {pruned} of them pruned. The best validation score is {score(best.score)}, of trial "
        f"{best.number}: {_values(best)}. The first trial, {_values(tried[0])}, has {score(tried[0].score)}."
    )
    text = page(
        "report.html",
        f"Search: {name}",
        summary,
        [Section("Trials", "", (_table(tried, best),), drawn)],
        GLOSSARY,
    )
    atomic_write(folder / "tuning.html", text)


def best_of(tried: Sequence[Tried]) -> Tried:
    """The trial with the best score, of those that were finished if any was."""
    return max([one for one in tried if not one.pruned] or tried, key=lambda one: one.score)


def _values(one: Tried) -> str:
    return ", ".join(f"{key} {_written(value)}" for key, value in one.values.items())


def _written(value: Any) -> str:
    return factor(value) if isinstance(value, float) else str(value)


def _table(tried: Sequence[Tried], best: Tried) -> Table:
    rows = tuple(
        (
            Cell(str(one.number)),
            Cell(score(one.score), "pruned" * one.pruned, one is best),
            Cell(str(one.scored)),
            *(Cell(_written(value)) for value in one.values.values()),
        )
        for one in sorted(tried, key=lambda one: (one.pruned, -one.score, one.number))
    )
    return Table(
        "Best first", tuple(map(Cell, ("trial", "score", "times scored", *tried[0].values))), rows
    )


def _history(tried: Sequence[Tried]) -> Plot:
    finished = pd.Series({one.number: one.score for one in tried if not one.pruned}, dtype=float)
    pruned = pd.Series({one.number: one.score for one in tried if one.pruned}, dtype=float)
    groups = {
        name: values for name, values in (("finished", finished), ("pruned", pruned)) if len(values)
    }
    return plots.points(
        "History",
        ("trial", "validation score"),
        groups,
        finished.cummax() if len(finished) else None,
    )


def _importance(importance: Mapping[str, float]) -> Iterator[Plot]:
    if importance:
        yield plots.bars(
            "Importance of the params",
            "share",
            {key: {"importance": value} for key, value in importance.items()},
        )


def _slices(tried: Sequence[Tried]) -> Iterator[Plot]:
    """The score by value, of each param that had several."""
    for key in tried[0].values:
        values = [one.values[key] for one in tried]
        if len({str(value) for value in values}) < 2:
            continue
        numbers = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        order = sorted({str(value) for value in values})
        places = values if numbers else [order.index(str(value)) for value in values]
        groups = {
            name: pd.Series(
                [one.score for one in tried if one.pruned == pruned],
                [place for place, one in zip(places, tried, strict=True) if one.pruned == pruned],
                dtype=float,
            )
            for name, pruned in (("finished", False), ("pruned", True))
        }
        shown = {name: series for name, series in groups.items() if len(series)}
        yield plots.points(
            f"Score by {key}",
            (key if numbers else f"{key}: {', '.join(order)}", "validation score"),
            shown,
            log=numbers and min(places) > 0 and max(places) / min(places) > 10,
        )

"""The page of a search for training params: trials, scores, and the importance of each param."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from pipeline.errors import quantity
from pipeline.files import atomic_write
from pipeline.report import plots
from pipeline.report.plots import Plot
from pipeline.report.render import Section, page
from pipeline.report.tables import Cell, Table, factor, score

GLOSSARY = {
    "score": "The best validation score of a trial. It is inflated: it is the maximum over "
    "validations, and the best trial is the maximum over trials. The search never reads the test "
    "set.",
    "pruned": "The trial was stopped early, because at the same validation its score was below the "
    "median of the other trials (or by the pruner in search.yaml).",
    "importance": "The share of the difference between the best trials and the others that a param "
    "explains (PED-ANOVA: Watanabe et al., IJCAI 2023). With few trials it is unreliable.",
}


@dataclass(frozen=True)
class TrialResult:
    """One trial of a search: its best validation score in percent, and its values of the params.

    `num_validations` is the number of its validations.
    """

    number: int
    score: float
    pruned: bool
    num_validations: int
    values: dict[str, Any]


def write_tuning(
    folder: Path, name: str, trials: Sequence[TrialResult], importance: Mapping[str, float]
) -> None:
    """Write `folder/trials.tsv` and `folder/tuning.html`. `trials` has at least one trial."""
    rows = [
        {
            "trial": trial.number,
            "score": trial.score,
            "pruned": int(trial.pruned),
            "scored": trial.num_validations,
            **trial.values,
        }
        for trial in trials
    ]
    table = pd.DataFrame(rows).to_csv(sep="\t", index=False, float_format="%.6g")
    atomic_write(folder / "trials.tsv", table)
    drawings = (_history(trials), *_importance(importance), *_slices(trials))
    pruned = sum(trial.pruned for trial in trials)
    best = best_of(trials)
    summary = (
        f"{quantity(len(trials), 'trial')}, {pruned} of them pruned. The best validation score is "
        f"{score(best.score)}, of trial {best.number}: {_values(best)}. The first trial, "
        f"{_values(trials[0])}, has {score(trials[0].score)}."
    )
    text = page(
        "report.html",
        f"Search: {name}",
        summary,
        [Section("Trials", "", (_table(trials, best),), drawings)],
        GLOSSARY,
    )
    atomic_write(folder / "tuning.html", text)


def best_of(trials: Sequence[TrialResult]) -> TrialResult:
    """The finished trial with the best score. Without a finished trial, the best pruned trial."""
    return max(
        [trial for trial in trials if not trial.pruned] or trials, key=lambda trial: trial.score
    )


def _values(trial: TrialResult) -> str:
    return ", ".join(f"{key} {_format(value)}" for key, value in trial.values.items())


def _format(value: Any) -> str:
    return factor(value) if isinstance(value, float) else str(value)


def _table(trials: Sequence[TrialResult], best: TrialResult) -> Table:
    """The trials with their validation score and params."""
    rows = tuple(
        (
            Cell(str(trial.number)),
            Cell(score(trial.score), "pruned" * trial.pruned, trial is best),
            Cell(str(trial.num_validations)),
            *(Cell(_format(value)) for value in trial.values.values()),
        )
        for trial in sorted(trials, key=lambda trial: (trial.pruned, -trial.score, trial.number))
    )
    return Table(
        "Best first", tuple(map(Cell, ("trial", "score", "validations", *trials[0].values))), rows
    )


def _history(trials: Sequence[TrialResult]) -> Plot:
    """The validation score of each trial, and the best score so far."""
    finished = pd.Series(
        {trial.number: trial.score for trial in trials if not trial.pruned}, dtype=float
    )
    pruned = pd.Series({trial.number: trial.score for trial in trials if trial.pruned}, dtype=float)
    groups = {
        name: values for name, values in (("finished", finished), ("pruned", pruned)) if len(values)
    }
    return plots.scatter(
        "History",
        ("trial", "validation score"),
        groups,
        finished.cummax() if len(finished) else None,
    )


def _importance(importance: Mapping[str, float]) -> Iterator[Plot]:
    """The share of the difference between the best trials and the others that a param explains."""
    if importance:
        yield plots.bars(
            "Importance of the params",
            "share",
            {key: {"importance": value} for key, value in importance.items()},
        )


def _slices(trials: Sequence[TrialResult]) -> Iterator[Plot]:
    """The score of the trials by value, for each param with several values."""
    for key in trials[0].values:
        values = [trial.values[key] for trial in trials]
        if len({str(value) for value in values}) < 2:
            continue
        numeric = all(
            isinstance(value, int | float) and not isinstance(value, bool) for value in values
        )
        order = sorted({str(value) for value in values})
        positions = values if numeric else [order.index(str(value)) for value in values]
        groups: dict[str, pd.Series[float]] = {}
        for name, pruned in (("finished", False), ("pruned", True)):
            rows = [row for row, trial in enumerate(trials) if trial.pruned == pruned]
            if rows:
                scores = [trials[row].score for row in rows]
                groups[name] = pd.Series(scores, [positions[row] for row in rows], dtype=float)
        yield plots.scatter(
            f"Score by {key}",
            (key if numeric else f"{key}: {', '.join(order)}", "validation score"),
            groups,
            log=numeric and min(positions) > 0 and max(positions) / min(positions) > 10,
        )

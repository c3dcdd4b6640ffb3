"""The words that a report takes from a kind of task: titles, glossary, what the kind leaves out."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.report.stage_outputs import RERUN
from pipeline.tasks import NAMES, task_named
from pipeline.tasks.base.capabilities import switched_off

TITLES = {
    "f1": "F1",
    "exact_match": "exact match",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
}


def kind_in(values: Mapping[str, Any], path: Path) -> str:
    """The kind of task of a `metrics.json`. Raises UserError where there is no such kind."""
    kind = values.get("task")
    if kind not in NAMES:
        raise UserError(
            f"{path}: task: found {kind!r}, expected a kind of task ({', '.join(NAMES)}); {RERUN}"
        )
    return str(kind)


def titles(kind: str) -> dict[str, str]:
    """The titles of figures, in the order of the columns. A figure without a title comes last."""
    return {**TITLES, **task_named(kind).metric_titles}


def title(kind: str | None, figure: str) -> str:
    """A figure in words: those that all kinds share, where the kind is not known."""
    return (TITLES if kind is None else titles(kind)).get(figure, figure)


def about_features(kind: str) -> str:
    """A sentence on what the kind of task leaves out; empty where it leaves out nothing."""
    return switched_off(task_named(kind))


def glossary(kinds: Iterable[str]) -> Mapping[str, str]:
    """Word to meaning, of the words that these kinds of task bring into the report."""
    return {
        word: text
        for kind in dict.fromkeys(kinds)
        for word, text in task_named(kind).glossary.items()
    }

"""Report text by kind of task: metric titles, glossary, unsupported features."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.report.stage_outputs import RERUN
from pipeline.tasks import NAMES, task_named
from pipeline.tasks.base.capabilities import unsupported_features

TITLES = {
    "f1": "F1",
    "exact_match": "exact match",
    "precision": "precision",
    "recall": "recall",
    "accuracy": "accuracy",
    "f1_macro": "macro F1",
    "f1_answers": "F1 of answers",
}


def kind_in(values: Mapping[str, Any], path: Path) -> str:
    """The kind of task of a `metrics.json`. Raises UserError for an unknown kind."""
    kind = values.get("task")
    if kind not in NAMES:
        raise UserError(
            f"{path}: task: found {kind!r}, expected a kind of task ({', '.join(NAMES)}); {RERUN}"
        )
    return str(kind)


def titles(kind: str) -> dict[str, str]:
    """Metric name -> title, in the order of the columns. Metrics without a title come last."""
    return {**TITLES, **task_named(kind).metric_titles}


def title(kind: str | None, metric: str) -> str:
    """The title of a metric; if `kind` is None, one of the titles shared by all kinds."""
    return (TITLES if kind is None else titles(kind)).get(metric, metric)


def about_features(kind: str) -> str:
    """A sentence on the features that the kind of task does not support; empty if none."""
    return unsupported_features(task_named(kind))


def glossary(kinds: Iterable[str]) -> Mapping[str, str]:
    """Term -> definition, for the terms of these kinds of task."""
    return {
        term: text
        for kind in dict.fromkeys(kinds)
        for term, text in task_named(kind).glossary.items()
    }

"""The scores of a model that gives the same answer to every test example.

A model with no better scores has learned nothing from its inputs.
"""

from collections.abc import Callable, Sequence

import numpy as np

from pipeline.metrics import classification
from pipeline.metrics.base import UnitCounts
from pipeline.report import kinds
from pipeline.report.collect import MetricsDocument, RunResult
from pipeline.report.tables import join_and, score
from pipeline.tasks.intent_and_slots import INTENT_PREFIX

GOLD_PREFIX = "gold "
"""The beginning of the columns of `classification.counts` with the annotated labels."""


def sentence(runs: Sequence[RunResult]) -> str:
    """The constant answer with the best scores on a task, and these scores.

    Empty if the kind of task has no constant answer, or the outputs do not tell its scores.
    """
    texts = (answer(run, run.metrics) for run in runs if run.metrics for answer in _ANSWERS)
    return next(filter(None, texts), "")


def _no_answer(_: RunResult, metrics: MetricsDocument) -> str:
    """No answer to every question, if some questions are unanswerable."""
    unanswerable, questions = metrics.test.get("NoAns_total"), metrics.test.get("total")
    if not unanswerable or not questions:
        return ""
    scores = _listed(metrics, {metrics.primary: 100 * unanswerable / questions})
    return f"A model that answers no question has {scores}; compare also the answerable questions."


def _label(run: RunResult, metrics: MetricsDocument) -> str:
    """The label with the best primary score."""
    by_label = _scores_by_label(run.counts) if run.counts else {}
    if not by_label:
        return ""
    label, scores = max(by_label.items(), key=lambda item: item[1][metrics.primary])
    return f"A model that always answers {label} has {_listed(metrics, scores)}."


def _scores_by_label(counts: UnitCounts) -> dict[str, dict[str, float]]:
    """The percentages of each label as the constant answer; empty for other kinds of task."""
    if "f1_macro" not in counts.formulas:
        return {}
    columns = [gold for _, _, gold in counts.formulas["f1_macro"]]
    questions = None
    if "f1_answers" in counts.formulas:  # the units are questions, and one label is "right"
        (_, _, right), *_ = counts.formulas["f1_answers"]
        columns.sort(key=lambda column: column == right)
        questions = [unit for column in columns for unit in _repeat(counts.units, counts, column)]
    gold = [column for column in columns for _ in range(int(counts.columns[column].sum()))]
    by_label = {}
    for column in columns if gold else ():
        scores = classification.score(gold, [column] * len(gold), columns, questions).overall
        by_label[column.removeprefix(GOLD_PREFIX)] = {
            name: scores[name] for name in counts.formulas
        }
    return by_label


def _repeat(units: Sequence[str], counts: UnitCounts, column: str) -> list[str]:
    """Each unit as often as the column counts."""
    repeated: list[str] = np.repeat(np.array(units), counts.columns[column].astype(int)).tolist()
    return repeated


def _intent(run: RunResult, metrics: MetricsDocument) -> str:
    """The most frequent intent, for sentences with slots. The answer has no slots."""
    if run.labels is None or "intent_accuracy" not in metrics.test:
        return ""
    support = run.labels.set_index("label")["support"]
    intents = support[support.index.str.startswith(INTENT_PREFIX)]
    if not intents.sum():
        return ""
    accuracy = {"intent_accuracy": 100 * float(intents.max() / intents.sum())}
    intent = str(intents.idxmax()).removeprefix(INTENT_PREFIX)
    return f"A model that always answers the intent {intent} has {_listed(metrics, accuracy)}."


def _majority_object(_: RunResult, metrics: MetricsDocument) -> str:
    """The most frequent object of the relation of a fact."""
    value = metrics.test.get("majority_p_at_1")
    if value is None:
        return ""
    scores = _listed(metrics, {"p_at_1": value})
    return f"A model that always answers the majority object of the relation has {scores}."


_ANSWERS: tuple[Callable[[RunResult, MetricsDocument], str], ...] = (
    _no_answer,
    _label,
    _intent,
    _majority_object,
)


def _listed(metrics: MetricsDocument, scores: dict[str, float]) -> str:
    """`82.5 accuracy and 45.2 macro F1`, the primary metric first."""
    names = sorted(scores, key=lambda name: name != metrics.primary)
    texts = [f"{score(scores[name])} {kinds.title(metrics.kind, name)}" for name in names]
    return join_and(texts)

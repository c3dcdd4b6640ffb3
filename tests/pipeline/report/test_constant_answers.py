"""The section of a task has the scores of a model that always gives the same answer."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from pipeline.metrics import classification, frames
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.report import constant_answers
from pipeline.report.collect import RunResult, collect
from tests.support.report_inputs import put

KIND = "sequence_classification"


def run_of(
    root: Path, kind: str, primary: str, metrics: Metrics, counts: UnitCounts | None = None
) -> RunResult:
    """The run of an arm with these outputs of the stage `evaluate`."""
    results, predictions = (root / name / "multitask" / "t" for name in ("results", "predictions"))
    put(results / "metrics.json", {"primary": primary, "task": kind, "test": metrics.overall})
    rows = [f"{label}\t{values.get('gold', 0)}\n" for label, values in metrics.labels.items()]
    put(results / "labels.tsv", "label\tsupport\n" + "".join(rows))
    if counts:
        put(predictions / "formulas.json", counts.formulas)
        frame = pd.DataFrame({"unit": counts.units, **counts.columns})
        frame.to_parquet(predictions / "counts.parquet")
    inputs = collect(
        root / "results", root / "predictions", root / "runs", [], ["t"], {"multitask": ["t"]}
    )
    return inputs.runs[0]


def classified(
    root: Path,
    gold: Sequence[str],
    predicted: Sequence[str],
    labels: Sequence[str],
    primary: str = "accuracy",
    questions: Sequence[str] | None = None,
) -> RunResult:
    """A run of a classification with these predictions."""
    (root / "predictions/multitask/t").mkdir(parents=True)
    units = [f"test/{number}" for number in range(len(gold))]
    metrics = classification.score(gold, predicted, labels, questions)
    counts = classification.counts(units, gold, predicted, labels, questions)
    return run_of(root, KIND, primary, metrics, counts)


@pytest.mark.parametrize("guess", ["diff", "same"])
def test_the_most_frequent_label(tmp_path: Path, guess: str) -> None:
    gold = ["same"] * 7 + ["diff"] * 33
    run = classified(tmp_path, gold, [guess] * 40, ("same", "other", "diff"))
    sentence = "A model that always answers diff has 82.5 accuracy and 45.2 macro F1."
    assert constant_answers.sentence([run]) == sentence
    expected = classification.score(gold, ["diff"] * 40, ("same", "diff")).overall
    assert [f"{expected[name]:.1f}" for name in ("accuracy", "f1_macro")] == ["82.5", "45.2"]


def test_the_label_with_the_best_primary_score(tmp_path: Path) -> None:
    """In MultiRC a wrong answer is more frequent, but only the label "true" has an F1."""
    gold = ["true", "false", "false", "true", "false"]
    run = classified(tmp_path, gold, gold, ("false", "true"), "f1_answers", list("abbcc"))
    assert constant_answers.sentence([run]) == (
        "A model that always answers true has 57.1 F1 of answers, 40.0 accuracy, 28.6 macro F1 "
        "and 33.3 exact match."
    )


def test_the_most_frequent_intent(tmp_path: Path) -> None:
    gold = [frames.Frame(["B-city"], f"intent:{name}") for name in ("fare", "fare", "fare", "time")]
    run = run_of(tmp_path, "intent_and_slots", "f1", frames.score(gold, gold))
    sentence = "A model that always answers the intent fare has 75.0 intent accuracy."
    assert constant_answers.sentence([run]) == sentence


def test_the_majority_object_of_a_relation(tmp_path: Path) -> None:
    metrics = Metrics({"p_at_1": 50.0, "majority_p_at_1": 40.25}, {})
    run = run_of(tmp_path, "knowledge_probing", "p_at_1", metrics)
    sentence = "A model that always answers the majority object of the relation has 40.2 P@1."
    assert constant_answers.sentence([run]) == sentence


def test_without_a_test_set_or_a_constant_answer_nothing_is_said(tmp_path: Path) -> None:
    empty = classified(tmp_path, [], [], ("same", "diff"))
    assert constant_answers.sentence([empty]) == ""
    tagged = run_of(tmp_path / "ner", "token_classification", "f1", Metrics({"f1": 1.0}, {}))
    assert constant_answers.sentence([tagged]) == ""
    assert constant_answers.sentence([]) == ""

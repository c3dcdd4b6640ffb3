"""Confidences of claims and decisions, also without any claim."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.analysis.confidence_tables import collect_decisions, confidence_tables
from pipeline.evaluation.evaluate import EvalSet
from pipeline.features.table import FeatureTable, write_features
from pipeline.tasks import task_named
from pipeline.tasks.dialogue_state_tracking import Example as Dialogue
from pipeline.tasks.multiple_choice import Example as Choices
from pipeline.tasks.semantic_role_labeling import Example as Predicate
from pipeline.tasks.shared.tagging import bio_classes
from pipeline.tasks.span_extraction import Answer
from pipeline.tasks.span_extraction import Example as Question
from pipeline.tasks.token_classification import TASK, Example

CLASSES = ("O", "B-X", "I-X")
EXAMPLES = [
    Example("a", ("Ada", "Bee", "runs"), ("B-X", "I-X", "O")),
    Example("b", ("Bo",), ("B-X",)),
]
LOGITS = [
    np.array([[0.0, 2.0, 0.0], [0.0, 0.0, 1.0], [3.0, 0.0, 0.0]]),
    np.array([[1.0, 0.0, 0.0]]),
]


@pytest.fixture
def split(tmp_path: Path) -> EvalSet:
    write_features([], tmp_path / "none")
    return EvalSet(
        TASK,
        CLASSES,
        EXAMPLES,
        FeatureTable(tmp_path / "none"),
        np.empty(0, np.int64),
    )


def test_the_confidence_of_a_claim_is_the_minimum_of_its_decisions(split: EvalSet) -> None:
    predictions = [["B-X", "I-X", "O"], ["O"]]
    decisions = collect_decisions(TASK, split, predictions, LOGITS, {})
    assert decisions.right.tolist() == [True, True, True, False]
    confidences, claims = confidence_tables(
        TASK, split, predictions, decisions, {"temperature": 2.0}
    )
    assert confidences["kind"].tolist() == ["spans", "tags", "tags", "tags", "tags"]
    assert confidences["raw"][0] == pytest.approx(np.e / (np.e + 2))
    assert confidences["calibrated"][0] == pytest.approx(np.exp(0.5) / (np.exp(0.5) + 2))
    assert claims[["id", "text", "predicted", "right"]].to_numpy().tolist() == [
        ["a", "Ada Bee runs", "X: Ada Bee", True],
        ["b", "Bo", "", False],
    ]
    assert np.isnan(claims["calibrated"][1])
    assert claims[["gold_spans", "predicted_spans"]].to_numpy().tolist() == [
        [[[0, 7]], [[0, 7]]],
        [[[0, 2]], []],
    ]


def test_the_texts_of_a_dialogue_alternate(tmp_path: Path) -> None:
    write_features([], tmp_path / "none")
    task, classes = task_named("dialogue_state_tracking"), ("none", "area=north")
    dialogue = Dialogue("d", ("", "Where?"), ("Food.", "North."), ((), ("area=north",)))
    split = EvalSet(
        task, classes, [dialogue], FeatureTable(tmp_path / "none"), np.empty(0, np.int64)
    )
    predictions = [[("none",), ("area=north",)]]
    decisions = collect_decisions(task, split, predictions, [np.zeros((2, 2))], {})
    _, claims = confidence_tables(task, split, predictions, decisions, {})
    assert claims["text"].tolist() == ["Food. · Where? · North."]


@pytest.mark.parametrize(
    ("task", "example", "prediction", "size"),
    [
        ("span_extraction", Question("q", "Who?", "Bo saw Ada", (Answer("Ada", 7),)), "Bo saw", 1),
        (
            "multiple_choice",
            Choices("q", "Ada saw Bo", "Who?", ("Ada", "Bo"), (0, 8), ("Ada",)),
            "Bo",
            1,
        ),
        (
            "semantic_role_labeling",
            Predicate("q", ("Ada", "saw", "Bo"), 1, ("B-A0", "B-V", "B-A1")),
            ["O", "B-V", "B-A2"],
            3,
        ),
    ],
)
def test_spans_of_claims_are_in_their_text(
    task: str, example: Any, prediction: Any, size: int, tmp_path: Path
) -> None:
    kind = task_named(task)
    write_features([], tmp_path / "none")
    table = FeatureTable(tmp_path / "none")
    classes = bio_classes(("A0", "A1", "A2", "V"))
    split = EvalSet(kind, classes, [example], table, np.empty(0, np.int64))
    predictions = [prediction] if isinstance(prediction, list) else {"q": prediction}
    decisions = collect_decisions(kind, split, predictions, [np.zeros((size, 9))], {})
    _, claims = confidence_tables(kind, split, predictions, decisions, {})
    assert len(claims) > 0
    for _, claim in claims.iterrows():
        for name in ("gold", "predicted"):
            parts = [claim["text"][start:end] for start, end in claim[f"{name}_spans"]]
            assert parts == [claim[name].split(": ")[-1]] * bool(claim[name] not in ("", "(none)"))


def test_tables_without_claims_or_examples_are_written(split: EvalSet, tmp_path: Path) -> None:
    predictions = [["O"] * 3, ["O"]]
    confidences, claims = confidence_tables(
        TASK, split, predictions, collect_decisions(TASK, split, predictions, LOGITS, {}), {}
    )
    assert set(confidences["kind"]) == {"tags"}
    assert claims["calibrated"].isna().all()
    empty = EvalSet(split.task, CLASSES, [], split.table, split.rows)
    confidences, claims = confidence_tables(
        TASK, empty, [], collect_decisions(TASK, empty, [], [], {}), {}
    )
    assert len(confidences) == len(claims) == 0
    confidences.to_parquet(tmp_path / "a.parquet")
    claims.to_parquet(tmp_path / "b.parquet")

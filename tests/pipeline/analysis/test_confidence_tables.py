"""Confidences of claims and decisions, also without any claim."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.analysis.confidence_tables import collect_decisions, confidence_tables
from pipeline.evaluation.evaluate import EvalSet
from pipeline.features.table import FeatureTable, write_features
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

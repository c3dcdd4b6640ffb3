"""Agreement over variants and other measures of confidence, compared with manual results."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.analysis import agreement as measures
from pipeline.analysis.agreement import agreement, confidence_measures, sample
from pipeline.analysis.calibration import gather
from pipeline.evaluation.evaluate import EvalSet
from pipeline.features.table import FeatureTable, write_features
from pipeline.tasks import task_named
from pipeline.tasks.span_extraction import Example

EXAMPLES = [
    Example("a", "Who sat?", "Bo Li sat. Cy ran. Di ate.", ()),
    Example("b", "Say why", "All of it.", ()),
    Example("c", "Who ate?", "Di ate.", ()),
]
PREDICTIONS = {"a": "Bo Li", "b": "it", "c": ""}


@pytest.fixture
def split(tmp_path: Path) -> EvalSet:
    write_features([], tmp_path / "none")
    table = FeatureTable(tmp_path / "none")
    return EvalSet(
        task_named("span_extraction"), ("start", "end"), EXAMPLES, table, np.empty(0, np.int64)
    )


def test_agreement_is_the_mean_over_variants(split: EvalSet) -> None:
    asked = list[Example]()

    def answer(examples: Sequence[Any]) -> dict[str, str]:
        asked.extend(examples)
        return {"a/0": "Li", "a/1": "the Bo Li", "a/2": "Cy", "c/0": ""}

    found = agreement(split, PREDICTIONS, np.arange(3), answer)
    assert [one.id for one in asked] == ["a/0", "a/1", "a/2", "c/0"], "b has no paraphrase"
    assert found is not None
    assert found.tolist() == pytest.approx([(2 / 3 + 1 + 0) / 3, 1.0, 1.0])
    assert agreement(split, PREDICTIONS, np.array([1]), answer) is None
    tagged = EvalSet(task_named("token_classification"), ("O",), EXAMPLES, split.table, split.rows)
    assert agreement(tagged, PREDICTIONS, np.arange(3), answer) is None, (
        "only questions have paraphrases"
    )


def test_a_sample_is_reproducible_and_sorted(
    split: EvalSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert sample(split).tolist() == [0, 1, 2]
    monkeypatch.setattr(measures, "SAMPLE_SIZE", 2)
    assert sample(split).tolist() == sorted(set(sample(split).tolist()))
    assert len(sample(split)) == 2


def test_the_table_has_all_measures_of_each_decision(split: EvalSet) -> None:
    logits = [np.array([[0.0, 2.0, 1.0]]), np.array([[3.0, 0.0, 0.0]]), np.array([[0.0, 0.0]])]
    test = gather(logits, [1, 0, 0], [True, False, True])
    frame = confidence_measures(gather([], [], []), test, np.array([0, 2]), np.array([0.5, 1.0]))
    assert list(frame) == ["raw", "calibrated", "margin", "agreement", "right"]
    assert (
        frame["raw"].tolist()
        == frame["calibrated"].tolist()
        == pytest.approx([np.e**2 / (1 + np.e + np.e**2), 0.5])
    )
    assert frame["margin"].tolist() == pytest.approx([np.e / (1 + np.e), 0.5])
    assert frame["agreement"].tolist() == [0.5, 1.0]
    assert frame["right"].tolist() == [True, True]
    validation = gather([np.array([[9.0, 0.0, 0.0], [9.0, 0.0, 0.0]])], [0, 0], [True, False])
    scaled = confidence_measures(validation, test, np.arange(3), np.ones(3))
    assert scaled["raw"].tolist() != scaled["calibrated"].tolist()

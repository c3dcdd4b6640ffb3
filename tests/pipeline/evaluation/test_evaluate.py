"""Evaluation: sampled examples with all their windows, decoded in order for any batches."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pipeline.distributed.cluster import Ranks
from pipeline.evaluation import evaluate
from pipeline.evaluation.evaluate import EvalSet, decode, sample_eval_set, score
from pipeline.features.table import FeatureTable, write_features
from pipeline.mixing.batches import collate
from pipeline.model.prompt import DeepPrompt
from pipeline.tasks import task_named
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.token_classification import Example
from tests.support import one_rank, tiny


class Echo:
    """A task whose prediction is its input."""

    def decode(
        self, example: str, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> tuple[str, list[WindowLogits]]:
        return example, list(window_logits)


@pytest.fixture
def table(tmp_path: Path) -> FeatureTable:
    """Ten examples of one to three windows."""
    features, generator = [], np.random.default_rng(0)
    for number in range(10):
        for window in range(1 + number % 3):
            length = int(generator.integers(4, 12))
            ids = generator.integers(3, tiny.VOCABULARY, length).tolist()
            begin = 100 * number + 10 * window
            units = range(begin, begin + length - 2)
            features.append(
                Feature(
                    number,
                    ids,
                    [0] * length,
                    list(range(1, length - 1)),
                    [0] * (length - 2),
                    units,
                    units,
                    length - 2,
                )
            )
    write_features(features, tmp_path / "a.arrow")
    return FeatureTable(tmp_path / "a.arrow")


EXAMPLES = [f"example {number}" for number in range(10)]


def read(numbers: Any) -> list[str]:
    return EXAMPLES if numbers is None else [EXAMPLES[number] for number in numbers]


def test_without_a_limit_all_examples_are_in_order(table: FeatureTable) -> None:
    eval_set = sample_eval_set(read, table, Echo(), ("O",), None, seed=1)
    assert list(eval_set.examples) == EXAMPLES
    assert eval_set.rows.tolist() == list(range(len(table)))
    assert list(sample_eval_set(read, table, Echo(), ("O",), 99, seed=1).examples) == EXAMPLES


def test_a_sample_depends_on_the_seed_and_holds_all_windows_of_its_examples(
    table: FeatureTable,
) -> None:
    eval_set = sample_eval_set(read, table, Echo(), ("O",), 4, seed=1)
    numbers = [EXAMPLES.index(example) for example in eval_set.examples]
    assert numbers == sorted(numbers)
    assert len(numbers) == 4
    assert eval_set.rows.tolist() == [
        row for row in range(len(table)) if table.examples[row] in numbers
    ]
    again = sample_eval_set(read, table, Echo(), ("O",), 4, seed=1)
    assert list(again.examples) == list(eval_set.examples)
    more = sample_eval_set(read, table, Echo(), ("O",), 7, seed=1)
    assert set(eval_set.examples) < set(more.examples), "a larger sample contains the smaller one"
    others = [
        sample_eval_set(read, table, Echo(), ("O",), 4, seed=seed).examples for seed in range(2, 6)
    ]
    assert any(list(other) != list(eval_set.examples) for other in others)


@pytest.mark.parametrize("block", [1, 4, 4096])
@pytest.mark.parametrize("budget", [1, 30, 2048])
def test_each_example_is_decoded_from_all_its_windows(
    block: int, budget: int, table: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluate, "ROWS_PER_BLOCK", block)
    model = tiny.prompted("deep_prompt")
    eval_set = sample_eval_set(read, table, Echo(), ("O", "B-X", "I-X"), 7, seed=1)
    decoded = decode(model, eval_set, 0, 0, budget)
    assert [example for example, _ in decoded] == list(eval_set.examples)
    for example, window_logits in decoded:
        rows = np.flatnonzero(table.examples == EXAMPLES.index(example))
        assert [window.begins.tolist() for window in window_logits] == [
            table.column("begins", row).tolist() for row in rows
        ]
        for row, window in zip(rows, window_logits, strict=True):
            with torch.no_grad():
                expected = model(collate(table, np.array([row]), 0, 0))[0].numpy()
            assert window.logits.shape == (int(table.label_counts[row]), 3)
            np.testing.assert_allclose(window.logits, expected, atol=1e-5)


def test_decode_of_no_examples_is_empty(table: FeatureTable) -> None:
    eval_set = sample_eval_set(read, table, Echo(), ("O",), 0, seed=1)
    assert decode(tiny.prompted("deep_prompt"), eval_set, 0, 0) == []


def test_score_uses_the_metric_of_the_task(table: FeatureTable) -> None:
    task = task_named("token_classification")
    examples = [
        Example("a", ("in", "Rome"), ("O", "B-LOC")),
        Example("b", ("in", "Bonn"), ("O", "B-LOC")),
    ]
    eval_set = EvalSet(task, task.classes(("LOC",)), examples, table, table.examples)
    assert score(eval_set, [["O", "B-LOC"], ["O", "O"]], {}).overall["recall"] == 50.0


@pytest.mark.parametrize("text", [False, True])
def test_predictions_in_training_are_made_without_dropout(text: bool, tmp_path: Path) -> None:
    """The model stays in training mode."""
    model = one_rank.model_of("multitask", text)
    assert isinstance(model.prompt, DeepPrompt)
    model.prompt.dropout.p = 0.5
    expected = one_rank.predict_rows(model.eval(), tmp_path, Ranks())
    model.train()
    for seed in range(2):
        torch.manual_seed(seed)
        assert one_rank.predict_rows(model, tmp_path, Ranks()) == expected
    assert model.training

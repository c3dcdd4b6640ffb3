"""Micro-batches: padding, order and weights; the weights make the loss independent of ranks."""

from collections import Counter

import numpy as np
import pytest
import torch

from pipeline.features.table import FeatureTable
from pipeline.mixing.batches import IGNORE_INDEX, TrainBatches, collate, sorted_rows
from pipeline.mixing.rates import RATE_SCALE
from tests.support import tiny


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> list[FeatureTable]:
    folder = tmp_path_factory.mktemp("tables")
    return [tiny.table(folder, "classes", 40, 1), tiny.table(folder, "positions", 25, 2)]


def test_rows_are_padded_on_the_right(tables: list[FeatureTable]) -> None:
    for kind, table in zip(("classes", "positions"), tables, strict=True):
        rows = np.array([3, 0, 7, 11])
        batch = collate(table, rows, tasks=1, pad_token_id=59)
        all_features = tiny.features(kind, 20, 1 if kind == "classes" else 2)
        features = [all_features[row] for row in rows]
        length = max(len(feature.input_ids) for feature in features)
        positions = max(len(feature.positions) for feature in features)
        assert batch.task == 1
        assert batch.input_ids.tolist() == [
            [*feature.input_ids] + [59] * (length - len(feature.input_ids)) for feature in features
        ]
        assert batch.attention_mask.tolist() == [
            [1] * len(feature.input_ids) + [0] * (length - len(feature.input_ids))
            for feature in features
        ]
        assert batch.token_types.shape == batch.input_ids.shape
        assert batch.positions.tolist() == [
            [*feature.positions] + [0] * (positions - len(feature.positions))
            for feature in features
        ]
        assert batch.position_mask.dtype == torch.bool
        assert batch.position_mask.sum(dim=1).tolist() == [
            len(feature.positions) for feature in features
        ]
        width = positions if kind == "classes" else 2
        assert batch.labels.tolist() == [
            [*feature.labels] + [IGNORE_INDEX] * (width - len(feature.labels))
            for feature in features
        ]
        assert batch.input_ids.dtype == batch.labels.dtype == torch.int64


def contents(batches: TrainBatches, step: int) -> list[tuple[int, list[int], float]]:
    return [(micro.task, micro.rows.tolist(), micro.weight) for micro in batches.step(step)]


def test_a_step_is_a_function_of_its_seed_and_index(tables: list[FeatureTable]) -> None:
    rates = [RATE_SCALE * 3 // 4, RATE_SCALE // 4]
    forward = TrainBatches(tables, rates, 48, 4, seed=5)
    steps = [contents(forward, step) for step in range(30)]
    backward = TrainBatches(tables, rates, 48, 4, seed=5)
    assert [contents(backward, step) for step in reversed(range(30))] == steps[::-1]
    other_seed = TrainBatches(tables, rates, 48, 4, seed=6)
    assert [contents(other_seed, step) for step in range(30)] != steps
    tasks = Counter(task for step in steps for task, _, _ in step)
    assert tasks == {0: 90, 1: 30}


def test_the_order_of_micro_batches_does_not_depend_on_the_size_of_a_step(
    tables: list[FeatureTable],
) -> None:
    rates = [RATE_SCALE // 2, RATE_SCALE // 2]
    sequences = []
    for micro_batches_per_step in (1, 3, 4):
        batches = TrainBatches(tables, rates, 48, micro_batches_per_step, seed=5)
        sequences.append(
            [
                (micro.task, micro.rows.tolist())
                for step in range(24 // micro_batches_per_step)
                for micro in batches.step(step)
            ]
        )
    assert sequences[0] == sequences[1] == sequences[2]


def test_an_epoch_holds_every_row_of_a_corpus_once(tables: list[FeatureTable]) -> None:
    batches = TrainBatches(tables, [RATE_SCALE // 2, RATE_SCALE // 2], 48, 2, seed=0)
    for task, table in enumerate(tables):
        rows = [
            micro.rows for step in range(40) for micro in batches.step(step) if micro.task == task
        ]
        per_epoch = batches.task_batches[task].per_epoch
        assert sorted(np.concatenate(rows[:per_epoch]).tolist()) == list(range(len(table)))
        assert batches.epochs(task, 40) == len(rows) / per_epoch


@pytest.mark.parametrize("micro_batches_per_step", [1, 2, 5, 8])
def test_the_loss_of_a_step_is_the_mean_of_the_task_losses_weighted_by_their_shares(
    tables: list[FeatureTable], micro_batches_per_step: int
) -> None:
    generator = np.random.default_rng(0)
    losses = [
        [generator.uniform(0, 9, int(count)) for count in table.label_counts] for table in tables
    ]
    batches = TrainBatches(
        tables, [RATE_SCALE // 3, RATE_SCALE - RATE_SCALE // 3], 48, micro_batches_per_step, seed=3
    )
    for step in range(10):
        micro_batches = batches.step(step)
        assert len(micro_batches) == micro_batches_per_step
        weighted = [
            sum(losses[micro.task][row].sum() for row in micro.rows) * micro.weight
            for micro in micro_batches
        ]
        total = sum(weighted) / micro_batches_per_step
        by_task: dict[int, list[float]] = {}
        for micro in micro_batches:
            by_task.setdefault(micro.task, []).extend(
                value for row in micro.rows for value in losses[micro.task][row]
            )
        shares = {
            task: sum(micro.task == task for micro in micro_batches) / micro_batches_per_step
            for task in by_task
        }
        assert total == pytest.approx(
            sum(shares[task] * np.mean(values) for task, values in by_task.items())
        )


def test_sorted_rows_hold_each_row_once_within_the_budget(tables: list[FeatureTable]) -> None:
    table, rows = tables[0], np.array([30, 2, 4, 9, 17, 18, 19, 39])
    batches = list(sorted_rows(table, rows, 30))
    assert sorted(np.concatenate(batches).tolist()) == sorted(rows.tolist())
    for batch_rows in batches:
        batch = collate(table, batch_rows, tasks=0, pad_token_id=0)
        assert batch.input_ids.numel() <= 30
        for row, ids, mask in zip(batch.rows, batch.input_ids, batch.attention_mask, strict=True):
            assert ids[mask.bool()].tolist() == table.column("input_ids", row).tolist()
    lengths = [int(table.lengths[row]) for batch in batches for row in batch]
    assert lengths == sorted(lengths, reverse=True), "if the first batch fits into memory, all do"
    assert list(sorted_rows(table, rows[:0], 30)) == []


def test_a_row_longer_than_the_budget_is_a_batch_of_its_own(tables: list[FeatureTable]) -> None:
    assert [len(batch) for batch in sorted_rows(tables[0], np.arange(5), 1)] == [1] * 5

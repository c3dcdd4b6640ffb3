"""Micro-batches: padded on the right, a function of seed and step, and weighted so that a split of the step changes nothing."""

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
        made = tiny.features(kind, 20, 1 if kind == "classes" else 2)
        features = [made[row] for row in rows]
        length, positions = (
            max(len(f.input_ids) for f in features),
            max(len(f.positions) for f in features),
        )
        assert batch.task == 1
        assert batch.input_ids.tolist() == [
            [*f.input_ids] + [59] * (length - len(f.input_ids)) for f in features
        ]
        assert batch.attention_mask.tolist() == [
            [1] * len(f.input_ids) + [0] * (length - len(f.input_ids)) for f in features
        ]
        assert batch.token_types.shape == batch.input_ids.shape
        assert batch.positions.tolist() == [
            [*f.positions] + [0] * (positions - len(f.positions)) for f in features
        ]
        assert batch.position_mask.dtype == torch.bool
        assert batch.position_mask.sum(dim=1).tolist() == [len(f.positions) for f in features]
        width = positions if kind == "classes" else 2
        assert batch.labels.tolist() == [
            [*f.labels] + [IGNORE_INDEX] * (width - len(f.labels)) for f in features
        ]
        assert batch.input_ids.dtype == batch.labels.dtype == torch.int64


def plan(batches: TrainBatches, step: int) -> list[tuple[int, list[int], float]]:
    return [(micro.task, micro.rows.tolist(), micro.weight) for micro in batches.step(step)]


def test_a_step_is_a_function_of_seed_and_number(tables: list[FeatureTable]) -> None:
    rates = [RATE_SCALE * 3 // 4, RATE_SCALE // 4]
    first = TrainBatches(tables, rates, 48, 4, seed=5)
    steps = [plan(first, step) for step in range(30)]
    later = TrainBatches(tables, rates, 48, 4, seed=5)
    assert [plan(later, step) for step in reversed(range(30))] == steps[::-1]
    assert [plan(TrainBatches(tables, rates, 48, 4, seed=6), step) for step in range(30)] != steps
    tasks = Counter(task for step in steps for task, _, _ in step)
    assert tasks == {0: 90, 1: 30}


def test_steps_of_any_size_are_one_line_of_micro_batches(tables: list[FeatureTable]) -> None:
    rates = [RATE_SCALE // 2, RATE_SCALE // 2]
    lines = []
    for micro_batches_per_step in (1, 3, 4):
        batches = TrainBatches(tables, rates, 48, micro_batches_per_step, seed=5)
        lines.append(
            [
                (micro.task, micro.rows.tolist())
                for step in range(24 // micro_batches_per_step)
                for micro in batches.step(step)
            ]
        )
    assert lines[0] == lines[1] == lines[2]


def test_a_corpus_is_gone_through_whole_before_it_comes_again(tables: list[FeatureTable]) -> None:
    batches = TrainBatches(tables, [RATE_SCALE // 2, RATE_SCALE // 2], 48, 2, seed=0)
    for task, table in enumerate(tables):
        line = [
            micro.rows for step in range(40) for micro in batches.step(step) if micro.task == task
        ]
        epoch = batches.packings[task].per_epoch
        assert sorted(np.concatenate(line[:epoch]).tolist()) == list(range(len(table)))
        assert batches.epochs(task, 40) == len(line) / epoch


@pytest.mark.parametrize("micro_batches_per_step", [1, 2, 5, 8])
def test_the_step_is_the_share_weighted_mean_of_each_tasks_mean(
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
        total = (
            sum(
                sum(losses[micro.task][row].sum() for row in micro.rows) * micro.weight
                for micro in micro_batches
            )
            / micro_batches_per_step
        )
        by_task: dict[int, list[float]] = {}
        for micro in micro_batches:
            by_task.setdefault(micro.task, []).extend(
                value for row in micro.rows for value in losses[micro.task][row]
            )
        share = {
            task: sum(micro.task == task for micro in micro_batches) / micro_batches_per_step
            for task in by_task
        }
        assert total == pytest.approx(
            sum(share[task] * np.mean(values) for task, values in by_task.items())
        )


def test_evaluation_covers_each_row_once_under_the_budget(tables: list[FeatureTable]) -> None:
    table, rows = tables[0], np.array([30, 2, 4, 9, 17, 18, 19, 39])
    batches = list(sorted_rows(table, rows, 30))
    assert sorted(np.concatenate(batches).tolist()) == sorted(rows.tolist())
    for chosen in batches:
        batch = collate(table, chosen, tasks=0, pad_token_id=0)
        assert batch.input_ids.numel() <= 30
        for row, ids, mask in zip(batch.rows, batch.input_ids, batch.attention_mask, strict=True):
            assert ids[mask.bool()].tolist() == table.column("input_ids", row).tolist()
    lengths = [int(table.lengths[row]) for batch in batches for row in batch]
    assert lengths == sorted(lengths, reverse=True), "the longest first: what fits them fits all"
    assert list(sorted_rows(table, rows[:0], 30)) == []


def test_a_row_longer_than_the_budget_is_evaluated_alone(tables: list[FeatureTable]) -> None:
    assert [len(batch) for batch in sorted_rows(tables[0], np.arange(5), 1)] == [1] * 5

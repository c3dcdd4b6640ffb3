"""Micro-batches of a step, from features and a schedule, as padded tensors."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.features.table import Columns, Table
from pipeline.mixing.schedule import Schedule, TokenBudgetBatches
from pipeline.seeding import Ints, derive_seed

IGNORE_INDEX = -100  # label at padding


@dataclass(frozen=True)
class Batch:
    """B rows, with at most T tokens and N positions, padded on the right.

    `tasks` is the index of the task of all rows, or of each row [B]. `input_ids`, `attention_mask`
    and `token_types` are [B, T]; `positions` and `position_mask` are [B, N]. `labels` are class
    indices [B, N] or indices into the positions [B, 2]. `cached_hidden` [B, T, C] is the cached
    output of the layers below the prompt, if there is a cache.
    """

    tasks: int | Tensor
    rows: Ints
    input_ids: Tensor
    attention_mask: Tensor
    token_types: Tensor
    positions: Tensor
    position_mask: Tensor
    labels: Tensor
    cached_hidden: Tensor | None = None

    @property
    def task(self) -> int:
        """The task of a batch of one task."""
        assert isinstance(self.tasks, int), "this batch mixes tasks"
        return self.tasks

    def to(self, device: torch.device) -> "Batch":
        """Copy the batch to `device`."""
        if device.type == "cpu":
            return self
        tensors: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **tensors)


def collate(table: Columns, rows: Ints, tasks: int | Tensor, pad_token_id: int) -> Batch:
    """Make a batch of the rows [B] of a table, padded to the longest of them.

    `tasks` is the index of the task of all rows, or of each row [B].
    """
    ids = [table.column("input_ids", row) for row in rows]
    positions = [table.column("positions", row) for row in rows]
    input_ids, attention_mask = _padded(ids, pad_token_id)
    padded_positions, position_mask = _padded(positions, 0)
    return Batch(
        tasks=tasks,
        rows=rows,
        input_ids=input_ids,
        attention_mask=attention_mask,
        token_types=_padded([table.column("token_types", row) for row in rows], 0)[0],
        positions=padded_positions,
        position_mask=position_mask.bool(),
        labels=_padded([table.column("labels", row) for row in rows], IGNORE_INDEX)[0],
    )


def _padded(lists: Sequence[Ints], fill: int) -> tuple[Tensor, Tensor]:
    lengths = np.array([len(values) for values in lists])
    mask = np.arange(lengths.max(initial=1))[None, :] < lengths[:, None]
    values = np.full(mask.shape, fill, dtype=np.int64)
    values[mask] = np.concatenate(lists) if len(lists) else []
    return torch.from_numpy(values), torch.from_numpy(mask.astype(np.int64))


@dataclass(frozen=True)
class MicroBatch:
    """Rows of one task, and the factor for the sum of their label losses (see `TrainBatches`)."""

    task: int
    rows: Ints
    weight: float


class TrainBatches:
    """The micro-batches of each step, a pure function of (seed, step).

    The loss of a task is the mean over all its labels in the step. The loss of the step weights
    each task by its share of the micro-batches. It is the mean over micro-batches of
    (sum of label losses) * (micro-batches of the task) / (labels of the task in the step), so it
    does not depend on the number of ranks.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        rates: Sequence[int],
        tokens_per_micro_batch: int,
        micro_batches_per_step: int,
        seed: int,
    ) -> None:
        self.tables = tables
        self.micro_batches_per_step, self.seed = micro_batches_per_step, seed
        self.schedule = Schedule(tuple(rates))
        self.task_batches = [
            TokenBudgetBatches(
                table.lengths,
                tokens_per_micro_batch,
                derive_seed(seed, task),
                table.tokens,
                table.longest,
            )
            for task, table in enumerate(tables)
        ]

    def step(self, step: int) -> list[MicroBatch]:
        """All micro-batches of step `step`, in order, for all ranks."""
        first = step * self.micro_batches_per_step
        tasks = [self.schedule.corpus(k) for k in range(first, first + self.micro_batches_per_step)]
        rows = [
            self.task_batches[task].rows(self.schedule.count(task, k))
            for k, task in enumerate(tasks, first)
        ]
        micro_batches = Counter(tasks)
        labels: Counter[int] = Counter()
        for task, task_rows in zip(tasks, rows, strict=True):
            labels[task] += int(self.tables[task].label_counts[task_rows].sum())
        return [
            MicroBatch(task, task_rows, micro_batches[task] / max(1, labels[task]))
            for task, task_rows in zip(tasks, rows, strict=True)
        ]

    def count(self, micro_batches: Sequence[MicroBatch]) -> list[dict[str, int]]:
        """Counts of each task in some micro-batches.

        They are the micro-batches, the rows, the tokens without padding, and the labels
        (`loss_tokens`).
        """
        counts = [
            dict.fromkeys(("micro_batches", "rows", "tokens", "loss_tokens"), 0)
            for _ in self.tables
        ]
        for micro in micro_batches:
            table, task_counts = self.tables[micro.task], counts[micro.task]
            task_counts["micro_batches"] += 1
            task_counts["rows"] += len(micro.rows)
            task_counts["tokens"] += int(table.lengths[micro.rows].sum())
            task_counts["loss_tokens"] += int(table.label_counts[micro.rows].sum())
        return counts

    def epochs(self, task: int, steps: int) -> float:
        """Number of epochs over the rows of `task` in `steps` steps."""
        return (
            self.schedule.count(task, steps * self.micro_batches_per_step)
            / self.task_batches[task].per_epoch
        )


def sorted_rows(table: Table, rows: Ints, batch_tokens: int) -> Iterator[Ints]:
    """Batches of `rows` of a table for evaluation (see `length_batches`)."""
    return (rows[batch] for batch in length_batches(table.lengths[rows], batch_tokens))


def length_batches(
    lengths: Sequence[int] | NDArray[np.integer[Any]],
    batch_tokens: int,
    extra_tokens: int = 0,
    max_padding: int | None = None,
) -> Iterator[Ints]:
    """The indices of the texts of each batch, the longest texts first.

    `lengths` are in tokens. With its padding and `extra_tokens` for each text, a batch has at most
    `batch_tokens` tokens, or one text. It has at most `max_padding` tokens of padding (None: any
    number).
    """
    lengths = np.asarray(lengths, np.int64)
    order, start = np.argsort(-lengths, kind="stable"), 0
    while start < len(order):
        longest = int(lengths[order[start]])
        batch = order[start : start + max(1, batch_tokens // (longest + extra_tokens))]
        if max_padding is not None:
            batch = batch[np.cumsum(longest - lengths[batch]) <= max_padding]
        yield batch
        start += len(batch)

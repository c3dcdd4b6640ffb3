"""Features + schedule -> the micro-batches of a step, as padded tensors."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.features.table import Columns, Table
from pipeline.mixing.schedule import Schedule, TokenBudgetBatches
from pipeline.seeding import Ints, derive_seed

IGNORE_INDEX = -100  # a label position that pads


@dataclass(frozen=True)
class Batch:
    """B rows, padded to T tokens and N positions.

    `tasks` is the number of the rows' task, or each row's [B]; `input_ids`, `attention_mask` and `token_types` [B, T];
    `positions` and `position_mask` [B, N]; `labels` [B, N] class numbers, or [B, 2] indices into positions. `cached_hidden`
    [B, T, C] is the output of the layers below the prompt, where it is cached.
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
        """The same batch on `device`."""
        if device.type == "cpu":
            return self
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, **moved)


def collate(table: Columns, rows: Ints, tasks: int | Tensor, pad_token_id: int) -> Batch:
    """Pad rows of a table to the longest of them. `tasks` is the number of their task, or each row's [B]."""
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
    """Rows of one task, and what to multiply the sum of their losses by (see `TrainBatches`)."""

    task: int
    rows: Ints
    weight: float


class TrainBatches:
    """The micro-batches of each step, a pure function of (seed, step).

    A step's loss is, for each task, the mean over all that task's labels in the step, weighted by the task's share of the
    step's micro-batches. So it does not depend on how many ranks share the step: micro-batch loss =
    (sum of its label losses) * (micro-batches of its task) / (labels of its task in the step), averaged over the step.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        rates: Sequence[int],
        batch_tokens: int,
        micro_batches_per_step: int,
        seed: int,
    ) -> None:
        self.tables = tables
        self.micro_batches_per_step, self.seed = micro_batches_per_step, seed
        self.schedule = Schedule(tuple(rates))
        self.packings = [
            TokenBudgetBatches(
                table.lengths, batch_tokens, derive_seed(seed, task), table.tokens, table.longest
            )
            for task, table in enumerate(tables)
        ]

    def step(self, step: int) -> list[MicroBatch]:
        """All micro-batches of step `step`, in order; a rank trains on some of them."""
        first = step * self.micro_batches_per_step
        tasks = [self.schedule.corpus(k) for k in range(first, first + self.micro_batches_per_step)]
        rows = [
            self.packings[task].rows(self.schedule.count(task, k))
            for k, task in enumerate(tasks, first)
        ]
        micro_batches = Counter(tasks)
        labels: Counter[int] = Counter()
        for task, chosen in zip(tasks, rows, strict=True):
            labels[task] += int(self.tables[task].label_counts[chosen].sum())
        return [
            MicroBatch(task, chosen, micro_batches[task] / max(1, labels[task]))
            for task, chosen in zip(tasks, rows, strict=True)
        ]

    def size(self, micro_batches: Sequence[MicroBatch]) -> tuple[int, int]:
        """How many rows they hold, and how many tokens, without padding."""
        return (
            sum(len(micro.rows) for micro in micro_batches),
            sum(int(self.tables[micro.task].lengths[micro.rows].sum()) for micro in micro_batches),
        )

    def consumed(self, steps: int) -> list[dict[str, int]]:
        """What the first `steps` steps hold of each task: micro-batches, rows, tokens without padding, labels (loss tokens)."""
        totals = [
            dict.fromkeys(("micro_batches", "rows", "tokens", "loss_tokens"), 0)
            for _ in self.tables
        ]
        for k in range(steps * self.micro_batches_per_step):
            task = self.schedule.corpus(k)
            rows, table = self.packings[task].rows(self.schedule.count(task, k)), self.tables[task]
            counts = (
                1,
                len(rows),
                int(table.lengths[rows].sum()),
                int(table.label_counts[rows].sum()),
            )
            totals[task] = {
                name: total + more
                for (name, total), more in zip(totals[task].items(), counts, strict=True)
            }
        return totals

    def epochs(self, task: int, steps: int) -> float:
        """How often `steps` steps go through all rows of a task."""
        return (
            self.schedule.count(task, steps * self.micro_batches_per_step)
            / self.packings[task].per_epoch
        )


def sorted_rows(table: Table, rows: Ints, batch_tokens: int) -> Iterator[Ints]:
    """All `rows`, longest first, in batches of at most `batch_tokens` tokens with padding: for evaluation."""
    order = rows[np.argsort(-table.lengths[rows], kind="stable")]
    start = 0
    while start < len(order):
        size = max(1, batch_tokens // int(table.lengths[order[start]]))
        yield order[start : start + size]
        start += size

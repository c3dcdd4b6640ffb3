"""A model on a split: logits, decoded, scored."""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.distributed.cluster import Ranks
from pipeline.distributed.collectives import all_reduce_sum
from pipeline.features.table import Table
from pipeline.metrics import Metrics
from pipeline.mixing.batches import collate, sorted_rows
from pipeline.model.prompted_model import PromptedModel
from pipeline.seeding import Ints, permute
from pipeline.tasks.base.features import WindowLogits
from pipeline.tasks.base.task import Task

SINGLE_PROCESS = Ranks()
BLOCK = 4096  # features whose logits are in memory at once


@dataclass(frozen=True)
class EvalSet:
    """Some examples of one split of a task, with the features of exactly these."""

    task: Task[Any, Any, Any]
    classes: tuple[str, ...]
    examples: Sequence[Any]
    table: Table
    rows: Ints


def make_eval_set(
    read: Callable[[Ints | None], Iterable[Any]],
    table: Table,
    task: Task[Any, Any, Any],
    classes: tuple[str, ...],
    limit: int | None,
    seed: int,
) -> EvalSet:
    """The split's first `limit` examples in the order of a seeded permutation (all where None), in the split's own order.

    `read` gives the examples with some numbers, which rise, or all. Takes time and memory for those chosen.
    """
    count = int(table.examples[-1]) + 1  # every example has a feature, and they come in order
    if limit is None or limit >= count:
        return EvalSet(task, classes, list(read(None)), table, np.arange(len(table)))
    chosen = np.sort(permute(np.arange(limit), count, seed))
    bounds = [
        np.searchsorted(table.examples, chosen.astype(np.int32), side) for side in ("left", "right")
    ]
    rows = np.concatenate([chosen[:0], *(np.arange(*bound) for bound in zip(*bounds, strict=True))])
    return EvalSet(task, classes, list(read(chosen)), table, rows)


def decode(
    model: PromptedModel,
    split: EvalSet,
    number: int,
    pad_token_id: int,
    batch_tokens: int = 2048,
    ranks: Ranks = SINGLE_PROCESS,
) -> list[Any]:
    """Each example's decoded prediction by head `number`, in the order of `split.examples`; needs no gradient or threshold."""
    every = window_logits(model, split, number, pad_token_id, batch_tokens, ranks)
    return [
        split.task.decode(example, seen, split.classes)
        for example, seen in zip(split.examples, every, strict=True)
    ]


def window_logits(
    model: PromptedModel,
    split: EvalSet,
    number: int,
    pad_token_id: int,
    batch_tokens: int = 2048,
    ranks: Ranks = SINGLE_PROCESS,
) -> Iterator[list[WindowLogits]]:
    """What the model says of all windows of each example, in the order of `split.examples`.

    Ranks share the batches, and all of them get everything.
    """
    for rows in _blocks(split):
        logits = _logits(model, split.table, rows, number, pad_token_id, batch_tokens, ranks)
        numbers = split.table.examples[rows]
        for group in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(numbers)) + 1):
            yield [_window(split.table, int(rows[i]), logits[i]) for i in group]


def _window(table: Table, row: int, logits: NDArray[Any]) -> WindowLogits:
    return WindowLogits(table.column("begins", row), table.column("ends", row), logits)


def _blocks(split: EvalSet) -> Iterator[Ints]:
    """Stretches of rows that hold whole examples."""
    start, numbers = 0, split.table.examples[split.rows]
    while start < len(split.rows):
        end = min(start + BLOCK, len(split.rows))
        while end < len(split.rows) and numbers[end] == numbers[end - 1]:
            end += 1
        yield split.rows[start:end]
        start = end


def _logits(
    model: PromptedModel,
    table: Table,
    rows: Ints,
    number: int,
    pad_token_id: int,
    batch_tokens: int,
    ranks: Ranks,
) -> list[NDArray[Any]]:
    """The logits [N, classes] of each row.

    The batches are those of one rank, so each row's are the same to the bit in any number of ranks, which fill in what they have
    and add it all up. All ranks do equally many, since under ZeRO 3 each batch needs all of them.
    """
    counts = np.array([len(table.column("positions", int(row))) for row in rows])
    ends = np.cumsum(counts)
    found = np.zeros((int(ends[-1]), model.heads.classes[number]), dtype=np.float32)
    place = {
        int(row): slice(end - count, end)
        for row, end, count in zip(rows, ends, counts, strict=True)
    }
    batches = list(sorted_rows(table, rows, batch_tokens))
    device = next(model.parameters()).device
    with torch.no_grad(), eval_mode(model):
        for first in range(0, len(batches), ranks.world):
            mine = first + ranks.rank
            batch = collate(table, batches[min(mine, len(batches) - 1)], number, pad_token_id)
            values = model(batch.to(device)).float().cpu().numpy()
            for row, logits in zip(batch.rows if mine < len(batches) else (), values, strict=False):
                where = place[int(row)]
                found[where] = logits[: where.stop - where.start]
    every = all_reduce_sum(torch.from_numpy(found), ranks).numpy()
    return [every[place[int(row)]] for row in rows]


@contextlib.contextmanager
def eval_mode(model: PromptedModel) -> Iterator[None]:
    """Dropout off, and then as it was."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def score(split: EvalSet, decoded: Sequence[Any], thresholds: dict[str, float]) -> Metrics:
    """The split's score under thresholds that were decided elsewhere (on validation)."""
    return split.task.score(
        split.examples, split.task.predictions(split.examples, decoded, thresholds), split.classes
    )

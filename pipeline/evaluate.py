"""A model on a split: logits, decoded, scored."""

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.batches import sorted_batches
from pipeline.features import FeatureTable, WindowLogits
from pipeline.metrics import Metrics
from pipeline.mixture import Ints, permutation
from pipeline.model import PromptedModel
from pipeline.task import Task

BLOCK = 4096  # features whose logits are in memory at once


@dataclass(frozen=True)
class Split:
    """Some examples of one split of a task, with the features of exactly these."""

    task: Task[Any, Any, Any]
    classes: tuple[str, ...]
    examples: Sequence[Any]
    table: FeatureTable
    rows: Ints


def choose(examples: Iterable[Any], table: FeatureTable, task: Task[Any, Any, Any], classes: tuple[str, ...],
           limit: int | None, seed: int) -> Split:
    """The split's first `limit` examples in the order of a seeded hash (all where None), in the split's own order."""
    count = int(table.examples[-1]) + 1  # every example has a feature
    chosen = np.sort(permutation(count, seed)[:limit])
    rows = np.flatnonzero(np.isin(table.examples, chosen))
    numbers = set(chosen.tolist())
    return Split(task, classes, [example for number, example in enumerate(examples) if number in numbers], table, rows)


def decode(model: PromptedModel, split: Split, number: int, pad: int, batch_tokens: int = 2048) -> list[Any]:
    """Each example's decoded prediction by head `number`, in the order of `split.examples`; needs no gradient or threshold."""
    decoded: list[Any] = []
    for rows in _blocks(split):
        logits = _logits(model, split.table, rows, number, pad, batch_tokens)
        numbers = split.table.examples[rows]
        for group in np.split(np.arange(len(rows)), np.flatnonzero(np.diff(numbers)) + 1):
            seen = [_window(split.table, int(rows[i]), logits[i]) for i in group]
            decoded.append(split.task.decode(split.examples[len(decoded)], seen, split.classes))
    return decoded


def _window(table: FeatureTable, row: int, logits: NDArray[Any]) -> WindowLogits:
    return WindowLogits(table.column("begins", row), table.column("ends", row), logits)


def _blocks(split: Split) -> Iterator[Ints]:
    """Stretches of rows that hold whole examples."""
    start, numbers = 0, split.table.examples[split.rows]
    while start < len(split.rows):
        end = min(start + BLOCK, len(split.rows))
        while end < len(split.rows) and numbers[end] == numbers[end - 1]:
            end += 1
        yield split.rows[start:end]
        start = end


def _logits(model: PromptedModel, table: FeatureTable, rows: Ints, number: int, pad: int,
            batch_tokens: int) -> list[NDArray[Any]]:
    place = {int(row): i for i, row in enumerate(rows)}
    device = next(model.parameters()).device
    result: list[NDArray[Any]] = [np.empty(0)] * len(rows)
    with torch.no_grad(), evaluating(model):
        for batch in sorted_batches(table, rows, batch_tokens, number, pad):
            counts = batch.position_mask.sum(dim=1).tolist()
            values = model(batch.to(device)).float().cpu().numpy()
            for row, count, logits in zip(batch.rows, counts, values, strict=True):
                result[place[int(row)]] = logits[:count]
    return result


@contextlib.contextmanager
def evaluating(model: PromptedModel) -> Iterator[None]:
    """Dropout off, and then as it was."""
    before = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(before)


def scored(split: Split, decoded: Sequence[Any], thresholds: dict[str, float]) -> Metrics:
    """The split's score under thresholds that were decided elsewhere (on validation)."""
    return split.task.score(split.examples, split.task.predictions(split.examples, decoded, thresholds), split.classes)

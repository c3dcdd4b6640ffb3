"""Evaluation of a model on a split: logits, decoded predictions and score."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.distributed.cluster import Ranks
from pipeline.distributed.collectives import all_reduce_sum
from pipeline.evaluation.generation import generated_texts, sources
from pipeline.evaluation.ranking import rankings
from pipeline.features.table import Table, rows_of_examples
from pipeline.metrics.base import Metrics
from pipeline.mixing.batches import collate, sorted_rows
from pipeline.model.prompted_model import PromptedModel, eval_mode
from pipeline.seeding import Ints, permute
from pipeline.tasks.base.capabilities import GeneratesText, RanksCandidates
from pipeline.tasks.base.features import WindowLogits, generated_window, ranked_window
from pipeline.tasks.base.task import Task

SINGLE_PROCESS = Ranks()
ROWS_PER_BLOCK = 4096  # rows whose logits are in memory at once


@dataclass(frozen=True)
class EvalSet:
    """Examples of one split of a task, and the `rows` of `table` with their features."""

    task: Task[Any, Any, Any]
    classes: tuple[str, ...]
    examples: Sequence[Any]
    table: Table
    rows: Ints


def sample_eval_set(
    read: Callable[[Ints | None], Iterable[Any]],
    table: Table,
    task: Task[Any, Any, Any],
    classes: tuple[str, ...],
    limit: int | None,
    seed: int,
) -> EvalSet:
    """Sample `limit` examples of a split (None: all), in the order of the split.

    The sample is the start of a permutation with seed `seed`, so a larger sample contains a smaller
    one. `read` returns the examples with the given indices, in rising order, or all examples for
    None. Time and memory depend on the size of the sample only.
    """
    count = int(table.examples[-1]) + 1  # every example has a feature, and the indices rise
    if limit is None or limit >= count:
        return EvalSet(task, classes, list(read(None)), table, np.arange(len(table)))
    sample = np.sort(permute(np.arange(limit), count, seed))
    rows = [np.arange(rows.start, rows.stop) for rows in rows_of_examples(table, sample)]
    return EvalSet(task, classes, list(read(sample)), table, np.concatenate([sample[:0], *rows]))


def decode(
    model: PromptedModel,
    eval_set: EvalSet,
    head: int,
    pad_token_id: int,
    batch_tokens: int = 2048,
    ranks: Ranks = SINGLE_PROCESS,
) -> list[Any]:
    """Decoded predictions of the head with index `head`, in the order of `eval_set.examples`.

    Thresholds are not applied (see `score`).
    """
    logits = window_logits(model, eval_set, head, pad_token_id, batch_tokens, ranks)
    return [
        eval_set.task.decode(example, windows, eval_set.classes)
        for example, windows in zip(eval_set.examples, logits, strict=True)
    ]


def window_logits(
    model: PromptedModel,
    eval_set: EvalSet,
    head: int,
    pad_token_id: int,
    batch_tokens: int = 2048,
    ranks: Ranks = SINGLE_PROCESS,
) -> Iterator[list[WindowLogits]]:
    """Logits of all windows of each example, in the order of `eval_set.examples`.

    The ranks share the batches. Each rank gets the logits of all examples. An example of a task
    that generates text or ranks candidates has one window, with its text or ranking.
    """
    table, task, examples = eval_set.table, eval_set.task, iter(eval_set.examples)
    for rows in _blocks(eval_set):
        if isinstance(task, GeneratesText):
            first = rows[np.diff(table.examples[rows], prepend=-1) > 0]  # of each example
            for text in generated_texts(
                model, table, first, head, task.max_answer_length, batch_tokens, ranks
            ):
                yield [generated_window(text)]
            continue
        if isinstance(task, RanksCandidates):
            ask = task.asker(eval_set.classes, model.backbone.tokenizer)
            queries = [  # There is one row per example.
                ask(example, source)
                for source, example in zip(sources(table, rows), examples, strict=False)
            ]
            for ranking in rankings(model, queries, head, batch_tokens, ranks):
                yield [ranked_window(ranking)]
            continue
        logits = _logits(model, table, rows, head, pad_token_id, batch_tokens, ranks)
        boundaries = np.flatnonzero(np.diff(table.examples[rows])) + 1
        for group in np.split(np.arange(len(rows)), boundaries):
            yield [_window(table, int(rows[i]), logits[i]) for i in group]


def _window(table: Table, row: int, logits: NDArray[Any]) -> WindowLogits:
    return WindowLogits(table.column("begins", row), table.column("ends", row), logits)


def _blocks(eval_set: EvalSet) -> Iterator[Ints]:
    """Consecutive rows in blocks of `ROWS_PER_BLOCK`, extended to complete examples."""
    start, examples = 0, eval_set.table.examples[eval_set.rows]
    while start < len(examples):
        end = min(start + ROWS_PER_BLOCK, len(examples))
        while end < len(examples) and examples[end] == examples[end - 1]:
            end += 1
        yield eval_set.rows[start:end]
        start = end


def _logits(
    model: PromptedModel,
    table: Table,
    rows: Ints,
    head: int,
    pad_token_id: int,
    batch_tokens: int,
    ranks: Ranks,
) -> list[NDArray[Any]]:
    """The logits [N, classes] of each row.

    The batches do not depend on the number of ranks, so the logits are equal to the bit for any
    number. Each rank computes some batches; the sum over ranks is the result. All ranks run the
    same number of forward passes, because ZeRO 3 needs all ranks in each.
    """
    counts = np.array([len(table.column("positions", int(row))) for row in rows])
    ends = np.cumsum(counts)
    partial = np.zeros((int(ends[-1]), model.heads.classes[head]), dtype=np.float32)
    slices = {
        int(row): slice(end - count, end)
        for row, end, count in zip(rows, ends, counts, strict=True)
    }
    batches = list(sorted_rows(table, rows, batch_tokens))
    device = next(model.parameters()).device
    with torch.no_grad(), eval_mode(model):
        for first in range(0, len(batches), ranks.world):
            index = first + ranks.rank
            batch = collate(table, batches[min(index, len(batches) - 1)], head, pad_token_id)
            values = model(batch.to(device)).float().cpu().numpy()
            batch_rows = batch.rows if index < len(batches) else ()
            for row, logits in zip(batch_rows, values, strict=False):
                span = slices[int(row)]
                partial[span] = logits[: span.stop - span.start]
    total = all_reduce_sum(torch.from_numpy(partial), ranks).numpy()
    return [total[slices[int(row)]] for row in rows]


def score(eval_set: EvalSet, decoded: Sequence[Any], thresholds: dict[str, float]) -> Metrics:
    """Score decoded predictions under `thresholds`, which were fitted on the validation split."""
    predictions = eval_set.task.predictions(eval_set.examples, decoded, thresholds)
    return eval_set.task.score(eval_set.examples, predictions, eval_set.classes)

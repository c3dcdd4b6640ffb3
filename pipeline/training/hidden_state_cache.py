"""Cache for the output of the frozen layers below a prompt.

It is computed once per training row and reused in later epochs.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile

import numpy as np
import torch

from pipeline.features.table import Table
from pipeline.mixing.batches import Batch, collate, sorted_rows
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import TrainParams
from pipeline.seeding import Ints

# A constant, so that the cached values are a function of the rows only, equal to the bit.
BATCH_TOKENS = 2048


class HiddenStateCache:
    """The hidden states of the rows of a table [sum of lengths, C], in a memory-mapped file.

    The operating system removes the file when the process ends.
    """

    def __init__(
        self,
        model: PromptedModel,
        table: Table,
        rows: Ints,
        task: int,
        pad_token_id: int,
        folder: Path,
        device: torch.device,
        before_batch: Callable[[], None] = lambda: None,
    ) -> None:
        """Compute the hidden states of `rows`.

        Each rank writes a separate file in `folder`. Under ZeRO 3 all ranks must call this
        together. `before_batch` is called before each batch, and may raise to end the computation.
        """
        self._starts = np.full(len(table), -1, dtype=np.int64)
        total = 0  # tokens in the file so far
        with TemporaryFile(dir=folder) as file:
            for batch_rows in sorted_rows(table, rows, BATCH_TOKENS):
                before_batch()
                batch = collate(table, batch_rows, task, pad_token_id).to(device)
                states = model.lower_hidden_states(batch)[batch.attention_mask.bool()].cpu()
                ends = total + np.cumsum(table.lengths[batch_rows], dtype=np.int64)
                self._starts[batch_rows] = ends - table.lengths[batch_rows]
                total = int(ends[-1])
                file.write(states.view(torch.uint8).numpy().data)
            file.flush()
            # Mode "r+", because torch warns about a read-only array ("r"), and a private copy ("c")
            # would have to fit into memory.
            self._states = (
                torch.from_numpy(np.memmap(file, np.uint8, "r+")).view(states.dtype).view(total, -1)
            )

    def attach(self, batch: Batch) -> Batch:
        """The batch with the cached hidden states of its rows, and 0 at padding."""
        hidden = self._states.new_zeros(*batch.input_ids.shape, self._states.shape[1])
        lengths = batch.attention_mask.sum(1).tolist()
        for row, start, length in zip(
            hidden, self._starts[batch.rows].tolist(), lengths, strict=True
        ):
            row[:length] = self._states[start : start + length]
        return replace(batch, cached_hidden=hidden)


def make_hidden_state_cache(
    model: PromptedModel,
    tables: Sequence[Table],
    params: TrainParams,
    pad_token_id: int,
    folder: Path,
    device: torch.device,
    log: Callable[[str], None],
    before_batch: Callable[[], None],
) -> Callable[[Batch], Batch]:
    """A function that attaches cached hidden states to a batch of the tasks' `tables`.

    It fills the cache on its first call, so a finished run does not fill it. It returns batches
    unchanged if `hidden_state_cache_mb` is 0 or smaller than the cache. This decision depends only
    on the tables, the params and the precision, so it is the same on every rank.
    """
    if not params.hidden_state_cache_mb:
        return lambda batch: batch
    num_elements = sum(table.tokens for table in tables) * model.backbone.hidden_size
    megabytes = num_elements * model.backbone.dtype.itemsize / 1e6
    if megabytes > params.hidden_state_cache_mb:
        log(
            f"the output of the lower layers takes {megabytes:.1f} MB, but hidden_state_cache_mb "
            f"is {params.hidden_state_cache_mb}; computing it in every step"
        )
        return lambda batch: batch

    @cache
    def caches() -> list[HiddenStateCache]:
        log(f"caching the output of the lower layers on disk: {megabytes:.1f} MB")
        folder.mkdir(parents=True, exist_ok=True)
        return [
            HiddenStateCache(
                model,
                table,
                np.arange(len(table)),
                task,
                pad_token_id,
                folder,
                device,
                before_batch,
            )
            for task, table in enumerate(tables)
        ]

    return lambda batch: caches()[batch.task].attach(batch)

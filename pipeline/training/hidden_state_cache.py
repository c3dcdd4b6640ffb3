"""The output of the frozen layers below a prompt, computed once per training row and reused in
later epochs.
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

BATCH_TOKENS = (
    2048  # a constant, so that the cached values are a function of the rows alone, to the bit
)


class HiddenStateCache:
    """The hidden states of a table's rows [sum of lengths, C], in a memory-mapped file that
    vanishes with the process.
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
        before_each: Callable[[], None] = lambda: None,
    ) -> None:
        """Compute the hidden states of `rows`. Each rank writes its own file in `folder`; under
        ZeRO 3 all ranks must do so together.

        `before_each` is called before each batch, and may raise to end the computation.
        """
        self._starts = np.full(len(table), -1, dtype=np.int64)
        done = 0
        with TemporaryFile(dir=folder) as file:
            for chosen in sorted_rows(table, rows, BATCH_TOKENS):
                before_each()
                batch = collate(table, chosen, task, pad_token_id).to(device)
                states = model.lower_hidden_states(batch)[batch.attention_mask.bool()].cpu()
                ends = done + np.cumsum(table.lengths[chosen], dtype=np.int64)
                self._starts[chosen], done = ends - table.lengths[chosen], int(ends[-1])
                file.write(states.view(torch.uint8).numpy().data)
            file.flush()
            # "r+": torch warns of a read-only array, and a private copy ("c") would have to fit
            # into memory.
            self._states = (
                torch.from_numpy(np.memmap(file, np.uint8, "r+")).view(states.dtype).view(done, -1)
            )

    def attach(self, batch: Batch) -> Batch:
        """The batch with the hidden states of its rows, and 0 where it pads."""
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
    before_each: Callable[[], None],
) -> Callable[[Batch], Batch]:
    """A function that attaches cached hidden states to a batch of the tasks' `tables`.

    It fills the cache on its first call, so that a finished run fills none. Where the params ask
    for no cache, or it would be larger than they allow, it returns batches as they are; so the
    decision is the same on every machine.
    """
    if not params.hidden_state_cache_mb:
        return lambda batch: batch
    numbers = sum(table.tokens for table in tables) * model.backbone.hidden_size
    megabytes = numbers * getattr(torch, params.precision).itemsize / 1e6
    if megabytes > params.hidden_state_cache_mb:
        log(
            f"the output of the lower layers takes {megabytes:.1f} MB, more than "
            "hidden_state_cache_mb, "
            f"{params.hidden_state_cache_mb}; it is computed in every step"
        )
        return lambda batch: batch

    @cache
    def caches() -> list[HiddenStateCache]:
        log(f"caching the output of the lower layers on disk: {megabytes:.1f} MB")
        folder.mkdir(parents=True, exist_ok=True)
        return [
            HiddenStateCache(
                model, table, np.arange(len(table)), task, pad_token_id, folder, device, before_each
            )
            for task, table in enumerate(tables)
        ]

    return lambda batch: caches()[batch.task].attach(batch)

"""The texts that a model generates for a split."""

import torch

from pipeline.distributed.cluster import Ranks
from pipeline.distributed.collectives import all_reduce_sum
from pipeline.features.table import Table
from pipeline.mixing.batches import length_batches
from pipeline.model.generation import generate
from pipeline.model.prompted_model import PromptedModel, eval_mode
from pipeline.seeding import Ints
from pipeline.tasks.base.features import source_tokens


def generated_texts(
    model: PromptedModel,
    table: Table,
    rows: Ints,
    head: int,
    max_new_tokens: int,
    batch_tokens: int,
    ranks: Ranks,
) -> list[str]:
    """The text of each row, by greedy decoding, in the order of `rows`.

    The ranks share the batches, which do not depend on the number of ranks. All ranks run the same
    number of forward passes, because ZeRO 3 needs all ranks in each. Each rank gets all texts.
    """
    tokenizer = model.backbone.tokenizer
    row_sources = sources(table, rows)
    # Ids count from 1, so that 0 is the end of a text, and the sum over ranks is the result.
    partial = torch.zeros(len(rows), max_new_tokens, dtype=torch.int64)
    batches = list(length_batches([*map(len, row_sources)], batch_tokens, max_new_tokens))
    with eval_mode(model):
        for first in range(0, len(batches), ranks.world):
            index = first + ranks.rank
            batch = batches[min(index, len(batches) - 1)]
            texts = generate(
                model,
                [row_sources[i] for i in batch],
                head,
                tokenizer.suffix[0],
                max_new_tokens,
                synced=ranks.world > 1,
            )
            for i, ids in zip(batch if index < len(batches) else (), texts, strict=False):
                partial[i, : len(ids)] = torch.tensor(ids, dtype=torch.int64) + 1
    total = all_reduce_sum(partial, ranks)
    return [tokenizer.decode([id - 1 for id in row if id]) for row in total.tolist()]


def sources(table: Table, rows: Ints) -> list[list[int]]:
    """The tokens of each row up to the first position to predict."""
    return [
        source_tokens(table.column("input_ids", row), table.column("positions", row))
        for row in rows.tolist()
    ]

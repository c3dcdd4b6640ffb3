"""The rankings of candidates of a model for a split."""

from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.distributed.cluster import Ranks
from pipeline.distributed.collectives import all_reduce_sum
from pipeline.mixing.batches import length_batches
from pipeline.model.prompted_model import PromptedModel, eval_mode
from pipeline.model.ranking import rank, read_text
from pipeline.tasks.base.candidates import NUM_BEST, Ranking, RankingQuery


def rankings(
    model: PromptedModel,
    queries: Sequence[RankingQuery],
    head: int,
    batch_tokens: int,
    ranks: Ranks,
) -> list[Ranking]:
    """The ranking of each query, in order.

    The ranks share the batches, which do not depend on the number of ranks. All ranks run the same
    number of forward passes, because ZeRO 3 needs all ranks in each. Each rank gets all rankings.
    """
    texts = [query.context for query in queries]
    batches = list(length_batches([*map(len, texts)], batch_tokens))
    partial = torch.zeros(len(queries), 4 + 2 * NUM_BEST, dtype=torch.float64)
    with eval_mode(model):
        for batch in batches[ranks.rank :: ranks.world]:
            batch_rankings = rank(
                model,
                [queries[number] for number in batch],
                head,
                batch_tokens,
                lambda: _another_pass(True, ranks),
            )
            for number, ranking in zip(batch, batch_rankings, strict=True):
                partial[number] = _row(ranking)
        # The other ranks may need more passes: take part in them with any text.
        while _another_pass(False, ranks):
            read_text(model, texts[0], head)
    return [_ranking(row) for row in all_reduce_sum(partial, ranks)]


def _another_pass(is_needed: bool, ranks: Ranks) -> bool:
    """Whether any rank needs another forward pass. All ranks call this before each of them."""
    if ranks.world == 1:
        return is_needed
    return bool(all_reduce_sum(torch.tensor([int(is_needed)]), ranks))


def _row(ranking: Ranking) -> Tensor:
    """A ranking as numbers. Missing candidates have the number 0; others count from 1."""
    padding = [0.0] * (NUM_BEST - len(ranking.best))
    ranks = (ranking.rank, ranking.rank_all, ranking.rank_vocabulary)
    best = [number + 1 for number in ranking.best]
    values = [*ranks, ranking.rest, *best, *padding, *ranking.scores, *padding]
    return torch.tensor(values, dtype=torch.float64)


def _ranking(row: Tensor) -> Ranking:
    values = row.tolist()
    best = [int(number) - 1 for number in values[4 : 4 + NUM_BEST] if number]
    scores = values[4 + NUM_BEST :][: len(best)]
    ranks = map(int, values[:3])
    return Ranking(tuple(best), tuple(scores), values[3], *ranks)

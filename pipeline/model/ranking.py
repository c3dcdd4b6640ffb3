"""The ranking of candidate texts by the LM head, with the prompt in front of every layer.

The text before the candidates is read once. A forward pass then reads the tokens of many nodes,
each after the cached keys and values of its text (see `pipeline.tasks.base.candidates`).
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import DynamicCache

from pipeline.mixing.batches import length_batches
from pipeline.model.generation import prompted_body
from pipeline.model.prompt import PromptBank
from pipeline.model.prompted_model import PromptedModel
from pipeline.tasks.base.candidates import Node, Ranking, RankingQuery, Search

_dynamic_cache: type = DynamicCache  # transformers does not type it


def no_signal() -> None:
    """Do nothing before a forward pass: no other rank waits for it."""


def rank(
    model: PromptedModel,
    queries: Sequence[RankingQuery],
    task: int,
    batch_tokens: int,
    before_pass: Callable[[], object] = no_signal,
) -> list[Ranking]:
    """The ranking of each query, under the prompt of the task with index `task`.

    A forward pass has at most `batch_tokens` tokens with padding and cached tokens, or one row.
    `before_pass` is called before each forward pass.
    """
    with torch.no_grad():
        contexts = _CachedContexts(model, [query.context for query in queries], task, before_pass)
        searches = list(map(Search, queries, contexts.first))
        while rows := [
            (number, node) for number, search in enumerate(searches) for node in search.next_nodes()
        ]:
            lengths = [len(node.inputs) for _, node in rows]
            for batch in length_batches(lengths, batch_tokens, contexts.length):
                numbers, nodes = zip(*(rows[index] for index in batch), strict=True)
                for number, node, values in zip(
                    numbers, nodes, contexts.after(numbers, nodes), strict=True
                ):
                    searches[number].open(node, values)
    return [search.ranking() for search in searches]


def read_text(model: PromptedModel, text: Sequence[int], task: int) -> None:
    """Run a forward pass for a text, with no result."""
    with torch.no_grad():
        _CachedContexts(model, [text], task, no_signal)


class _CachedContexts:
    """The texts [F] before the candidates, with their cached keys and values.

    `first` [F] has the log-probabilities [V] of the token after each text. `length` is the number
    of tokens of the longest text.
    """

    def __init__(
        self,
        model: PromptedModel,
        texts: Sequence[Sequence[int]],
        task: int,
        before_pass: Callable[[], object],
    ) -> None:
        self._model, self._task, self._before_pass = model, task, before_pass
        self._device = model.backbone.device
        self.length = max(map(len, texts))
        ids, self._mask = model.backbone.pad(texts, 0, "left")
        self._cache = _dynamic_cache()
        positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
        hidden = self._read(ids, self._mask, positions, self._cache)
        self.first = self._log_probabilities(hidden[:, -1])

    def after(self, numbers: Sequence[int], nodes: Sequence[Node]) -> Iterator[NDArray[np.float32]]:
        """The log-probabilities [T, V] after each of the T tokens of a node, in its text.

        `numbers` [R] are the indices of the texts of the nodes [R].
        """
        index = torch.tensor(numbers, device=self._device)
        cache = _dynamic_cache(
            [(layer.keys[index], layer.values[index]) for layer in self._cache.layers]
        )
        lengths = [len(node.inputs) for node in nodes]
        longest = max(lengths)
        ids = torch.tensor([[*n.inputs, *[0] * (longest - len(n.inputs))] for n in nodes])
        # The padding on the right needs no mask, because no token before it attends to it.
        mask = nn.functional.pad(self._mask[index], (0, longest), value=1)
        start = self._mask[index].sum(dim=1, keepdim=True)
        positions = start + torch.arange(longest, device=self._device)
        hidden = self._read(ids, mask, positions, cache)
        real = torch.arange(longest)[None, :] < torch.tensor(lengths)[:, None]
        values = self._log_probabilities(hidden[real.to(self._device)])
        return iter(np.split(values, np.cumsum(lengths)[:-1]))

    def _read(self, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache) -> Tensor:
        """The hidden states [B, T, C] of tokens [B, T] after those in the cache, which grows."""
        self._before_pass()
        is_bank = isinstance(self._model.prompt, PromptBank)
        tasks = torch.full((len(ids),), self._task) if is_bank else self._task
        hidden: Tensor = prompted_body(self._model, tasks)(
            input_ids=ids.to(self._device),
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        return hidden

    def _log_probabilities(self, hidden: Tensor) -> NDArray[np.float32]:
        """The log-probabilities [N, V] of the next token after hidden states [N, C]."""
        logits = self._model.backbone.word_logits(hidden[None], None)[0]
        values: NDArray[np.float32] = logits.log_softmax(dim=-1).cpu().numpy()
        return values

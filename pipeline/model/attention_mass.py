"""The share of attention on a deep prompt, averaged over the tokens of many batches."""

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from pipeline.model.attention import PromptAttention


class AttentionMass:
    """The mean attention to the prompt, by layer and head, over the real tokens of batches."""

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}
        self._num_tokens: Counter[int] = Counter()

    def add(self, prompt_attention: PromptAttention, query_masks: Sequence[Tensor]) -> None:
        """Add a batch: what its forward pass recorded, and the mask [B, T] of each layer.

        See `Backbone.query_masks`.
        """
        for layer, mass in prompt_attention.items():
            real = query_masks[layer].double()
            total = torch.einsum("bht,bt->h", mass.double(), real).cpu()
            self._sums[layer] = self._sums.get(layer, torch.zeros_like(total)) + total
            self._num_tokens[layer] += int(real.sum())

    def mean(self) -> dict[int, list[float]]:
        """Layer -> for each head, the mean. Empty if no layer has a prompt."""
        return {
            layer: (total / self._num_tokens[layer]).tolist()
            for layer, total in sorted(self._sums.items())
        }

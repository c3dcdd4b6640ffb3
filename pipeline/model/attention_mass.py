"""The share of attention on a deep prompt, averaged over the tokens of many batches."""

import torch
from torch import Tensor

from pipeline.model.attention import PromptAttention


class AttentionMass:
    """The mean attention to the prompt, by layer and head, over the real tokens of batches."""

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}
        self._num_tokens = 0.0

    def add(self, prompt_attention: PromptAttention, attention_mask: Tensor) -> None:
        """Add a batch: what its forward pass recorded, and its mask [B, T]."""
        real = attention_mask.double()
        for layer, mass in prompt_attention.items():
            total = torch.einsum("bht,bt->h", mass.double(), real).cpu()
            self._sums[layer] = self._sums.get(layer, torch.zeros_like(total)) + total
        self._num_tokens += float(real.sum())

    def mean(self) -> dict[int, list[float]]:
        """Layer -> for each head, the mean. Empty if no layer has a prompt."""
        return {
            layer: (total / self._num_tokens).tolist()
            for layer, total in sorted(self._sums.items())
        }

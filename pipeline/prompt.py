"""Trained prompts: keys and values for every layer (deep), or input vectors (soft)."""

import torch
from torch import Tensor, nn

from pipeline.params import PromptInit

NORMAL_STD = 0.02


class DeepPrompt(nn.Module):
    """P extra key/value pairs in every layer's attention (P-tuning v2, arXiv 2110.07602, section 3.2).

    `key_values` [L, 2, H, P, D]: layers, key and value, key/value heads, virtual tokens, head size.
    """

    def __init__(self, key_values: Tensor) -> None:
        super().__init__()
        self.key_values = nn.Parameter(key_values.detach().clone().contiguous())

    @property
    def num_virtual_tokens(self) -> int:
        """P."""
        return self.key_values.shape[3]


class SoftPrompt(nn.Module):
    """P trained vectors in front of the input embeddings only (prompt tuning, Lester et al. 2021). `vectors` [P, C]."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().clone().contiguous())

    @property
    def num_virtual_tokens(self) -> int:
        """P."""
        return self.vectors.shape[0]


def initial_key_values(init: PromptInit, text_key_values: Tensor, seed: int) -> Tensor:
    """A start for `DeepPrompt`: the keys and values of real text as they are, all normal(0.02), or text keys with values 0.

    `text_key_values` [L, 2, H, P, D] gives the shape in every case.
    """
    if init == "text":
        return text_key_values
    if init == "normal":
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(text_key_values.shape, generator=generator) * NORMAL_STD
    keys_only = text_key_values.clone()
    keys_only[:, 1] = 0.0
    return keys_only

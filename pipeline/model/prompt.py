"""Trained prompts: keys and values for every layer (deep), or input vectors (soft)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from pipeline.params import PromptInit

NORMAL_STD = 0.02


class LayerPrompts(NamedTuple):
    """What attention gets: S prompts, and which of them each row of a batch has.

    `key_values` [S, L', 2, H, P, D] for the layers from `first_layer` on; other layers have none. `rows` [B] numbers each row's
    prompt (None: S is 1, and all have it). `token_mask` [S, L', P] says which virtual tokens are there, where prompts differ in
    length or layers (None: all). `position_offsets` [S] is by how many positions each prompt shifts the text (None: by none).
    """

    key_values: Tensor
    first_layer: int = 0
    prompt_index: Tensor | None = None
    token_mask: Tensor | None = None
    position_offsets: Tensor | None = None


class Projection(nn.Module):
    """P-tuning v2's reparameterization (arXiv 2110.07602, section 3.3): embedding -> linear -> tanh -> linear.

    Only what it computes, `[P, width]`, is needed once trained. `embedding` [P, E], `width` = 2 L H D.
    """

    def __init__(self, embedding: Tensor, hidden_size: int, width: int, seed: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(embedding.detach().clone().contiguous())
        generator = torch.Generator().manual_seed(seed)
        self.inner = _linear(embedding.shape[1], hidden_size, generator)
        self.outer = _linear(hidden_size, width, generator)

    def forward(self) -> Tensor:
        """[P, width]."""
        projected: Tensor = self.outer(torch.tanh(self.inner(self.embedding)))
        return projected


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    made = nn.Linear(inputs, outputs)
    with torch.no_grad():
        made.weight.copy_(torch.randn(outputs, inputs, generator=generator) * inputs**-0.5)
        made.bias.zero_()
    return made


class TaskFactors(nn.Module):
    """Low-rank factors that make each task's prompt out of the shared one: shared * (1 + u v^T) (Wang et al., ICLR 2023, eq. 1).

    `u` [tasks, P, R], `v` [tasks, R, 2 L H D]; v starts at 0, so that at first every task has the shared prompt itself. All
    tasks' factors are one parameter each, so that each has a gradient in every micro-batch.
    """

    def __init__(self, tasks: int, count: int, rank: int, width: int, seed: int) -> None:
        super().__init__()
        self.u = nn.Parameter(
            torch.randn(tasks, count, rank, generator=torch.Generator().manual_seed(seed))
        )
        self.v = nn.Parameter(torch.zeros(tasks, rank, width))

    def forward(self, task: int) -> Tensor:
        """What the shared prompt of [P, 2 L H D] is multiplied by for one task."""
        return 1 + self.u[task] @ self.v[task]


class DeepPrompt(nn.Module):
    """P extra key/value pairs in the attention of L' layers, from `first_layer` on (P-tuning v2, arXiv 2110.07602, section 3.2).

    `key_values` [L', 2, H, P, D]: layers, key and value, key/value heads, virtual tokens, head size. A `projection` computes them
    instead of their being trained as they are; `factors` make a version for each task; `dropout` drops numbers in training.
    Layers below `first_layer` need no backward pass, and get none. `position_offset` is by how many positions the prompt shifts
    the text: 0, or P as peft and P-tuning v2 do it.
    """

    def __init__(
        self,
        key_values: Tensor,
        *,
        first_layer: int = 0,
        projection: Projection | None = None,
        factors: TaskFactors | None = None,
        dropout: float = 0.0,
        position_offset: int = 0,
    ) -> None:
        """Under a `projection`, `key_values` gives the shape only."""
        super().__init__()
        self.shape = tuple(key_values.shape)
        self.first_layer, self.position_offset = first_layer, position_offset
        self.projection, self.factors = projection, factors
        self.dropout = nn.Dropout(dropout)
        if projection is None:
            self.key_values = nn.Parameter(key_values.detach().clone().contiguous())

    @property
    def num_virtual_tokens(self) -> int:
        """P."""
        return self.shape[3]

    def materialize(self, task: int | None = None) -> Tensor:
        """The keys and values [L', 2, H, P, D] as attention takes them, without dropout: a task's, or the shared ones (None)."""
        shared = (
            self.key_values
            if self.projection is None
            else unfold_table(self.projection(), self.shape)
        )
        if task is None or self.factors is None:
            return shared
        return shared * unfold_table(self.factors(task), self.shape)

    def forward(self, task: int | None = None) -> LayerPrompts:
        """What the backbone takes, for a batch of rows that all have this prompt."""
        dropped = self.dropout(self.materialize(task)).unsqueeze(0)
        offsets = (
            torch.tensor([self.position_offset], device=dropped.device)
            if self.position_offset
            else None
        )
        return LayerPrompts(dropped, self.first_layer, position_offsets=offsets)


def unfold_table(table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """[P, 2 L H D] as [L, 2, H, P, D]: a row is layer, key or value, head, number, as in peft and P-tuning v2."""
    layers, two, heads, count, size = shape
    return table.view(count, layers, two, heads, size).permute(1, 2, 3, 0, 4)


class SoftPrompt(nn.Module):
    """P trained vectors in front of the input embeddings only (prompt tuning, Lester et al. 2021). `vectors` [P, E]."""

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().clone().contiguous())

    @property
    def num_virtual_tokens(self) -> int:
        """P."""
        return self.vectors.shape[0]

    def forward(self) -> Tensor:
        """A copy of `vectors`: under ZeRO 3 the parameter itself is gone after this."""
        return self.vectors.clone()


def stack_prompts(prompts: Sequence[DeepPrompt | None], rows: Tensor) -> LayerPrompts | None:
    """Different prompts for the rows [B] of one batch: row i has `prompts[rows[i]]`; None is no prompt, as is one of length 0.

    They may differ in length, in layers and in `position_offset`. Returns None where there is no prompt at all.
    """
    deep = [prompt for prompt in prompts if prompt is not None and prompt.num_virtual_tokens]
    if not deep:
        return None
    first = min(prompt.first_layer for prompt in deep)
    last = max(prompt.first_layer + prompt.shape[0] for prompt in deep)
    count = max(prompt.num_virtual_tokens for prompt in deep)
    example = deep[0].materialize()
    key_values = example.new_zeros(
        len(prompts), last - first, 2, example.shape[2], count, example.shape[4]
    )
    token_mask = torch.zeros(
        len(prompts), last - first, count, dtype=torch.bool, device=example.device
    )
    for number, prompt in enumerate(prompts):
        if prompt is not None:
            where = slice(prompt.first_layer - first, prompt.first_layer - first + prompt.shape[0])
            key_values[number, where, :, :, : prompt.num_virtual_tokens] = prompt.materialize()
            token_mask[number, where, : prompt.num_virtual_tokens] = True
    offsets = torch.tensor(
        [0 if prompt is None else prompt.position_offset for prompt in prompts],
        device=example.device,
    )
    shifted = offsets if bool(offsets.any()) else None
    return LayerPrompts(
        key_values, first, rows, None if bool(token_mask.all()) else token_mask, shifted
    )


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

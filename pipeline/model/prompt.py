"""Prompts: trained keys and values for each layer (deep), or trained input embeddings (soft)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

NORMAL_STD = 0.02
# The scales and shifts are trained as multiples of it, so that they have the learning rate of the
# keys and values. It is a power of two, so that no digit is lost.
SCALE_SHIFT_UNIT = 2.0**-4


class LayerPrompts(NamedTuple):
    """S deep prompts for one batch, as the attention takes them.

    `key_values` [S, L', 2, H, P, D] covers L' layers from `first_layer` on. The other layers have
    no prompt. `prompt_index` [B] selects the prompt of each row (None: S = 1, all rows share it).
    `token_mask` [S, L', P] is False at padding; prompts that differ in length or layers are padded
    (None: no padding). `position_offsets` [S] is the number of positions by which each prompt
    shifts the text (None: 0). `zero_token_types` [S] is True for prompts under which all token
    types of the text are 0 (None: False). `scale_shift` [S, L', 2, W] has the scales and shifts of
    the modules of each layer (see `pipeline.model.scale_shift`; None: no prompt has any).
    """

    key_values: Tensor
    first_layer: int = 0
    prompt_index: Tensor | None = None
    token_mask: Tensor | None = None
    position_offsets: Tensor | None = None
    zero_token_types: Tensor | None = None
    scale_shift: Tensor | None = None


class Projection(nn.Module):
    """Reparameterization of P-tuning v2: embedding -> linear -> tanh -> linear.

    See section 3.3 of arXiv 2110.07602. `embedding` is [P, E], `width` is 2 L H D. After training,
    only the output [P, width] is needed.
    """

    def __init__(self, embedding: Tensor, hidden_size: int, width: int, seed: int) -> None:
        super().__init__()
        self.embedding = nn.Parameter(embedding.detach().clone().contiguous())
        generator = torch.Generator().manual_seed(seed)
        self.inner = _linear(embedding.shape[1], hidden_size, generator)
        self.outer = _linear(hidden_size, width, generator)

    def forward(self) -> Tensor:
        """The table [P, width] of keys and values (see `unfold_table`)."""
        projected: Tensor = self.outer(torch.tanh(self.inner(self.embedding)))
        return projected


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    linear = nn.Linear(inputs, outputs)
    with torch.no_grad():
        linear.weight.copy_(torch.randn(outputs, inputs, generator=generator) * inputs**-0.5)
        linear.bias.zero_()
    return linear


class TaskFactors(nn.Module):
    """Low-rank factors; the prompt of a task is shared * (1 + u v).

    See equation 1 of Wang et al. (ICLR 2023). `u` is [num_tasks, P, R], `v` is
    [num_tasks, R, 2 L H D]. `v` starts at 0, so every task starts with the shared prompt. All tasks
    share the two parameters, so that each parameter has a gradient in every micro-batch.
    """

    def __init__(self, num_tasks: int, count: int, rank: int, width: int, seed: int) -> None:
        super().__init__()
        self.u = nn.Parameter(
            torch.randn(num_tasks, count, rank, generator=torch.Generator().manual_seed(seed))
        )
        self.v = nn.Parameter(torch.zeros(num_tasks, rank, width))

    def forward(self, task: int) -> Tensor:
        """The factor [P, 2 L H D] for the shared prompt, for one task."""
        return 1 + self.u[task] @ self.v[task]


class DeepPrompt(nn.Module):
    """P trained key/value pairs in the attention of L' layers, from `first_layer` on (P-tuning v2).

    See section 3.2 of arXiv 2110.07602. `key_values` is [L', 2, H, P, D]: layers, key and value,
    key/value heads, virtual tokens, head size. With a `projection`, an MLP computes them. `factors`
    derive a prompt for each task. `dropout` is the dropout rate of the keys and values in training.
    Layers below `first_layer` get no backward pass. `position_offset` is the number of positions by
    which the prompt shifts the text: 0, or P as in peft and P-tuning v2. With `zero_token_types`,
    all token types of the text are 0, as for prompts that peft trained for question answering.
    `scale_shift` [L', 2, W] has the initial scales and shifts of the modules of these layers (None:
    the prompt has none).
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
        zero_token_types: bool = False,
        scale_shift: Tensor | None = None,
    ) -> None:
        """With a `projection`, only the shape of `key_values` is used."""
        super().__init__()
        self.shape = tuple(key_values.shape)
        self.first_layer, self.position_offset = first_layer, position_offset
        self.zero_token_types = zero_token_types
        self.projection, self.factors = projection, factors
        self.dropout = nn.Dropout(dropout)
        if projection is None:
            self.key_values = nn.Parameter(key_values.detach().clone().contiguous())
        self.scale_shift_units = (
            None
            if scale_shift is None
            else nn.Parameter(scale_shift.detach().clone().contiguous() / SCALE_SHIFT_UNIT)
        )

    @property
    def num_virtual_tokens(self) -> int:
        """P, the number of virtual tokens."""
        return self.shape[3]

    def scale_shift(self) -> Tensor | None:
        """Compute the scales and shifts [L', 2, W]."""
        return None if self.scale_shift_units is None else self.scale_shift_units * SCALE_SHIFT_UNIT

    def materialize(self, task: int | None = None) -> Tensor:
        """Compute the keys and values [L', 2, H, P, D], without dropout.

        They are those of `task` (an index), or the shared ones if `task` is None.
        """
        shared = (
            self.key_values
            if self.projection is None
            else unfold_table(self.projection(), self.shape)
        )
        if task is None or self.factors is None:
            return shared
        return shared * unfold_table(self.factors(task), self.shape)

    def forward(self, task: int | None = None) -> LayerPrompts:
        """The prompt, with dropout in training, for a batch whose rows all share it."""
        dropped = self.dropout(self.materialize(task)).unsqueeze(0)
        offset, zero_types = (
            torch.tensor([value], device=dropped.device) if value else None
            for value in (self.position_offset, self.zero_token_types)
        )
        scale_shift = self.scale_shift()
        return LayerPrompts(
            dropped,
            self.first_layer,
            position_offsets=offset,
            zero_token_types=zero_types,
            scale_shift=None if scale_shift is None else scale_shift.unsqueeze(0),
        )


def unfold_table(table: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Reshape a table [P, 2 L H D] to [L, 2, H, P, D].

    The order within a row is layer, key or value, head, element, as in peft and P-tuning v2.
    """
    layers, two, heads, count, size = shape
    return table.view(count, layers, two, heads, size).permute(1, 2, 3, 0, 4)


class SoftPrompt(nn.Module):
    """P trained vectors [P, E] in front of the input embeddings.

    This is prompt tuning (Lester et al. 2021).
    """

    def __init__(self, vectors: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(vectors.detach().clone().contiguous())

    @property
    def num_virtual_tokens(self) -> int:
        """P, the number of virtual tokens."""
        return self.vectors.shape[0]

    def forward(self) -> Tensor:
        """A copy of `vectors` [P, E]; ZeRO 3 frees the parameter itself after this call."""
        return self.vectors.clone()


def stack_prompts(
    prompts: Sequence[DeepPrompt | None], prompt_index: Tensor
) -> LayerPrompts | None:
    """Combine different prompts for one batch: row i gets `prompts[prompt_index[i]]`.

    `prompt_index` is [B]. The prompts may differ in length, layers and options. None means no
    prompt, as does a prompt of length 0. Returns None if all prompts are empty.
    """
    deep = [prompt for prompt in prompts if prompt is not None and prompt.num_virtual_tokens]
    if not deep:
        return None
    first = min(prompt.first_layer for prompt in deep)
    last = max(prompt.first_layer + prompt.shape[0] for prompt in deep)
    count = max(prompt.num_virtual_tokens for prompt in deep)
    reference = deep[0].materialize()
    key_values = reference.new_zeros(
        len(prompts), last - first, 2, reference.shape[2], count, reference.shape[4]
    )
    token_mask = torch.zeros(
        len(prompts), last - first, count, dtype=torch.bool, device=reference.device
    )
    scale_shift: Tensor | None = None
    for index, prompt in enumerate(prompts):
        if prompt is not None:
            layers = slice(prompt.first_layer - first, prompt.first_layer - first + prompt.shape[0])
            key_values[index, layers, :, :, : prompt.num_virtual_tokens] = prompt.materialize()
            token_mask[index, layers, : prompt.num_virtual_tokens] = True
            if (values := prompt.scale_shift()) is not None:
                if scale_shift is None:
                    scale_shift = values.new_zeros(len(prompts), last - first, *values.shape[1:])
                scale_shift[index, layers] = values
    offsets, zero_types = (
        torch.tensor([getattr(prompt, name, 0) for prompt in prompts], device=reference.device)
        for name in ("position_offset", "zero_token_types")
    )
    return LayerPrompts(
        key_values,
        first,
        prompt_index,
        None if bool(token_mask.all()) else token_mask,
        offsets if bool(offsets.any()) else None,
        zero_types.bool() if bool(zero_types.any()) else None,
        scale_shift,
    )


class PromptBank(nn.Module):
    """The deep prompts of several tasks for batches that mix tasks, stacked once and not trained.

    `prompts` has one entry per task. Tasks may share a prompt; None means no prompt.
    """

    key_values: Tensor | None
    prompt_of_task: Tensor
    token_mask: Tensor | None
    position_offsets: Tensor | None
    zero_token_types: Tensor | None
    scale_shift: Tensor | None

    def __init__(self, prompts: Sequence[DeepPrompt | None]) -> None:
        super().__init__()
        distinct = list(dict.fromkeys(prompts))
        prompt_of_task = torch.tensor([distinct.index(prompt) for prompt in prompts])
        with torch.no_grad():
            stacked = stack_prompts(distinct, prompt_of_task)
        self.first_layer = stacked.first_layer if stacked else 0
        self.register_buffer("prompt_of_task", prompt_of_task)
        for name in (
            "key_values",
            "token_mask",
            "position_offsets",
            "zero_token_types",
            "scale_shift",
        ):
            self.register_buffer(name, stacked and getattr(stacked, name))

    def forward(self, tasks: Tensor) -> LayerPrompts | None:
        """The prompts of a batch; `tasks` [B] is the task index of each row.

        Returns None if no task has a prompt.
        """
        if self.key_values is None:
            return None
        # Without an index for a single prompt, the attention does not copy it for each row.
        index = None if len(self.key_values) == 1 else self.prompt_of_task[tasks]
        return LayerPrompts(
            self.key_values,
            self.first_layer,
            index,
            self.token_mask,
            self.position_offsets,
            self.zero_token_types,
            self.scale_shift,
        )


def normal_key_values(shape: Sequence[int], seed: int) -> Tensor:
    """Keys and values [L, 2, H, P, D] from a normal distribution of deviation `NORMAL_STD`."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * NORMAL_STD


def without_values(key_values: Tensor) -> Tensor:
    """The keys [L, 2, H, P, D], with 0 for all values."""
    keys_only = key_values.clone()
    keys_only[:, 1] = 0.0
    return keys_only

"""The linear heads of all tasks, in one padded parameter."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.mixing.batches import IGNORE_INDEX, Batch
from pipeline.seeding import derive_seed
from pipeline.tasks.base.task import HeadKind

HEAD_STD = 0.02


class Heads(nn.Module):
    """One linear head a task, all in one padded parameter, so that every parameter has a gradient in every micro-batch.

    `weight` [tasks, K, C], `bias` [tasks, K] with K the largest number of classes. A "classes" head picks a class at every
    position; a "positions" head picks a position for each of its classes (start and end of a span; the choice). A "verbalizer"
    picks one of `label_token_ids` (the vocabulary's number of each class's word) by the backbone's own LM head and trains nothing itself.
    """

    def __init__(
        self,
        kinds: Sequence[HeadKind],
        classes: Sequence[int],
        hidden_size: int,
        seed: int,
        label_token_ids: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__()
        self.kinds, self.classes, self.label_token_ids = (
            tuple(kinds),
            tuple(classes),
            tuple(label_token_ids),
        )
        generator = torch.Generator().manual_seed(derive_seed(seed, 2) % (1 << 63))
        shape = (len(classes), max(classes), hidden_size)
        self.weight = nn.Parameter(torch.randn(shape, generator=generator) * HEAD_STD)
        self.bias = nn.Parameter(torch.zeros(shape[:2]))

    def forward(self, hidden: Tensor, task: int) -> Tensor:
        """Logits [B, N, classes of the task] from hidden states [B, N, C]."""
        # This bias would shift all positions alike, to no effect; Adam would still make steps of its gradient's rounding.
        bias = self.bias[task] * (self.kinds[task] == "classes")
        logits = nn.functional.linear(hidden.to(bias.dtype), self.weight[task], bias)
        return logits[..., : self.classes[task]]

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """Sum of the cross entropies of all labels in the batch (for a span: the mean of start's and end's)."""
        if self.kinds[batch.task] == "positions":
            over_positions = logits.masked_fill(
                ~batch.position_mask.unsqueeze(-1), torch.finfo(logits.dtype).min
            )
            return (
                nn.functional.cross_entropy(over_positions, batch.labels, reduction="sum")
                / logits.shape[-1]
            )
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        )

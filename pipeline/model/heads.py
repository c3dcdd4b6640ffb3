"""The linear heads of all tasks, in one padded parameter."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.mixing.batches import IGNORE_INDEX, Batch
from pipeline.seeding import derive_seed
from pipeline.tasks.base.task import HeadKind

HEAD_STD = 0.02


class Heads(nn.Module):
    """One linear head per task. All share one parameter, so that every rank has a gradient for it
    in every micro-batch.

    `weight` [tasks, K, C] and `bias` [tasks, K], with K the largest number of classes. A "classes"
    head picks a class at every position. A "positions" head picks a position for each of its
    classes (the start and end of a span; the choice). A "verbalizer" has no parameters of its own:
    it picks one of `label_token_ids`, the token of each class, by the logits of the backbone's LM
    head (see `PromptedModel`).
    """

    bias_mask: Tensor

    def __init__(
        self,
        kinds: Sequence[HeadKind],
        classes: Sequence[int],
        hidden_size: int,
        seed: int,
        label_token_ids: Sequence[Sequence[int]] = (),
    ) -> None:
        super().__init__()
        self.kinds, self.classes = tuple(kinds), tuple(classes)
        self.label_token_ids = tuple(label_token_ids)
        generator = torch.Generator().manual_seed(derive_seed(seed, 2) % (1 << 63))
        shape = (len(classes), max(classes), hidden_size)
        self.weight = nn.Parameter(torch.randn(shape, generator=generator) * HEAD_STD)
        self.bias = nn.Parameter(torch.zeros(shape[:2]))
        # Of a "positions" head the bias would shift all positions alike, to no effect; Adam would
        # still step on the rounding errors of its gradient.
        has_bias = torch.tensor([[kind == "classes"] for kind in kinds])
        self.register_buffer("bias_mask", has_bias, persistent=False)

    def forward(self, hidden: Tensor, tasks: int | Tensor) -> Tensor:
        """Logits from hidden states [B, N, C].

        [B, N, classes of the task] for a batch of one task; [B, N, K] where `tasks` [B] gives each
        row's task, with logits beyond a task's classes that mean nothing.
        """
        hidden = hidden.to(self.weight.dtype)
        bias = self.bias[tasks] * self.bias_mask[tasks]
        if isinstance(tasks, int):
            logits = nn.functional.linear(hidden, self.weight[tasks], bias)
            return logits[..., : self.classes[tasks]]
        return torch.einsum("bnc,bkc->bnk", hidden, self.weight[tasks]) + bias.unsqueeze(1)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The sum of the cross entropies of all labels of a batch of one task (for a span: the mean
        over start and end).
        """
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

"""The linear heads of all tasks, in one padded parameter."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.mixing.batches import IGNORE_INDEX, Batch
from pipeline.seeding import Stream, torch_seed
from pipeline.tasks.base.task import HeadKind

HEAD_STD = 0.02


class Heads(nn.Module):
    """One linear head per task.

    All heads share one `weight` [tasks, K, C] and one `bias` [tasks, K], where K is the maximum
    number of classes. So every rank has a gradient for them in every micro-batch.

    A "classes" head selects a class at every position. A "positions" head selects a position for
    each of its classes (the start and end of a span, or the choice). A "verbalizer" has no
    parameters. It selects a class by the logits of the backbone's LM head for `label_token_ids`,
    the token of each class (see `PromptedModel`). A "language_model" has no parameters: its logits
    are those of the LM head for the whole vocabulary. Its classes, if any, are candidate texts.
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
        generator = torch.Generator().manual_seed(torch_seed(seed, Stream.HEADS))
        # A parameter without values would break the optimizers of ZeRO.
        widths = [
            0 if kind == "language_model" else count
            for kind, count in zip(kinds, classes, strict=True)
        ]
        shape = (len(classes), max([1, *widths]), hidden_size)
        self.weight = nn.Parameter(torch.randn(shape, generator=generator) * HEAD_STD)
        self.bias = nn.Parameter(torch.zeros(shape[:2]))
        # The bias of a "positions" head shifts the logits of all positions equally. This has no
        # effect, but Adam would amplify the rounding errors of its gradient.
        has_bias = torch.tensor([[kind == "classes"] for kind in kinds])
        self.register_buffer("bias_mask", has_bias, persistent=False)

    def forward(self, hidden: Tensor, tasks: int | Tensor) -> Tensor:
        """Compute logits from hidden states [B, N, C].

        The shape is [B, N, classes of the task] for a batch of one task. It is [B, N, K] if `tasks`
        [B] has the task of each row; then logits beyond the classes of a task are meaningless.
        """
        hidden = hidden.to(self.weight.dtype)
        bias = self.bias[tasks] * self.bias_mask[tasks]
        if isinstance(tasks, int):
            logits = nn.functional.linear(hidden, self.weight[tasks], bias)
            return logits[..., : self.classes[tasks]]
        return torch.einsum("bnc,bkc->bnk", hidden, self.weight[tasks]) + bias.unsqueeze(1)

    def loss(self, logits: Tensor, batch: Batch) -> Tensor:
        """The sum of the cross entropies of all labels of a batch of one task.

        The cross entropy of a span is the mean over its start and end.
        """
        if self.kinds[batch.task] == "positions":
            masked_logits = logits.masked_fill(
                ~batch.position_mask.unsqueeze(-1), torch.finfo(logits.dtype).min
            )
            return (
                nn.functional.cross_entropy(masked_logits, batch.labels, reduction="sum")
                / logits.shape[-1]
            )
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum"
        )

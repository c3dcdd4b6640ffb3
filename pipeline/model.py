"""Backbone + prompt + heads: the one module that is trained, in every arm."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pipeline.backbone import Backbone
from pipeline.batches import IGNORED, Batch
from pipeline.mixture import mix_seed
from pipeline.prompt import DeepPrompt, SoftPrompt
from pipeline.task import HeadKind

HEAD_STD = 0.02


class Heads(nn.Module):
    """One linear head a task, all in one padded parameter, so that every parameter has a gradient in every micro-batch.

    `weight` [tasks, K, C], `bias` [tasks, K] with K the largest number of classes. A "classes" head picks a class at every
    position; a "positions" head picks a position for each of its classes (start and end of a span; the choice). A "verbalizer"
    picks one of `words` (the vocabulary's number of each class's word) by the backbone's own LM head and trains nothing itself.
    """

    def __init__(self, kinds: Sequence[HeadKind], classes: Sequence[int], hidden_size: int, seed: int,
                 words: Sequence[Sequence[int]] = ()) -> None:
        super().__init__()
        self.kinds, self.classes, self.words = tuple(kinds), tuple(classes), tuple(words)
        generator = torch.Generator().manual_seed(mix_seed(seed, 2) % (1 << 63))
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
            over_positions = logits.masked_fill(~batch.position_mask.unsqueeze(-1), torch.finfo(logits.dtype).min)
            return nn.functional.cross_entropy(over_positions, batch.labels, reduction="sum") / logits.shape[-1]
        return nn.functional.cross_entropy(logits.flatten(0, 1), batch.labels.flatten(), ignore_index=IGNORED, reduction="sum")


class PromptedModel(nn.Module):
    """What an arm trains. `trainable_state` is what is trained, saved and resumed: one function for all three."""

    def __init__(self, backbone: Backbone, prompt: DeepPrompt | SoftPrompt | None, heads: Heads, train_backbone: bool) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(train_backbone)
        self.prompt = prompt
        self.heads = heads

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, N, classes] at the batch's positions."""
        prompt = self.prompt(batch.task) if isinstance(self.prompt, DeepPrompt) else self.prompt
        hidden = self.backbone(batch.input_ids, batch.attention_mask, batch.token_types, prompt, below=batch.below)
        read = hidden.gather(1, batch.positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        logits: Tensor = self.heads(read, batch.task)
        if self.heads.kinds[batch.task] == "verbalizer":
            # Times 0, so that the heads' parameters have a gradient in every micro-batch.
            logits = logits * 0 + self.backbone.word_logits(read, self.heads.words[batch.task])
        return logits

    def below(self, batch: Batch) -> Tensor:
        """What the frozen layers below the deep prompt give [B, T, C], for the batch's own `below`."""
        assert isinstance(self.prompt, DeepPrompt)
        return self.backbone.below(batch.input_ids, batch.attention_mask, batch.token_types, self.prompt(batch.task))

    def trainable_state(self) -> dict[str, nn.Parameter]:
        """Every trained parameter by name, in a fixed order."""
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Copy saved values in; the names must be exactly those of `trainable_state`."""
        parameters = self.trainable_state()
        assert parameters.keys() == state.keys(), "a saved state of another arm or shape"
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state[name])

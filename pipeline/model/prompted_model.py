"""Backbone + prompt + heads: the one module that is trained, in every arm."""

import torch
from torch import Tensor, nn

from pipeline.mixing.batches import Batch
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt, SoftPrompt


class PromptedModel(nn.Module):
    """What an arm trains. `trainable_state` is what is trained, saved and resumed: one function for all three."""

    def __init__(
        self,
        backbone: Backbone,
        prompt: DeepPrompt | SoftPrompt | None,
        heads: Heads,
        train_backbone: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(train_backbone)
        self.prompt = prompt
        self.heads = heads

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, N, classes] at the batch's positions."""
        prompt = self.prompt(batch.task) if isinstance(self.prompt, DeepPrompt) else self.prompt
        hidden = self.backbone(
            batch.input_ids,
            batch.attention_mask,
            batch.token_types,
            prompt,
            cached_hidden=batch.cached_hidden,
        )
        read = hidden.gather(1, batch.positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        logits: Tensor = self.heads(read, batch.task)
        if self.heads.kinds[batch.task] == "verbalizer":
            # Times 0, so that the heads' parameters have a gradient in every micro-batch.
            logits = logits * 0 + self.backbone.word_logits(
                read, self.heads.label_token_ids[batch.task]
            )
        return logits

    def lower_hidden_states(self, batch: Batch) -> Tensor:
        """What the frozen layers below the deep prompt give [B, T, C], for the batch's own `below`."""
        assert isinstance(self.prompt, DeepPrompt)
        return self.backbone.lower_hidden_states(
            batch.input_ids, batch.attention_mask, batch.token_types, self.prompt(batch.task)
        )

    def trainable_state(self) -> dict[str, nn.Parameter]:
        """Every trained parameter by name, in a fixed order."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Copy saved values in; the names must be exactly those of `trainable_state`."""
        parameters = self.trainable_state()
        assert parameters.keys() == state.keys(), "a saved state of another arm or shape"
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state[name])

"""Backbone + prompt + heads: the one module that is trained, evaluated and served, in every arm."""

import torch
from torch import Tensor, nn

from pipeline.arms import Part
from pipeline.mixing.batches import Batch
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.lora import is_lora, lora_factors
from pipeline.model.prompt import DeepPrompt, PromptBank, SoftPrompt

_PARTS: dict[str, Part] = {"prompt": "prompt", "heads": "head", "backbone": "backbone"}


def part_of(name: str) -> Part:
    """The part of a PromptedModel that a parameter belongs to, by the parameter's name."""
    return "lora" if is_lora(name) else _PARTS[name.split(".", maxsplit=1)[0]]


class PromptedModel(nn.Module):
    """A backbone that reads each row of a batch under its task's prompt, for its task's head.

    A `PromptBank` is for batches that mix tasks: it has a prompt for each of them, and is not
    trained. LoRA's factors in the backbone are trained, as a prompt is. `trainable_state` is what
    is trained, saved and resumed: one function for all three.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompt: DeepPrompt | SoftPrompt | PromptBank | None,
        heads: Heads,
        train_backbone: bool,
    ) -> None:
        super().__init__()
        self.backbone = backbone.requires_grad_(train_backbone)
        for factor in lora_factors(backbone).values():
            factor.requires_grad_()
        self.prompt = prompt
        self.heads = heads

    def forward(self, batch: Batch) -> Tensor:
        """Logits [B, N, classes] at the batch's positions; see `Heads.forward` for the classes of a
        batch that mixes tasks.
        """
        prompt = self.prompt
        if isinstance(prompt, DeepPrompt | PromptBank):
            prompt = prompt(batch.tasks)
        hidden = self.backbone(
            batch.input_ids,
            batch.attention_mask,
            batch.token_types,
            prompt,
            cached_hidden=batch.cached_hidden,
        )
        read = hidden.gather(1, batch.positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return self._verbalized(self.heads(read, batch.tasks), read, batch.tasks)

    def _verbalized(self, logits: Tensor, read: Tensor, tasks: int | Tensor) -> Tensor:
        """The logits [B, N, classes]; those of the LM head for rows with a verbalizer."""
        kinds, words = self.heads.kinds, self.heads.label_token_ids
        if isinstance(tasks, int):
            if kinds[tasks] != "verbalizer":
                return logits
            # Times 0, so that the heads' parameters have a gradient in every micro-batch.
            return logits * 0 + self.backbone.word_logits(read, words[tasks])
        for task in (task for task, kind in enumerate(kinds) if kind == "verbalizer"):
            rows = tasks == task
            if bool(rows.any()):
                found = self.backbone.word_logits(read[rows], words[task])
                logits[rows, :, : len(words[task])] = found
        return logits

    def lower_hidden_states(self, batch: Batch) -> Tensor:
        """The output [B, T, C] of the frozen layers below the deep prompt: the `cached_hidden` of
        the batch.
        """
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

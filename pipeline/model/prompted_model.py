"""Backbone, prompt and heads as one module, for training, evaluation and prediction in all arms."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pipeline.arms import Part
from pipeline.mixing.batches import Batch
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.lora import is_lora, lora_factors
from pipeline.model.prompt import DeepPrompt, PromptBank, SoftPrompt
from pipeline.tasks.base.task import LM_HEADS

_PARTS: dict[str, Part] = {"prompt": "prompt", "heads": "head", "backbone": "backbone"}


def part_of(name: str) -> Part:
    """The part of a PromptedModel that a parameter belongs to, by the parameter's name."""
    return "lora" if is_lora(name) else _PARTS[name.split(".", maxsplit=1)[0]]


class PromptedModel(nn.Module):
    """A backbone with prompts and heads; each row of a batch has the prompt and head of its task.

    A `PromptBank` is for batches that mix tasks; it has a prompt per task and is not trained. The
    factors of LoRA in the backbone are trained, like a prompt. Training, checkpoints and resumes
    all use the parameters of `trainable_state`.
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
        """Logits [B, N, classes] at the positions of the batch.

        The classes of a "language_model" head are the vocabulary. See `Heads.forward` for the
        number of classes in a batch that mixes tasks.
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
        hidden = hidden.gather(1, batch.positions.unsqueeze(-1).expand(-1, -1, hidden.shape[-1]))
        return self._apply_lm_head(self.heads(hidden, batch.tasks), hidden, batch.tasks)

    def _apply_lm_head(self, logits: Tensor, hidden: Tensor, tasks: int | Tensor) -> Tensor:
        """Replace the logits [B, N, classes] of heads that use the LM head of the backbone.

        They are [B, N, vocabulary] for a "language_model". A batch that mixes tasks has none.
        """
        kinds, label_token_ids = self.heads.kinds, self.heads.label_token_ids
        if isinstance(tasks, int):
            if kinds[tasks] not in LM_HEADS:
                if _is_partitioned(self.backbone.lm_head):
                    # The ranks gather its weights together, and another rank may use it.
                    logits = logits + self.backbone.word_logits(hidden[:1, :1], None).sum() * 0
                return logits
            words = label_token_ids[tasks] if kinds[tasks] == "verbalizer" else None
            # Add 0 * logits, so the parameters of the heads have a gradient in every micro-batch.
            return logits.sum(-1, keepdim=True) * 0 + self.backbone.word_logits(hidden, words)
        for task in (task for task, kind in enumerate(kinds) if kind == "verbalizer"):
            rows = tasks == task
            if bool(rows.any()):
                word_logits = self.backbone.word_logits(hidden[rows], label_token_ids[task])
                logits[rows, :, : len(label_token_ids[task])] = word_logits
        return logits

    def lower_hidden_states(self, batch: Batch) -> Tensor:
        """The output [B, T, C] of the layers below the deep prompt (`Batch.cached_hidden`)."""
        assert isinstance(self.prompt, DeepPrompt)
        return self.backbone.lower_hidden_states(
            batch.input_ids, batch.attention_mask, batch.token_types, self.prompt(batch.task)
        )

    def trainable_state(self) -> dict[str, nn.Parameter]:
        """All trained parameters by name, in a fixed order."""
        return {
            name: parameter
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        }

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Copy saved values into the parameters. Names must equal those of `trainable_state`."""
        parameters = self.trainable_state()
        assert parameters.keys() == state.keys(), "the saved state is of another arm or shape"
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(state[name])


@contextmanager
def eval_mode(model: PromptedModel) -> Iterator[None]:
    """Context manager: put the model into evaluation mode and restore its mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def _is_partitioned(module: nn.Module | None) -> bool:
    """Whether ZeRO 3 partitions weights of a module among the ranks."""
    return module is not None and any(hasattr(weight, "ds_id") for weight in module.parameters())

"""Tuning after training: the loss compares the right answer with the best other candidates.

The objectives are those of Jiang et al. (2021, section 4, fine-tuning-based methods). A candidate
is a span; its score is the sum of its start and end logits. The span (0, 0) is "no answer".
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pipeline.mixing.batches import Batch, TrainBatches, collate
from pipeline.model.prompted_model import PromptedModel
from pipeline.tasks.shared.answer_spans import NUM_CANDIDATES
from pipeline.tasks.span_extraction import MAX_ANSWER_LENGTH
from pipeline.training.optim import lr_multiplier, optimizer
from pipeline.training.trainer import steps_of

MARGIN = 1.0
MAX_GRAD_NORM = 1.0
Objective = Callable[[PromptedModel, Tensor, Batch], Tensor]
"""Model, logits [B, N, 2] and batch -> the sum of the losses of the rows."""


def softmax_objective(model: PromptedModel, logits: Tensor, batch: Batch) -> Tensor:
    """The cross entropy of the right answer among the candidates."""
    scores = candidate_scores(logits, batch)
    return nn.functional.cross_entropy(
        scores, scores.new_zeros(len(scores)).long(), reduction="sum"
    )


def margin_objective(model: PromptedModel, logits: Tensor, batch: Batch) -> Tensor:
    """The hinge losses of all other candidates against the right answer."""
    scores = candidate_scores(logits, batch)
    return (MARGIN + scores[:, 1:] - scores[:, :1]).clamp(min=0.0).sum()


def training_objective(model: PromptedModel, logits: Tensor, batch: Batch) -> Tensor:
    """The loss of training, as a control: the same steps without the candidates."""
    return model.heads.loss(logits, batch)


OBJECTIVES: dict[str, Objective] = {
    "softmax": softmax_objective,
    "margin": margin_objective,
    "cross_entropy": training_objective,
}


def candidate_scores(logits: Tensor, batch: Batch) -> Tensor:
    """The score of the right span, then those of the best other spans [B, 1 + K].

    A row with fewer than K other spans has -inf for the rest.
    """
    scores = logits[:, :, 0].unsqueeze(2) + logits[:, :, 1].unsqueeze(1)
    rows, (starts, ends) = torch.arange(len(scores)), batch.labels.T
    right = scores[rows, starts, ends].unsqueeze(1)
    is_other = _spans(batch.position_mask)
    is_other[rows, starts, ends] = False
    others = scores.masked_fill(~is_other, -torch.inf).flatten(1)
    return torch.cat([right, others.topk(min(NUM_CANDIDATES, others.shape[1])).values], dim=1)


def _spans(position_mask: Tensor) -> Tensor:
    """Whether (start, end) is (0, 0) or a span of at most MAX_ANSWER_LENGTH positions [B, N, N]."""
    size = position_mask.shape[1]
    valid = torch.ones(size, size, dtype=torch.bool).triu().tril(MAX_ANSWER_LENGTH - 1)
    valid[0] = False
    valid[0, 0] = True
    return valid & position_mask.unsqueeze(1) & position_mask.unsqueeze(2)


def tune(
    model: PromptedModel,
    batches: TrainBatches,
    learning_rates: dict[str, float],
    objective: Objective,
    pad_token_id: int,
) -> None:
    """One pass over the rows, in place. The head stays as it is."""
    model.heads.requires_grad_(False)
    parameters = model.trainable_state()
    adam, steps = optimizer(parameters.items(), learning_rates, 0.0), steps_of(batches, 1.0)
    for step in range(steps):
        for group in adam.param_groups:
            group["lr"] = learning_rates[group["part"]] * lr_multiplier(step, steps, 0.1)
        for micro in batches.step(step):
            batch = collate(batches.tables[micro.task], micro.rows, micro.task, pad_token_id)
            loss = objective(model, model(batch), batch) * micro.weight
            torch.autograd.backward(loss / batches.micro_batches_per_step)
        nn.utils.clip_grad_norm_(parameters.values(), MAX_GRAD_NORM)
        adam.step()
        adam.zero_grad()

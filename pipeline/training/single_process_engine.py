"""A training step of one process in plain torch: its start does not load DeepSpeed (2 s)."""

import torch
from torch import Tensor

from pipeline.mixing.batches import Batch
from pipeline.model.prompted_model import PromptedModel
from pipeline.training.optim import MOMENTS, optimizer, set_learning_rates, total_norm


class SingleProcessEngine:
    """Compute the same bits as `DeepSpeedEngine` with one rank and ZeRO stage 0."""

    def __init__(
        self,
        model: PromptedModel,
        learning_rates: dict[str, float],
        weight_decay: float,
        micro_batches: int,
        max_grad_norm: float,
    ) -> None:
        """Start from the values in `model`, on its device."""
        self._model, self._learning_rates = model, learning_rates
        self._micro_batches, self._max_grad_norm = micro_batches, max_grad_norm
        self.adam = optimizer(model.trainable_state().items(), learning_rates, weight_decay)
        self._num_backward = 0
        self._norm = 0.0

    def __call__(self, batch: Batch) -> Tensor:
        """The logits of a batch."""
        logits: Tensor = self._model(batch)
        return logits

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch to those of the step."""
        torch.autograd.backward(loss / self._micro_batches)
        self._num_backward += 1

    def set_learning_rates(self, factor: float) -> None:
        """Set the learning rate of each part to `factor` times its peak."""
        set_learning_rates(self.adam, self._learning_rates, factor)

    def step(self) -> None:
        """Update the values after the last micro-batch of a step; otherwise do nothing."""
        if self._num_backward % self._micro_batches:
            return
        self._norm = total_norm(self._model)
        _clip([p.grad for p in self._model.parameters() if p.grad is not None], self._max_grad_norm)
        self.adam.step()
        self.adam.zero_grad()

    @property
    def gradient_norm(self) -> float:
        """The norm of the last step's gradient, before clipping."""
        return self._norm

    def values(self) -> dict[str, Tensor]:
        """A copy of all trained values by parameter name."""
        return {
            name: parameter.detach().cpu().clone()
            for name, parameter in self._model.trainable_state().items()
        }

    def moments(self) -> dict[str, Tensor]:
        """AdamW's moments as NAME.exp_avg and NAME.exp_avg_sq, after at least one step."""
        return {
            f"{name}.{key}": self.adam.state[parameter][key].detach().cpu().clone()
            for name, parameter in self._model.trainable_state().items()
            for key in MOMENTS
        }

    def restore_moments(self, moments: dict[str, Tensor], step: int) -> None:
        """Restore the `moments` of step `step`, from any engine."""
        for name, parameter in self._model.trainable_state().items():
            device = parameter.device
            self.adam.state[parameter] = {
                "step": torch.tensor(float(step), device=device),
                **{key: moments[f"{name}.{key}"].to(device, copy=True) for key in MOMENTS},
            }

    def close(self, values: dict[str, Tensor]) -> None:
        """End training. The trained parts of the model get `values`."""
        self._model.load_trainable_state(values)


def _clip(gradients: list[Tensor], max_norm: float) -> None:
    """Scale the gradients so that their total norm is at most `max_norm`.

    The operations are those of DeepSpeed, because torch's function rounds differently.
    """
    norms = torch.stack([gradient.norm(2.0) for gradient in gradients])
    norm = norms.pow(2.0).sum().pow(0.5)
    factor = (torch.tensor([max_norm], device=norm.device) / (norm + 1e-6)).clamp(max=1.0)
    for gradient in gradients:
        gradient.mul_(factor)

"""The engine of a training step: plain torch for one process, DeepSpeed for ranks and ZeRO."""

from typing import Protocol

from torch import Tensor
from torch.optim import AdamW

from pipeline.distributed.cluster import Cluster, Ranks
from pipeline.distributed.collectives import device
from pipeline.errors import UserError
from pipeline.mixing.batches import Batch
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import TrainParams
from pipeline.training.deepspeed_engine import DeepSpeedEngine
from pipeline.training.single_process_engine import SingleProcessEngine


class Engine(Protocol):
    """A training step. All ranks must call a method together.

    `adam` has one parameter group per part of the model.
    """

    adam: AdamW

    def __call__(self, batch: Batch) -> Tensor:
        """The logits of a batch."""

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch to those of the step."""

    def set_learning_rates(self, factor: float) -> None:
        """Set the learning rate of each part to `factor` times its peak."""

    def step(self) -> None:
        """Update the values after the last micro-batch of a step; otherwise do nothing."""

    @property
    def gradient_norm(self) -> float:
        """The norm of the last step's gradient, before clipping."""

    def values(self) -> dict[str, Tensor]:
        """A copy of all trained values by parameter name."""

    def moments(self) -> dict[str, Tensor]:
        """AdamW's moments as NAME.exp_avg and NAME.exp_avg_sq, after at least one step."""

    def restore_moments(self, moments: dict[str, Tensor], step: int) -> None:
        """Restore the `moments` of step `step`, from any engine and number of ranks."""

    def close(self, values: dict[str, Tensor]) -> None:
        """End training. The trained parts of the model become plain tensors with `values`."""


def make_engine(
    model: PromptedModel,
    learning_rates: dict[str, float],
    params: TrainParams,
    ranks: Ranks,
    cluster: Cluster,
) -> Engine:
    """Start an engine from the values in `model`, and move the model to the device of this rank.

    Raises UserError if the ranks cannot share the micro-batches of a step evenly.
    """
    micro_batches = micro_batches_per_rank(params.micro_batches_per_step, ranks)
    values = (learning_rates, params.weight_decay, micro_batches, params.max_grad_norm)
    if uses_deepspeed(ranks, cluster):
        return DeepSpeedEngine(model, *values, ranks, cluster)
    return SingleProcessEngine(model.to(device(ranks)), *values)


def uses_deepspeed(ranks: Ranks, cluster: Cluster) -> bool:
    """Whether training needs DeepSpeed and a process group."""
    return ranks.world > 1 or cluster.zero > 0


def micro_batches_per_rank(micro_batches: int, ranks: Ranks) -> int:
    """The number of micro-batches of a step on each rank.

    Raises UserError if the ranks cannot share them evenly.
    """
    if micro_batches % ranks.world:
        divisors = [str(n) for n in range(1, micro_batches + 1) if micro_batches % n == 0]
        raise UserError(
            f"{ranks.world} ranks cannot share the {micro_batches} micro-batches of a step evenly; "
            f"start {' or '.join(divisors)} ranks, or change micro_batches_per_step"
        )
    return micro_batches // ranks.world

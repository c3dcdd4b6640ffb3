"""DeepSpeed's engine around a model. It takes and returns full tensors under every ZeRO stage."""

from typing import Any

import torch
from torch import Tensor

from pipeline.distributed.cluster import Cluster, Ranks
from pipeline.distributed.collectives import device
from pipeline.distributed.deepspeed_setup import load_deepspeed
from pipeline.errors import UserError
from pipeline.mixing.batches import Batch
from pipeline.model.prompted_model import PromptedModel
from pipeline.training.optim import optimizer

MOMENTS = ("exp_avg", "exp_avg_sq")
# ZeRO 3 does not partition parameters below this size, because gathering them would cost more.
PERSISTENCE_THRESHOLD = 100_000


class Engine:
    """A training step on all ranks.

    Gradients are summed over the micro-batches of a rank, averaged over ranks, and clipped. Then
    AdamW updates the values. ZeRO stage 0 partitions nothing among the ranks. Stage 1 partitions
    AdamW's moments, stage 2 also the gradients, and stage 3 also all weights, including the frozen
    weights (Rajbhandari et al. 2020, section 5). All stages compute the same numbers.
    """

    def __init__(
        self,
        model: PromptedModel,
        learning_rates: dict[str, float],
        weight_decay: float,
        micro_batches: int,
        max_grad_norm: float,
        ranks: Ranks,
        cluster: Cluster,
    ) -> None:
        """Start from the values in `model`.

        Raises UserError if the ranks cannot share the micro-batches evenly.
        """
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": micro_batches_per_rank(micro_batches, ranks),
            "gradient_clipping": max_grad_norm,
            "zero_optimization": _zero_config(cluster),
            # torch's AdamW. DeepSpeed's optimizers have the same effect but compile for minutes.
            "zero_allow_untested_optimizer": True,
            "steps_per_print": 2**31,
        }
        self._model, self._stage = model, cluster.zero
        _move_to_device(model, config, ranks)
        self._learning_rates = learning_rates
        self.adam = optimizer(model.trainable_state().items(), learning_rates, weight_decay)
        self._deepspeed = load_deepspeed()
        self._engine, *_ = self._deepspeed.initialize(
            model=model, optimizer=self.adam, config=config, dist_init_required=False
        )
        self._norm = 0.0

    def __call__(self, batch: Batch) -> Tensor:
        """The logits of a batch."""
        logits: Tensor = self._engine(batch)
        return logits

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a micro-batch; after the last one of a step, sum over ranks."""
        self._engine.backward(loss)
        if self._stage == 0 and self._engine.is_gradient_accumulation_boundary():
            self._norm = float(
                torch.nn.utils.get_total_norm(
                    [p.grad for p in self._model.trainable_state().values() if p.grad is not None]
                )
            )

    def set_learning_rates(self, factor: float) -> None:
        """Set the learning rate of each part to `factor` times its peak."""
        for group in self.adam.param_groups:
            group["lr"] = self._learning_rates[group["part"]] * factor

    def step(self) -> None:
        """Update the values after the last micro-batch of a step; otherwise do nothing."""
        self._engine.step()

    @property
    def gradient_norm(self) -> float:
        """The norm of the last step's gradient, before clipping."""
        return self._norm if self._stage == 0 else float(self._engine.get_global_grad_norm())

    def values(self) -> dict[str, Tensor]:
        """A copy of all trained values by parameter name. All ranks must call this together."""
        return {
            name: self._full_parameter(parameter).detach().cpu().clone()
            for name, parameter in self._model.trainable_state().items()
        }

    def _full_parameter(self, parameter: Tensor) -> Tensor:
        full_parameter: Tensor = (
            self._deepspeed.utils.safe_get_full_fp32_param(parameter)
            if self._stage == 3
            else parameter
        )
        return full_parameter

    def moments(self) -> dict[str, Tensor]:
        """AdamW's moments as NAME.exp_avg and NAME.exp_avg_sq, after at least one step.

        All ranks must call this together.
        """
        self._link_moments()
        return {
            f"{name}.{key}": self._moment(parameter, key).detach().cpu().clone()
            for name, parameter in self._model.trainable_state().items()
            for key in MOMENTS
        }

    def _link_moments(self) -> None:
        """Link the moments of all parameter groups.

        DeepSpeed links them once, after the step of the first group, and misses the other groups.
        """
        if self._stage in (1, 2):
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _moment(self, parameter: Tensor, key: str) -> Tensor:
        moment: Tensor = (
            self.adam.state[parameter][key]
            if self._stage == 0
            else self._deepspeed.utils.safe_get_full_optimizer_state(parameter, key)
        )
        return moment

    def restore_moments(self, moments: dict[str, Tensor], step: int) -> None:
        """Restore the `moments` of step `step`, from any number of ranks and any ZeRO stage."""
        parameters = self._model.trainable_state()
        for tensor in self._optimizer_tensors():
            self.adam.state[tensor] = {
                "step": torch.tensor(float(step), device=tensor.device),
                **{key: torch.zeros_like(tensor) for key in MOMENTS},
            }
        self._link_moments()
        for name, parameter in parameters.items():
            for key in MOMENTS:
                saved = moments[f"{name}.{key}"].to(parameter.device)
                if self._stage == 0:
                    self.adam.state[parameter][key].copy_(saved)
                else:
                    self._deepspeed.utils.safe_set_full_optimizer_state(parameter, saved, key)

    def _optimizer_tensors(self) -> list[Tensor]:
        """The tensors that AdamW updates: the parameters, or this rank's partitions of them."""
        if self._stage == 0:
            return list(self._model.trainable_state().values())
        zero: Any = self._engine.optimizer
        partitions: list[Tensor] = (
            zero.fp32_partitioned_groups_flat
            if self._stage == 3
            else zero.single_partition_of_fp32_groups
        )
        return partitions

    def close(self, values: dict[str, Tensor]) -> None:
        """End training. The trained parts of the model become plain tensors with `values`."""
        if self._stage == 3:
            self._engine.destroy()
            for name, parameter in self._model.trainable_state().items():
                parameter.data = values[name].to(parameter.device)
        else:
            self._model.load_trainable_state(values)


def micro_batches_per_rank(micro_batches: int, ranks: Ranks) -> int:
    """The number of micro-batches of a step on each rank.

    Raises UserError if the ranks cannot share them evenly.
    """
    if micro_batches % ranks.world:
        divisors = [str(n) for n in range(1, micro_batches + 1) if micro_batches % n == 0]
        raise UserError(
            f"{ranks.world} ranks cannot share the {micro_batches} micro-batches of a step evenly; "
            f"start {' or '.join(divisors)} ranks, or change micro_batches_per_step in params.yaml "
            "(of the mixture under pretrain, or of the arm), which changes the results"
        )
    return micro_batches // ranks.world


def prepare_for_inference(model: PromptedModel, ranks: Ranks, cluster: Cluster) -> PromptedModel:
    """Freeze a model and move it to this rank's device; under ZeRO 3, only this rank's shard."""
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": _zero_config(cluster),
        "steps_per_print": 2**31,
    }
    _move_to_device(model.requires_grad_(False), config, ranks)
    if cluster.zero == 3:
        load_deepspeed().initialize(model=model, config=config, dist_init_required=False)
    return model


def _move_to_device(model: PromptedModel, config: dict[str, Any], ranks: Ranks) -> None:
    if config["zero_optimization"]["stage"] == 3:
        # Move parameters one by one, because the whole model may not fit into device memory.
        load_deepspeed().zero.Init(module=model, config_dict_or_path=config, dtype=torch.float32)
        for buffer in model.buffers():  # zero.Init does not move buffers.
            buffer.data = buffer.data.to(device(ranks))
    else:
        model.to(device(ranks))


def _zero_config(cluster: Cluster) -> dict[str, Any]:
    config: dict[str, Any] = {"stage": cluster.zero}
    if cluster.zero == 3:
        config["stage3_param_persistence_threshold"] = PERSISTENCE_THRESHOLD
        if cluster.offload:
            config["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return config

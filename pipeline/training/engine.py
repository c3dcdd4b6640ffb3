"""DeepSpeed's engine around a model: whole tensors in and out, however ZeRO parts them among the ranks."""

from typing import Any

import torch
from torch import Tensor

from pipeline.distributed.cluster import Cluster, Ranks
from pipeline.distributed.collectives import device
from pipeline.distributed.deepspeed_setup import deepspeed
from pipeline.errors import UserError
from pipeline.mixing.batches import Batch
from pipeline.model.prompted_model import PromptedModel
from pipeline.training.optim import optimizer

MOMENTS = ("exp_avg", "exp_avg_sq")
PERSISTENT = 100_000  # ZeRO 3 leaves smaller parameters whole on every rank: gathering them costs more than it saves


class Engine:
    """One step of training on all ranks: gradients summed over a rank's micro-batches, averaged over ranks, clipped; AdamW.

    ZeRO stage 0 parts nothing among the ranks, 1 AdamW's moments, 2 gradients too, 3 all weights too, the frozen ones above all
    (Rajbhandari et al. 2020, section 5). All give the same numbers.
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
        """`model` holds the values to start from. Raises UserError where ranks cannot share the micro-batches."""
        config = {
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": micro_batches_per_rank(micro_batches, ranks),
            "gradient_clipping": max_grad_norm,
            "zero_optimization": _zero(cluster),
            "zero_allow_untested_optimizer": True,  # torch's AdamW: DeepSpeed's own are compiled for minutes, to the same effect
            "steps_per_print": 2**31,
        }
        self._model, self._stage = model, cluster.zero
        _place(model, config, ranks)
        self._learning_rates = learning_rates
        self.adam = optimizer(model.trainable_state().items(), learning_rates, weight_decay)
        self._engine, *_ = deepspeed.initialize(
            model=model, optimizer=self.adam, config=config, dist_init_required=False
        )
        self._norm = 0.0

    def __call__(self, batch: Batch) -> Tensor:
        """The model's logits."""
        logits: Tensor = self._engine(batch)
        return logits

    def backward(self, loss: Tensor) -> None:
        """Add a micro-batch's gradients; after a step's last one, on every rank, they are summed over all."""
        self._engine.backward(loss)
        if self._stage == 0 and self._engine.is_gradient_accumulation_boundary():
            self._norm = float(
                torch.nn.utils.get_total_norm(
                    [p.grad for p in self._model.trainable_state().values() if p.grad is not None]
                )
            )

    def set_learning_rates(self, factor: float) -> None:
        """Each part's learning rate, as a share of its peak."""
        for group in self.adam.param_groups:
            group["lr"] = self._learning_rates[group["part"]] * factor

    def step(self) -> None:
        """Does nothing but after a step's last micro-batch."""
        self._engine.step()

    @property
    def gradient_norm(self) -> float:
        """Of the last step, before it was clipped."""
        return self._norm if self._stage == 0 else float(self._engine.get_global_grad_norm())

    def values(self) -> dict[str, Tensor]:
        """A copy of every trained value, by the parameter's name. All ranks must call it together."""
        return {
            name: self._whole(parameter).detach().cpu().clone()
            for name, parameter in self._model.trainable_state().items()
        }

    def _whole(self, parameter: Tensor) -> Tensor:
        whole: Tensor = (
            deepspeed.utils.safe_get_full_fp32_param(parameter) if self._stage == 3 else parameter
        )
        return whole

    def moments(self) -> dict[str, Tensor]:
        """AdamW's moments as NAME.exp_avg and NAME.exp_avg_sq, after a step at least. All ranks must call it together."""
        self._link_moments()
        return {
            f"{name}.{key}": self._moment(parameter, key).detach().cpu().clone()
            for name, parameter in self._model.trainable_state().items()
            for key in MOMENTS
        }

    def _link_moments(self) -> None:
        """DeepSpeed does so once, when it has stepped the first of several groups, and so misses the moments of the others."""
        if self._stage in (1, 2):
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    def _moment(self, parameter: Tensor, key: str) -> Tensor:
        moment: Tensor = (
            self.adam.state[parameter][key]
            if self._stage == 0
            else deepspeed.utils.safe_get_full_optimizer_state(parameter, key)
        )
        return moment

    def restore_moments(self, moments: dict[str, Tensor], step: int) -> None:
        """Put back what `moments` gave after step `step`, in this or another number of ranks, under this or another stage."""
        parameters = self._model.trainable_state()
        for stepped in self._stepped():
            self.adam.state[stepped] = {
                "step": torch.tensor(float(step), device=stepped.device),
                **{key: torch.zeros_like(stepped) for key in MOMENTS},
            }
        self._link_moments()
        for name, parameter in parameters.items():
            for key in MOMENTS:
                saved = moments[f"{name}.{key}"].to(parameter.device)
                if self._stage == 0:
                    self.adam.state[parameter][key].copy_(saved)
                else:
                    deepspeed.utils.safe_set_full_optimizer_state(parameter, saved, key)

    def _stepped(self) -> list[Tensor]:
        """What AdamW steps: the parameters, or this rank's parts of them."""
        if self._stage == 0:
            return list(self._model.trainable_state().values())
        zero: Any = self._engine.optimizer
        parts: list[Tensor] = (
            zero.fp32_partitioned_groups_flat
            if self._stage == 3
            else zero.single_partition_of_fp32_groups
        )
        return parts

    def close(self, values: dict[str, Tensor]) -> None:
        """The end of training: the model is an ordinary one again, as far as it is trained, with these values in it."""
        if self._stage == 3:
            self._engine.destroy()
            for name, parameter in self._model.trainable_state().items():
                parameter.data = values[name].to(parameter.device)
        else:
            self._model.load_trainable_state(values)


def micro_batches_per_rank(micro_batches: int, ranks: Ranks) -> int:
    """How many of a step's micro-batches each rank has. Raises UserError where ranks cannot share them evenly."""
    if micro_batches % ranks.world:
        divisors = [str(n) for n in range(1, micro_batches + 1) if micro_batches % n == 0]
        raise UserError(
            f"{ranks.world} ranks cannot share the {micro_batches} micro-batches of a step evenly; "
            f"start {' or '.join(divisors)}, or change micro_batches"
        )
    return micro_batches // ranks.world


def prepare_for_inference(model: PromptedModel, ranks: Ranks, cluster: Cluster) -> PromptedModel:
    """A model that is to predict only, on this rank's device; under ZeRO 3 this rank's part of it."""
    config = {
        "train_micro_batch_size_per_gpu": 1,
        "zero_optimization": _zero(cluster),
        "steps_per_print": 2**31,
    }
    _place(model.requires_grad_(False), config, ranks)
    if cluster.zero == 3:
        deepspeed.initialize(model=model, config=config, dist_init_required=False)
    return model


def _place(model: PromptedModel, config: dict[str, Any], ranks: Ranks) -> None:
    if config["zero_optimization"]["stage"] == 3:
        # One parameter after the other: the whole may not fit the device.
        deepspeed.zero.Init(module=model, config_dict_or_path=config, dtype=torch.float32)
        for buffer in model.buffers():  # which it leaves where they are
            buffer.data = buffer.data.to(device(ranks))
    else:
        model.to(device(ranks))


def _zero(cluster: Cluster) -> dict[str, Any]:
    config: dict[str, Any] = {"stage": cluster.zero}
    if cluster.zero == 3:
        config["stage3_param_persistence_threshold"] = PERSISTENT
        if cluster.offload:
            config["offload_param"] = {"device": "cpu", "pin_memory": torch.cuda.is_available()}
    return config

"""The training loop of pretraining and fine-tuning, for every arm."""

import math
import resource
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pipeline.arms import ArmName
from pipeline.distributed.cluster import Cluster, Ranks
from pipeline.distributed.collectives import all_gather_int, all_reduce_sum, device
from pipeline.errors import Diverged, Stopped, UserError
from pipeline.mixing.batches import MicroBatch, TrainBatches, collate
from pipeline.mixing.rates import steps_for
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import TrainParams
from pipeline.seeding import torch_seed
from pipeline.training.callbacks import Scores, TrainingCallback, TrainingRun, total
from pipeline.training.checkpoint import NUM_KEPT, State, load_checkpoint, save_checkpoint
from pipeline.training.engine import Engine
from pipeline.training.hidden_state_cache import make_hidden_state_cache
from pipeline.training.optim import lr_multiplier

# In nats. Below it, the gradient of a loss vanishes, so a learned task does not disturb the others.
BALANCE_EPSILON = 0.1
# For the weighted loss of a micro-batch. Random guessing is below it for any number of classes.
MAX_LOSS = 1e3


def steps_of(batches: TrainBatches, epochs: float) -> int:
    """The number of steps for `epochs` passes over the rows of all corpora together."""
    return steps_for(
        (corpus.per_epoch for corpus in batches.task_batches),
        batches.micro_batches_per_step,
        epochs,
    )


def train(
    model: PromptedModel,
    arm: ArmName,
    batches: TrainBatches,
    params: TrainParams,
    *,
    names: list[str],
    pad_token_id: int,
    validate: Callable[[PromptedModel], Scores],
    checkpoints: Path,
    ranks: Ranks,
    callback: TrainingCallback,
    cluster: Cluster,
    stopping: Callable[[], bool] = lambda: False,
) -> TrainingRun:
    """Train `model` in place; it ends with the values of the best mean validation score.

    `names` are the tasks in the order of `batches`. `validate` returns a score for each task, equal
    on all ranks. The run resumes from the newest checkpoint in `checkpoints`, a folder that the
    caller names after params and inputs. Except for measurements (see `TrainingRun`), the result is
    a function of (model, batches, params). It does not depend on `ranks` or `cluster`, up to the
    order of sums. A finished or pruned run has a checkpoint too: if the process is killed before
    the result is saved, the next call returns the same run without training.

    Raises Diverged if the loss or its gradient is not finite, or if the loss explodes; the last
    checkpoint is kept. Raises Stopped after the step in which `stopping` returns True on any rank,
    with a checkpoint of that step. Raises UserError if the ranks have different checkpoints.
    """
    rank_device = device(ranks)
    first, run, best, moments = _resume_or_start(
        model, steps_of(batches, params.epochs), checkpoints, callback
    )
    engine = Engine(
        model,
        params.learning_rates(arm),
        params.weight_decay,
        params.micro_batches_per_step,
        params.max_grad_norm,
        ranks,
        cluster,
    )
    _check_agreement(first, checkpoints, ranks)
    if moments:
        engine.restore_moments(moments, first)
    validation_steps = _validation_steps(run.steps, params.num_validations)
    started, saved = time.monotonic() - run.seconds, time.monotonic()
    attach_hidden_states = make_hidden_state_cache(
        model,
        batches.tables,
        params,
        pad_token_id,
        checkpoints,
        rank_device,
        callback.log,
        lambda: _stop_caching(stopping(), ranks),
    )

    def checkpoint(step: int) -> None:
        nonlocal saved
        run.seconds = time.monotonic() - started
        _save(checkpoints, _state(step, engine, best, run), ranks)
        saved = time.monotonic()

    for step in range(first, run.steps + 1):
        if step in validation_steps and not run.has_validation(step):
            if run.add_validation(step, validate(model)):
                best = engine.values()
            checkpoint(step)
            callback.validated(run)
            if step < run.steps and _any_rank(callback.should_prune(run), ranks):
                run.pruned = True
                checkpoint(step)
        if reason := _early_end(run, step, params.patience):
            callback.log(reason)
        if reason or step == run.steps:
            break
        engine.set_learning_rates(lr_multiplier(step, run.steps, params.warmup_ratio))
        micro_batches = batches.step(step)
        losses = torch.zeros(len(micro_batches), dtype=torch.float64, device=rank_device)
        for index in range(ranks.rank, len(micro_batches), ranks.world):
            micro = micro_batches[index]
            batch = attach_hidden_states(
                collate(batches.tables[micro.task], micro.rows, micro.task, pad_token_id)
            ).to(rank_device)
            # Dropout depends on the step and the micro-batch, but not on the rank or on a resume.
            torch.manual_seed(torch_seed(batches.seed, step, index))
            loss = model.heads.loss(engine(batch), batch) * micro.weight
            losses[index] = _backward(engine, loss, params.balance_losses)
            engine.step()
        losses, stop, save = _combine_ranks(
            losses, stopping(), time.monotonic() - saved > 60 * cluster.checkpoint_minutes, ranks
        )
        _stop_if_diverged(step + 1, losses, engine.gradient_norm, micro_batches, names)
        consumed = dict(zip(names, batches.count(micro_batches), strict=True))
        row = _train_row(step + 1, losses, micro_batches, names, engine)
        run.add_step(row, consumed, time.monotonic() - started, _peak_memory() / 1e6)
        if stop or save:
            checkpoint(step + 1)
        callback.step(run, total(consumed, "rows"), total(consumed, "tokens"))
        if stop and step + 1 < run.steps:
            raise Stopped(f"stopped after step {step + 1} of {run.steps}, with a checkpoint")
    run.seconds = time.monotonic() - started
    # The stage may be killed before it saves the result. Only the best values are needed then.
    _save(checkpoints, State(step, _named("best", best), vars(run)), ranks, num_kept=1)
    engine.close(best)
    return run


def _validation_steps(steps: int, num_validations: int) -> set[int]:
    """The steps after which a run of `steps` steps is validated, at equal distances."""
    return {round(steps * (n + 1) / num_validations) for n in range(num_validations)} - {0}


def _early_end(run: TrainingRun, step: int, patience: int) -> str:
    """The reason to end the run before its last step; empty if the run continues."""
    if run.pruned:
        return f"pruned at step {step} of {run.steps}"
    if patience and run.validations_since_best() >= patience:
        return f"stopping at step {step}: {patience} validations without a new best"
    return ""


def _backward(engine: Engine, loss: Tensor, balance: bool) -> Tensor:
    """Add the gradient of a micro-batch's loss, or of its logarithm to balance losses.

    Returns the loss.
    """
    engine.backward(loss / (loss.detach() + BALANCE_EPSILON) if balance else loss)
    return loss.detach()


def _check_agreement(first: int, checkpoints: Path, ranks: Ranks) -> None:
    """Raise UserError unless all ranks resume from the same step of the same run.

    A rank may see an old state of the folder.
    """
    steps, keys = (
        all_gather_int(first, ranks),
        all_gather_int(zlib.crc32(str(checkpoints).encode()), ranks),
    )
    if len(set(steps)) > 1 or len(set(keys)) > 1:
        raise UserError(
            f"the ranks would resume from the steps {', '.join(map(str, steps))} of "
            f"{len(set(keys))} run(s); give all of them the same params, inputs and {checkpoints}, "
            "then run the stage again"
        )


def _save(checkpoints: Path, state: State, ranks: Ranks, num_kept: int = NUM_KEPT) -> None:
    if ranks.rank == 0:
        save_checkpoint(checkpoints, state, num_kept)
    # A rank that ends early would make the launcher kill rank 0 while it writes.
    all_gather_int(0, ranks)


def _any_rank(value: bool, ranks: Ranks) -> bool:
    """Whether `value` is True on any rank."""
    return any(all_gather_int(int(value), ranks))


def _stop_caching(stopping: bool, ranks: Ranks) -> None:
    """Raise Stopped if any rank has a request to stop."""
    if _any_rank(stopping, ranks):
        raise Stopped("stopped while caching the output of the lower layers")


def _combine_ranks(
    losses: Tensor, stopping: bool, checkpoint_is_due: bool, ranks: Ranks
) -> tuple[Tensor, bool, bool]:
    """The losses of all micro-batches, and whether each flag is True on any rank.

    So all ranks stop, or write a checkpoint, after the same step.
    """
    flags = losses.new_tensor([stopping, checkpoint_is_due])
    total = all_reduce_sum(torch.cat([losses, flags]), ranks).cpu()
    return total[:-2], bool(total[-2]), bool(total[-1])


def _stop_if_diverged(
    step: int,
    losses: Tensor,
    gradient_norm: float,
    micro_batches: list[MicroBatch],
    names: list[str],
) -> None:
    """Raise Diverged if training diverged in this step, before a checkpoint is written.

    If only the gradient is not finite, any row of the step may be the cause.
    """
    max_loss = float(losses.nan_to_num(nan=math.inf).max())
    if max_loss < MAX_LOSS and math.isfinite(gradient_norm):
        return
    suspects = [
        micro
        for micro, loss in zip(micro_batches, losses, strict=True)
        if max_loss < MAX_LOSS or not loss < MAX_LOSS
    ]
    reason = f"the loss is {float(losses.mean()):.6g} and its gradient's norm {gradient_norm:.6g}"
    raise Diverged(step, reason, [(names[micro.task], micro.rows.tolist()) for micro in suspects])


def _values(model: PromptedModel) -> dict[str, Tensor]:
    return {
        name: parameter.detach().cpu().clone()
        for name, parameter in model.trainable_state().items()
    }


def _train_row(
    step: int,
    losses: Tensor,
    micro_batches: list[MicroBatch],
    names: list[str],
    engine: Engine,
) -> dict[str, float]:
    """A row of train.tsv: loss, gradient norm, learning rates.

    With several tasks, also the mean loss of each task and its share of the rows.
    """
    row = {"step": step, "loss": float(losses.mean()), "gradient_norm": engine.gradient_norm}
    row.update({f"{group['part']}_lr": group["lr"] for group in engine.adam.param_groups})
    if len(names) > 1:
        losses_of: dict[str, list[float]] = {}
        rows: Counter[str] = Counter()
        for micro, loss in zip(micro_batches, losses.tolist(), strict=True):
            losses_of.setdefault(names[micro.task], []).append(loss)
            rows[names[micro.task]] += len(micro.rows)
        # The weighted losses of a task's micro-batches sum to (number of its micro-batches) x (its
        # mean loss).
        for name, values in losses_of.items():
            row |= {
                f"loss_{name}": sum(values) / len(values),
                f"share_{name}": rows[name] / rows.total(),
            }
    return row


def _peak_memory() -> int:
    """Peak memory in bytes, of the tensors on this rank's GPU, or of the process without a GPU."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _state(step: int, engine: Engine, best: dict[str, Tensor], run: TrainingRun) -> State:
    tensors = _named("now", engine.values()) | _named("best", best)
    return State(step, tensors | _named("adam", engine.moments()), vars(run))


def _named(part: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{part}.{name}": tensor for name, tensor in tensors.items()}


def _resume_or_start(
    model: PromptedModel, steps: int, checkpoints: Path, callback: TrainingCallback
) -> tuple[int, TrainingRun, dict[str, Tensor], dict[str, Tensor]]:
    """The next step, the run so far, its best values and AdamW's moments.

    They come from the newest intact checkpoint, if there is one.
    """
    state, broken = load_checkpoint(checkpoints)
    for line in broken:
        callback.log(line)
    if state is None:
        return 0, TrainingRun(steps), _values(model), {}
    callback.log(f"resuming at step {state.step} of {steps}")
    parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "adam": {}}
    for key, value in state.tensors.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    model.load_trainable_state(parts["now"] or parts["best"])
    progress: dict[str, Any] = state.progress
    return state.step, TrainingRun(**progress), parts["best"], parts["adam"]

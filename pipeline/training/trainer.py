"""The training loop: one, for every arm, pretraining and fine-tuning alike."""

import math
import resource
import sys
import time
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

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
from pipeline.seeding import derive_seed
from pipeline.training.checkpoint import State, load_checkpoint, save_checkpoint
from pipeline.training.engine import Engine
from pipeline.training.hidden_state_cache import make_hidden_state_cache
from pipeline.training.optim import lr_multiplier

Scores = dict[str, float]

BALANCE_EPSILON = 0.1  # nats: below it a loss pulls less and less, so that what is learned already does not shake what is not

MAX_LOSS = 1e3  # of a micro-batch's weighted loss: guessing blindly does not reach it with any number of classes


@dataclass
class TrainingRun:
    """What a run leaves beside the trained values: its curves (whole after a resume) and where the best score was.

    `resource_usage` has one row per row of `train`: seconds of training so far and peak memory in MB. They and `seconds`, the total,
    are measured; everything else is a function of the run's inputs.
    """

    steps: int
    train: list[dict[str, float]] = field(default_factory=list)
    resource_usage: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best_score: float = -1.0
    best_step: int = 0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add_step(self, row: dict[str, float], seconds: float, peak_memory_mb: float) -> None:
        """Add a row of `train` and what was measured at its end."""
        self.train.append(row)
        self.resource_usage.append({"seconds": seconds, "peak_memory_mb": peak_memory_mb})
        self.seconds = seconds

    def validated(self, step: int) -> bool:
        """Whether the values after this step have been scored."""
        return bool(self.validation) and self.validation[-1]["step"] == step

    def add_validation(self, step: int, scores: Scores) -> bool:
        """Add each task's score; whether their mean is the best so far."""
        mean = sum(scores.values()) / len(scores)
        self.validation.append(
            {
                "step": step,
                "score": mean,
                **{f"score_{name}": score for name, score in scores.items()},
            }
        )
        if mean <= self.best_score:
            return False
        self.best_score, self.best_step = mean, step
        return True

    def without_best(self) -> int:
        """How many validations there have been since the best."""
        return sum(row["step"] > self.best_step for row in self.validation)


class TrainingCallback(Protocol):
    """Shows a run to a person."""

    def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
        """A step is done, the last of `run.train`; it held so many rows and tokens."""

    def validated(self, run: TrainingRun) -> None:
        """A validation is done, the last of `run.validation`."""

    def log(self, line: str) -> None:
        """Something worth a line."""


def steps_of(batches: TrainBatches, epochs: float) -> int:
    """How many steps pass over `epochs` times as many rows as the corpora have together."""
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
    """Train `model` in place and leave the best values by mean validation score in it.

    `names` are the tasks in the order of `batches`; `validate` gives a score for each, the same on all ranks. Resumes from the
    newest checkpoint in `checkpoints`, a folder that the caller names after params and inputs. Every number but those measured
    (see TrainingRun) is a function of (model, batches, params), whatever `ranks` and `cluster` are, but for sums in another order. Raises
    Diverged when the loss or its gradient is no number or the loss beyond all bounds, leaving the last checkpoint; Stopped after
    the step in which `stopping` is true on any rank, leaving a checkpoint of it; and UserError where ranks find different ones.
    A finished run leaves one too: what comes after it may yet be killed, and is then done again without training.
    """
    where = device(ranks)
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
    checks = {
        round(run.steps * (n + 1) / params.num_validations) for n in range(params.num_validations)
    } - {0}
    started, saved = time.monotonic() - run.seconds, time.monotonic()
    with_stored = make_hidden_state_cache(
        model,
        batches.tables,
        params,
        pad_token_id,
        checkpoints,
        where,
        callback.log,
        lambda: _stop_storing(stopping(), ranks),
    )

    def checkpoint(step: int) -> None:
        nonlocal saved
        _save(checkpoints, _state(step, engine, best, run), ranks)
        saved = time.monotonic()

    for step in range(first, run.steps + 1):
        if step in checks and not run.validated(step):
            if run.add_validation(step, validate(model)):
                best = engine.values()
            run.seconds = time.monotonic() - started
            checkpoint(step)
            callback.validated(run)
        if params.patience and run.without_best() >= params.patience:
            callback.log(
                f"stopping at step {step}: {params.patience} validations without a new best"
            )
            break
        if step == run.steps:
            break
        engine.set_learning_rates(lr_multiplier(step, run.steps, params.warmup_ratio))
        micro_batches = batches.step(step)
        losses = torch.zeros(len(micro_batches), dtype=torch.float64, device=where)
        for index in range(ranks.rank, len(micro_batches), ranks.world):
            micro = micro_batches[index]
            batch = with_stored(
                collate(batches.tables[micro.task], micro.rows, micro.task, pad_token_id)
            ).to(where)
            torch.manual_seed(
                derive_seed(batches.seed, step, index) % (1 << 63)
            )  # dropout is the same on any rank, resumed or not
            loss = model.heads.loss(engine(batch), batch) * micro.weight
            engine.backward(
                loss / (loss.detach() + BALANCE_EPSILON) if params.balance_losses else loss
            )
            losses[index] = loss.detach()
            engine.step()
        losses, stop, due = _shared(
            losses, stopping(), time.monotonic() - saved > 60 * cluster.checkpoint_minutes, ranks
        )
        _stop_if_diverged(step + 1, losses, engine.gradient_norm, micro_batches, names)
        rows, tokens = batches.size(micro_batches)
        run.rows, run.tokens = run.rows + rows, run.tokens + tokens
        row = _train_row(step + 1, losses, micro_batches, names, engine)
        run.add_step(row, time.monotonic() - started, _peak_memory() / 1e6)
        if stop or due:
            checkpoint(step + 1)
        callback.step(run, rows, tokens)
        if stop and step + 1 < run.steps:
            raise Stopped(f"stopped after step {step + 1} of {run.steps}, with a checkpoint")
    run.seconds = time.monotonic() - started
    engine.close(best)
    return run


def _check_agreement(first: int, checkpoints: Path, ranks: Ranks) -> None:
    """Raise UserError unless all ranks go on from the same step of the same run: another's folder may be an old state of it."""
    steps, keys = (
        all_gather_int(first, ranks),
        all_gather_int(zlib.crc32(str(checkpoints).encode()), ranks),
    )
    if len(set(steps)) > 1 or len(set(keys)) > 1:
        raise UserError(
            f"the ranks would go on from the steps {', '.join(map(str, steps))}, of {len(set(keys))} run(s); let "
            f"them all see the same params, inputs and {checkpoints}, then run it again"
        )


def _save(checkpoints: Path, state: State, ranks: Ranks) -> None:
    if ranks.rank == 0:
        save_checkpoint(checkpoints, state)
    all_gather_int(
        0, ranks
    )  # nobody goes, and has the launcher kill the others, before it is whole


def _stop_storing(stopping: bool, ranks: Ranks) -> None:
    """Raise Stopped where any rank is to stop."""
    if any(all_gather_int(int(stopping), ranks)):
        raise Stopped("stopped while storing what the layers below the prompt give")


def _shared(losses: Tensor, stopping: bool, late: bool, ranks: Ranks) -> tuple[Tensor, bool, bool]:
    """Every micro-batch's loss; whether any rank is to stop, or to write a checkpoint: all do so after the same step."""
    total = all_reduce_sum(torch.cat([losses, losses.new_tensor([stopping, late])]), ranks).cpu()
    return total[:-2], bool(total[-2]), bool(total[-1])


def _stop_if_diverged(
    step: int,
    losses: Tensor,
    gradient_norm: float,
    micro_batches: list[MicroBatch],
    names: list[str],
) -> None:
    """Before a checkpoint can hold what came of it. Where the loss is sound and its gradient is not, any row may be the cause."""
    worst = float(losses.nan_to_num(nan=math.inf).max())
    if worst < MAX_LOSS and math.isfinite(gradient_norm):
        return
    bad = [
        micro
        for micro, loss in zip(micro_batches, losses, strict=True)
        if worst < MAX_LOSS or not loss < MAX_LOSS
    ]
    found = f"the loss is {float(losses.mean()):.6g} and its gradient's norm {gradient_norm:.6g}"
    raise Diverged(step, found, [(names[micro.task], micro.rows.tolist()) for micro in bad])


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
    """A line of train.tsv: loss, gradient norm and learning rates; by task, its mean loss and share of the rows."""
    row = {"step": step, "loss": float(losses.mean()), "gradient_norm": engine.gradient_norm}
    row.update({f"{group['part']}_lr": group["lr"] for group in engine.adam.param_groups})
    if len(names) > 1:
        own: dict[str, list[float]] = {}
        rows: Counter[str] = Counter()
        for micro, loss in zip(micro_batches, losses.tolist(), strict=True):
            own.setdefault(names[micro.task], []).append(loss)
            rows[names[micro.task]] += len(micro.rows)
        for (
            name,
            values,
        ) in own.items():  # a task's micro-batch losses sum to (its micro-batches) x (its mean)
            row |= {
                f"loss_{name}": sum(values) / len(values),
                f"share_{name}": rows[name] / rows.total(),
            }
    return row


def _peak_memory() -> int:
    """In bytes: what tensors took on this rank's GPU, or the whole process in the machine's memory."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _state(step: int, engine: Engine, best: dict[str, Tensor], run: TrainingRun) -> State:
    tensors = {f"now.{name}": value for name, value in engine.values().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {f"adam.{name}": value for name, value in engine.moments().items()}
    return State(step, tensors, vars(run))


def _resume_or_start(
    model: PromptedModel, steps: int, checkpoints: Path, callback: TrainingCallback
) -> tuple[int, TrainingRun, dict[str, Tensor], dict[str, Tensor]]:
    """The first step to do, the run, its best values so far, AdamW's moments: of the newest whole checkpoint, if there is one."""
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
    model.load_trainable_state(parts["now"])
    progress: dict[str, Any] = state.progress
    return state.step, TrainingRun(**progress), parts["best"], parts["adam"]

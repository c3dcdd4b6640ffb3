"""The training loop: one, for every arm, pretraining and fine-tuning alike."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from pipeline.batches import MicroBatch, TrainBatches, collate
from pipeline.checkpoint import State, load_checkpoint, save_checkpoint
from pipeline.cluster import Cluster, Ranks
from pipeline.collective import device, summed
from pipeline.engine import Engine
from pipeline.errors import Stopped, UserError
from pipeline.mixture import mix_seed, steps_for
from pipeline.model import PromptedModel
from pipeline.optim import rate_factor
from pipeline.params import Arm, TrainParams

Scores = dict[str, float]


@dataclass
class Run:
    """What a run leaves beside the trained values: its curves (whole after a resume) and where the best score was."""

    steps: int
    train: list[dict[str, float]] = field(default_factory=list)
    validation: list[dict[str, float]] = field(default_factory=list)
    best_score: float = -1.0
    best_step: int = 0
    rows: int = 0
    tokens: int = 0
    seconds: float = 0.0


class Watcher(Protocol):
    """Shows a run to a person."""

    def step(self, run: Run, rows: int, tokens: int) -> None:
        """A step is done, the last of `run.train`; it held so many rows and tokens."""

    def say(self, line: str) -> None:
        """Something worth a line."""


def steps_of(batches: TrainBatches, epochs: float) -> int:
    """How many steps pass over `epochs` times as many rows as the corpora have together."""
    return steps_for((packing.per_epoch for packing in batches.packings), batches.per_step, epochs)


def train(model: PromptedModel, arm: Arm, batches: TrainBatches, params: TrainParams, *, names: list[str], pad: int,
          validate: Callable[[PromptedModel], Scores], checkpoints: Path, ranks: Ranks, watcher: Watcher,
          cluster: Cluster, stopping: Callable[[], bool] = lambda: False) -> Run:
    """Train `model` in place and leave the best values by mean validation score in it.

    `names` are the tasks in the order of `batches`; `validate` gives a score for each, the same on all ranks. Resumes from the
    newest checkpoint in `checkpoints`, a folder that the caller names after params and inputs. Every number but `Run.seconds` is
    a function of (model, batches, params), whatever `ranks` and `cluster` are, but for sums in another order. Raises UserError
    when the loss is no longer a number, leaving the last checkpoint; and Stopped after the step in which `stopping` is true on
    any rank, leaving a checkpoint of it.
    """
    where = device(ranks)
    rates = params.learning_rates(arm)
    first, run, best, moments = _begun(model, steps_of(batches, params.epochs), checkpoints, watcher)
    engine = Engine(model, rates, params.weight_decay, params.micro_batches, params.clip, ranks, cluster)
    if moments:
        engine.restore_moments(moments, first)
    checks = {round(run.steps * (n + 1) / params.validations) for n in range(params.validations)}
    started, saved = time.monotonic() - run.seconds, time.monotonic()
    for step in range(first, run.steps):
        if params.patience and _without_best(run) >= params.patience:
            watcher.say(f"stopping at step {step}: {params.patience} validations without a new best")
            break
        factor = rate_factor(step, run.steps, params.warmup)
        for group in engine.adam.param_groups:
            group["lr"] = rates[group["part"]] * factor
        losses = torch.zeros(2, len(names), dtype=torch.float64)
        micro_batches = batches.step(step)
        for index in range(ranks.rank, len(micro_batches), ranks.world):
            micro = micro_batches[index]
            batch = collate(batches.tables[micro.task], micro.rows, micro.task, pad).to(where)
            torch.manual_seed(mix_seed(batches.seed, step, index) % (1 << 63))  # dropout is the same on any rank, resumed or not
            loss = model.heads.loss(engine(batch), batch) * micro.weight
            engine.backward(loss)
            losses[:, micro.task] += torch.tensor([loss.item(), 1.0])
            engine.step()
        late = ranks.rank == 0 and time.monotonic() - saved > 60 * cluster.checkpoint_minutes
        losses, stop, due = _shared(losses, stopping(), late, ranks)
        rows = sum(len(micro.rows) for micro in micro_batches)
        tokens = sum(int(batches.tables[micro.task].lengths[micro.rows].sum()) for micro in micro_batches)
        run.rows, run.tokens = run.rows + rows, run.tokens + tokens
        run.train.append(_train_row(step + 1, losses, names, engine))
        watcher.step(run, rows, tokens)
        _stop_if_diverged(run.train[-1], micro_batches, names)
        if step + 1 in checks:
            scores = validate(model)
            mean = sum(scores.values()) / len(scores)
            run.validation.append({"step": step + 1, "score": mean, **{f"score_{name}": s for name, s in scores.items()}})
            watcher.say(f"step {step + 1}: validation {mean:.2f}" + _each(scores))
            if mean > run.best_score:
                run.best_score, run.best_step, best = mean, step + 1, engine.values()
        if step + 1 < run.steps and (step + 1 in checks or stop or due):
            run.seconds = time.monotonic() - started
            state = _state(step + 1, engine, best, run)
            if ranks.rank == 0:
                save_checkpoint(checkpoints, state)
            saved = time.monotonic()
        if step + 1 < run.steps and stop:
            raise Stopped(f"stopped after step {step + 1} of {run.steps}, with a checkpoint")
    run.seconds = time.monotonic() - started
    engine.close(best)
    return run


def _shared(losses: Tensor, stopping: bool, late: bool, ranks: Ranks) -> tuple[Tensor, bool, bool]:
    """Losses summed over ranks; whether any is to stop, or to write a checkpoint: all do so after the same step."""
    total = summed(torch.cat([losses.flatten(), torch.tensor([stopping, late], dtype=losses.dtype)]), ranks)
    return total[:-2].view_as(losses), bool(total[-2]), bool(total[-1])


def _stop_if_diverged(row: dict[str, float], micro_batches: list[MicroBatch], names: list[str]) -> None:
    if not math.isfinite(row["loss"]):
        rows = "; ".join(f"{names[micro.task]} features {micro.rows.tolist()}" for micro in micro_batches)
        raise UserError(f"the loss of step {row['step']} is {row['loss']} ({rows}); lower the learning rate, or look at "
                        "these rows; the last checkpoint is kept")


def _values(model: PromptedModel) -> dict[str, Tensor]:
    return {name: parameter.detach().cpu().clone() for name, parameter in model.trainable_state().items()}


def _train_row(step: int, losses: Tensor, names: list[str], engine: Engine) -> dict[str, float]:
    total, counts = losses
    row = {"step": step, "loss": float(total.sum() / counts.sum()), "gradient_norm": engine.gradient_norm}
    row.update({f"{group['part']}_lr": group["lr"] for group in engine.adam.param_groups})
    if len(names) > 1:  # a task's own mean loss: its micro-batch losses already sum to (its micro-batches) x (its mean)
        row.update({f"loss_{name}": float(total[i] / counts[i]) for i, name in enumerate(names) if counts[i]})
    return row


def _without_best(run: Run) -> int:
    return sum(row["step"] > run.best_step for row in run.validation)


def _each(scores: Scores) -> str:
    return "" if len(scores) == 1 else " (" + ", ".join(f"{name} {score:.2f}" for name, score in scores.items()) + ")"


def _state(step: int, engine: Engine, best: dict[str, Tensor], run: Run) -> State:
    tensors = {f"now.{name}": value for name, value in engine.values().items()}
    tensors |= {f"best.{name}": value for name, value in best.items()}
    tensors |= {f"adam.{name}": value for name, value in engine.moments().items()}
    return State(step, tensors, vars(run))


def _begun(model: PromptedModel, steps: int, checkpoints: Path,
           watcher: Watcher) -> tuple[int, Run, dict[str, Tensor], dict[str, Tensor]]:
    """The first step to do, the run, its best values so far, AdamW's moments: of the newest whole checkpoint, if there is one."""
    state, broken = load_checkpoint(checkpoints)
    for line in broken:
        watcher.say(line)
    if state is None:
        return 0, Run(steps), _values(model), {}
    watcher.say(f"resuming at step {state.step} of {steps}")
    parts: dict[str, dict[str, Tensor]] = {"now": {}, "best": {}, "adam": {}}
    for key, value in state.tensors.items():
        part, name = key.split(".", 1)
        parts[part][name] = value
    model.load_trainable_state(parts["now"])
    progress: dict[str, Any] = state.progress
    return state.step, Run(**progress), parts["best"], parts["adam"]

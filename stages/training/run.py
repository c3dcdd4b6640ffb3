"""Run training for `pretrain` and `finetune`: backbone, checkpoints and output files."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import pandas as pd

from pipeline.arms import ArmName
from pipeline.distributed.cluster import Cluster, Ranks, load_cluster
from pipeline.distributed.collectives import all_gather_int, device, hosts
from pipeline.distributed.process_group import process_group
from pipeline.errors import Diverged, UserError, quantity
from pipeline.evaluation.evaluate import decode, score
from pipeline.files import atomic_folder, write_json
from pipeline.mixing.batches import TrainBatches
from pipeline.model.backbone import Backbone
from pipeline.model.precision import slow_precision, training_precision
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams, Params, Precision, Tool, TrainParams
from pipeline.pretrained.location import locate
from pipeline.tasks import task_named
from pipeline.tasks.base.task import LM_HEADS
from pipeline.training.callbacks import (
    CallbackList,
    Scores,
    TrainingCallback,
    TrainingRun,
    total,
)
from pipeline.training.engine import micro_batches_per_rank
from pipeline.training.setup import TaskData, TrainingSetup
from pipeline.training.trainer import steps_of, train
from stages.runtime.entry import stops
from stages.runtime.paths import CLUSTER, RUNS, WORK
from stages.training.curve import CurveFile
from stages.training.progress import Progress
from stages.training.resource_usage import write_resource_usage
from stages.training.tracking import Tracking, tracker_factory

MIN_STEPS = 20  # fewer add a warning
_LIBRARIES = ("torch", "transformers", "peft", "torchao")  # whose code computes the forward pass


def load_backbone(
    params: BackboneParams,
    tasks: Iterable[TaskData],
    precision: Literal["auto", Precision],
    trained: bool = False,
    random_seed: int | None = None,
) -> Backbone:
    """Load the backbone, with its LM head if the head of a task uses it.

    See `training_precision` for `precision`, and `Backbone.load` for `trained` and `random_seed`.

    The environment variable GRADIENT_CHECKPOINTING=1 turns gradient checkpointing on. It is not a
    param: it saves memory at the cost of time and changes no result.
    """
    lm_head = any(task_named(task.task).head in LM_HEADS for task in tasks)
    rank_device = device(Ranks.from_environment(os.environ))
    resolved = training_precision(precision, trained, rank_device)
    backbone = Backbone.load(
        locate(params),
        lm_head,
        resolved,
        trained,
        decoder=params.decoder,
        random_seed=random_seed,
    )
    if os.environ.get("GRADIENT_CHECKPOINTING") == "1":
        backbone.checkpoint_layers()
    return backbone


def fit(
    stage: str,
    arm: ArmName,
    setup: TrainingSetup,
    training: TrainParams,
    params: Params,
    callbacks: Sequence[TrainingCallback] = (),
) -> tuple[TrainingRun, bool]:
    """Train with checkpoints in .work/STAGE/KEY.

    Returns the run, and whether this process is rank 0, which writes the files of the run. Raises
    UserError with the ids of the rows if training diverges.
    """
    ranks, cluster = Ranks.from_environment(os.environ), load_cluster(CLUSTER)
    tasks, precision = setup.tasks, setup.model.backbone.precision
    key = _checkpoint_key(
        arm,
        training,
        params,
        setup.rates,
        precision,
        {task.name: task.summary for task in tasks},
        setup.start,
    )
    checkpoints = WORK / stage / key
    batches = _train_batches(setup, training, params.seed)
    names = [task.name for task in tasks]
    with ExitStack() as stack:
        stack.enter_context(process_group(ranks, 60 * cluster.timeout_minutes))
        run_callbacks = (
            stack.enter_context(
                _run_callbacks(stage, key, names, training.used(setup.arm_params), params.tracking)
            )
            if ranks.rank == 0
            else []
        )
        _check_precision(precision, ranks)
        stop_signals = stack.enter_context(stops())
        callback = CallbackList([*run_callbacks, *callbacks])
        num_steps = steps_of(batches, training.epochs)
        _log_start(callback.log, training, num_steps, precision, ranks, cluster)
        try:
            run = train(
                setup.model,
                arm,
                batches,
                training,
                names=names,
                pad_token_id=tasks[0].pad_token_id,
                validate=partial(_validation_scores, tasks, ranks),
                checkpoints=checkpoints,
                ranks=ranks,
                callback=callback,
                stopping=lambda: bool(stop_signals),
                cluster=cluster,
            )
        except Diverged as diverged:
            raise _divergence_error(diverged, {task.name: task for task in tasks}) from diverged
    if ranks.rank == 0:
        _remove_other_checkpoints(checkpoints)
    return run, ranks.rank == 0


def _train_batches(setup: TrainingSetup, training: TrainParams, seed: int) -> TrainBatches:
    return TrainBatches(
        [task.train for task in setup.tasks],
        setup.rates,
        training.tokens_per_micro_batch,
        training.micro_batches_per_step,
        seed,
    )


def _validation_scores(tasks: Sequence[TaskData], ranks: Ranks, model: PromptedModel) -> Scores:
    """The primary score of each task on its validation set, with thresholds fitted on it."""
    scores = {}
    for head, task in enumerate(tasks):
        data = task.validation
        decoded = decode(model, data, head, task.pad_token_id, ranks=ranks)
        thresholds = data.task.fit_thresholds(data.examples, decoded)
        scores[task.name] = score(data, decoded, thresholds).overall[task.primary]
    return scores


def _log_start(
    log: Callable[[str], None],
    training: TrainParams,
    num_steps: int,
    precision: Precision,
    ranks: Ranks,
    cluster: Cluster,
) -> None:
    """Log how the ranks share the work, and warn of too few steps or a slow precision."""
    log(
        f"{quantity(ranks.world, 'rank')} on {', '.join(hosts(ranks))}; ZeRO stage "
        f"{cluster.zero}{' with offload' * cluster.offload}, "
        f"precision {precision}{' (auto)' * (training.precision == 'auto')}; "
        f"{micro_batches_per_rank(training.micro_batches_per_step, ranks)} of the "
        f"{training.micro_batches_per_step} micro-batches of a step per rank"
    )
    if num_steps < MIN_STEPS:
        log(
            f"warning: epochs is {training.epochs:g}, which is {num_steps} steps, too few to learn "
            "a task; raise epochs in params.yaml"
        )
    if warning := slow_precision(precision, device(ranks)):
        log(warning)


def _check_precision(precision: Precision, ranks: Ranks) -> None:
    """Raise UserError if `auto` is another precision on another rank."""
    if len(set(all_gather_int(get_args(Precision).index(precision), ranks))) > 1:
        raise UserError(
            f"precision is auto, which is {precision} on rank {ranks.rank} and another precision "
            "on other ranks, because their devices differ; set precision: float32 in params.yaml"
        )


@contextmanager
def _run_callbacks(
    stage: str, key: str, names: Sequence[str], used: dict[str, Any], tool: Tool | None
) -> Iterator[list[TrainingCallback]]:
    """The callbacks that report a run: progress, .work/STAGE/train.tsv and the tracking tool.

    `used` has the training params that have an effect.
    """
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(stage, names))
        callbacks: list[TrainingCallback] = [progress, CurveFile(WORK / stage / "train.tsv", names)]
        if tool is not None:
            start_tracker = tracker_factory(tool, stage, key, used)
            callbacks.append(stack.enter_context(Tracking(start_tracker, progress.log)))
        yield callbacks


def _remove_other_checkpoints(checkpoints: Path) -> None:
    """Remove the checkpoints of runs with other params or inputs.

    The checkpoints of this run stay, because the process may be killed before its result is saved.
    """
    for other in checkpoints.parent.iterdir():
        if other.is_dir() and other != checkpoints:
            shutil.rmtree(other)


def _divergence_error(diverged: Diverged, tasks: Mapping[str, TaskData]) -> UserError:
    """The error with the ids of the rows at which training diverged."""
    features: dict[str, list[int]] = {}
    for name, indices in diverged.features:
        features.setdefault(name, []).extend(indices)
    rows = "; ".join(
        f"{name}: {', '.join(tasks[name].ids(indices))}" for name, indices in features.items()
    )
    return UserError(
        f"{diverged}, on the rows {rows}; lower the learning rate, or check these rows; the last "
        "checkpoint is kept"
    )


def _checkpoint_key(
    arm: ArmName, training: TrainParams, params: Params, rates: Sequence[int], *inputs: Any
) -> str:
    """The checkpoint folder of a run: a hash of params, precision, inputs, code and libraries."""
    identity = [
        arm,
        asdict(training),
        params.seed,
        asdict(params.backbone),
        list(rates),
        inputs,
        [f"{library} {version(library)}" for library in _LIBRARIES if find_spec(library)],
    ]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:32]


def write_run(
    folder: Path,
    run: TrainingRun,
    arm: ArmName,
    training: TrainParams,
    seed: int,
    pretrained_on: Sequence[str] = (),
) -> None:
    """Write the curves and run.json of a run to RUNS/`folder`.

    `pretrained_on` are the corpora that the initial prompt has seen. The resource usage of the run
    is written to RESOURCE_USAGE/`folder`, if it has a step.
    """
    with atomic_folder(RUNS / folder) as temporary:
        for name, rows, columns in (
            ("train", run.train, ("step", "loss")),
            ("validation", run.validation, ("step", "score")),
        ):
            # An arm that trains nothing has curves without rows.
            pd.DataFrame(rows, columns=None if rows else columns).to_csv(
                temporary / f"{name}.tsv", sep="\t", index=False, float_format="%.6g"
            )
        write_json(
            temporary / "run.json",
            {
                "steps": len(run.train),
                "best_step": run.best_step,
                "rows_seen": total(run.consumed, "rows"),
                "tokens_seen": total(run.consumed, "tokens"),
                "seed": seed,
                "learning_rates": training.learning_rates(arm),
                "consumed_by_corpus": run.consumed,
                "pretrained_on": list(pretrained_on),
            },
        )
    if run.resource_usage:
        write_resource_usage(
            folder,
            seconds=round(run.seconds, 1),
            peak_memory_mb=round(max(row["peak_memory_mb"] for row in run.resource_usage), 1),
            ranks=Ranks.from_environment(os.environ).world,
        )

"""What pretraining and fine-tuning share: the backbone, the run with its checkpoints, and the files
of its curves.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from pipeline.arms import ArmName
from pipeline.distributed.cluster import Ranks, load_cluster
from pipeline.distributed.collectives import hosts
from pipeline.distributed.process_group import process_group
from pipeline.errors import Diverged, UserError
from pipeline.evaluation.evaluate import decode, score
from pipeline.files import atomic_folder, write_json
from pipeline.mixing.batches import TrainBatches
from pipeline.model.backbone import Backbone
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams, Params, Precision, Tool, TrainParams
from pipeline.pretrained.location import locate
from pipeline.training.callbacks import CallbackList, Scores, TrainingCallback, TrainingRun
from pipeline.training.engine import micro_batches_per_rank
from pipeline.training.setup import TaskData, TrainingSetup
from pipeline.training.trainer import train
from stages.runtime.entry import stops
from stages.runtime.paths import CLUSTER, RUNS, WORK
from stages.training.curve import Curve
from stages.training.progress import Progress
from stages.training.resource_usage import write_resource_usage
from stages.training.tracking import Tracking, start_tracker


def load_backbone(
    params: BackboneParams, words: Iterable[Sequence[int]], precision: Precision
) -> Backbone:
    """The backbone, with its LM head where a task has a verbalizer's `words`.

    The environment variable GRADIENT_CHECKPOINTING=1 checkpoints its layers. That is not a param,
    since it costs time, saves memory and changes no result.
    """
    backbone = Backbone.load(locate(params), any(words), precision)
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
    """Train, with checkpoints in .work/STAGE/KEY; returns the run, and whether this process writes
    its files.

    Raises UserError where training diverges, with the ids of the rows.
    """
    ranks, cluster = Ranks.from_environment(os.environ), load_cluster(CLUSTER)
    model, tasks, rates = setup.model, setup.tasks, setup.rates
    batches = TrainBatches(
        [task.train for task in tasks],
        rates,
        training.tokens_per_micro_batch,
        training.micro_batches_per_step,
        params.seed,
    )
    key = _digest(
        arm, training, params, rates, {task.name: task.summary for task in tasks}, setup.start
    )
    checkpoints = WORK / stage / key

    def validate(trained: PromptedModel) -> Scores:
        scores = {}
        for number, task in enumerate(tasks):
            decoded = decode(trained, task.validation, number, task.pad_token_id, ranks=ranks)
            thresholds = task.validation.task.fit_thresholds(task.validation.examples, decoded)
            scores[task.name] = score(task.validation, decoded, thresholds).overall[task.primary]
        return scores

    names = [task.name for task in tasks]
    with ExitStack() as stack:
        stack.enter_context(process_group(ranks, 60 * cluster.timeout_minutes))
        shown = (
            stack.enter_context(_shown(stage, key, names, training, params.tracking))
            if ranks.rank == 0
            else []
        )
        stopped = stack.enter_context(stops())
        callback = CallbackList([*shown, *callbacks])
        count = "1 rank" if ranks.world == 1 else f"{ranks.world} ranks"
        callback.log(
            f"{count} on {', '.join(hosts(ranks))}; ZeRO stage "
            f"{cluster.zero}{' with offload' * cluster.offload}, "
            f"{training.precision}; "
            f"{micro_batches_per_rank(training.micro_batches_per_step, ranks)} of a step's "
            f"{training.micro_batches_per_step} "
            "micro-batches each"
        )
        try:
            run = train(
                model,
                arm,
                batches,
                training,
                names=names,
                pad_token_id=tasks[0].pad_token_id,
                validate=validate,
                checkpoints=checkpoints,
                ranks=ranks,
                callback=callback,
                stopping=lambda: bool(stopped),
                cluster=cluster,
            )
        except Diverged as diverged:
            raise _explained(diverged, {task.name: task for task in tasks}) from diverged
    if ranks.rank == 0:
        _forget_others(checkpoints)
    return run, ranks.rank == 0


@contextmanager
def _shown(
    stage: str, key: str, names: Sequence[str], training: TrainParams, tool: Tool | None
) -> Iterator[list[TrainingCallback]]:
    """The callbacks that show and record a run: on the terminal, in .work/STAGE/train.tsv and in a
    tracking tool.
    """
    with ExitStack() as stack:
        progress = stack.enter_context(Progress(stage, names))
        callbacks: list[TrainingCallback] = [progress, Curve(WORK / stage / "train.tsv", names)]
        if tool is not None:
            tracker = start_tracker(tool, stage, key, asdict(training))
            callbacks.append(stack.enter_context(Tracking(tracker, progress.log)))
        yield callbacks


def _forget_others(checkpoints: Path) -> None:
    """Remove the checkpoints of runs with other params or inputs.

    Those of this run stay, since the process may be killed before its result is saved.
    """
    for other in checkpoints.parent.iterdir():
        if other.is_dir() and other != checkpoints:
            shutil.rmtree(other)


def _explained(diverged: Diverged, tasks: Mapping[str, TaskData]) -> UserError:
    features: dict[str, list[int]] = {}
    for name, numbers in diverged.features:
        features.setdefault(name, []).extend(numbers)
    rows = "; ".join(
        f"{name}: {', '.join(tasks[name].ids(numbers))}" for name, numbers in features.items()
    )
    return UserError(
        f"{diverged}, on the rows {rows}; lower the learning rate, or look at these rows; the last "
        "checkpoint is kept"
    )


def _digest(
    arm: ArmName, training: TrainParams, params: Params, rates: Sequence[int], *inputs: Any
) -> str:
    """The name of a run's checkpoints: a hash of its params, inputs and code."""
    everything = [
        arm,
        asdict(training),
        params.seed,
        asdict(params.backbone),
        list(rates),
        inputs,
        torch.__version__,
    ]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:32]


def consumed_by_corpus(
    setup: TrainingSetup, training: TrainParams, seed: int, run: TrainingRun
) -> dict[str, Any]:
    """What a run consumed of each task; the schedule is a function of the step, so that nothing is
    counted while training.
    """
    tables = [task.train for task in setup.tasks]
    batches = TrainBatches(
        tables, setup.rates, training.tokens_per_micro_batch, training.micro_batches_per_step, seed
    )
    return {
        task.name: counts
        for task, counts in zip(setup.tasks, batches.consumed(len(run.train)), strict=True)
    }


def write_run(
    folder: Path,
    run: TrainingRun,
    arm: ArmName,
    training: TrainParams,
    seed: int,
    drawn: dict[str, Any] | None = None,
) -> None:
    """Write the run's curves and run.json to RUNS/`folder`, and its resource usage to
    RESOURCE_USAGE/`folder`.
    """
    with atomic_folder(RUNS / folder) as beside:
        pd.DataFrame(run.train).to_csv(
            beside / "train.tsv", sep="\t", index=False, float_format="%.6g"
        )
        pd.DataFrame(run.validation).to_csv(
            beside / "validation.tsv", sep="\t", index=False, float_format="%.6g"
        )
        write_json(
            beside / "run.json",
            {
                "steps": len(run.train),
                "best_step": run.best_step,
                "rows_seen": run.rows,
                "tokens_seen": run.tokens,
                "seed": seed,
                "learning_rates": training.learning_rates(arm),
                "drawn": drawn or {},
            },
        )
    write_resource_usage(
        folder,
        seconds=round(run.seconds, 1),
        peak_memory_mb=round(max(row["peak_memory_mb"] for row in run.resource_usage), 1),
        ranks=Ranks.from_environment(os.environ).world,
    )

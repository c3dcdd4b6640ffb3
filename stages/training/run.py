"""What pretraining and fine-tuning share: a task's data, a model's start, and what a run leaves."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from pipeline.files import atomic_folder, sha256, write_json
from pipeline.mixing.batches import TrainBatches
from pipeline.model.backbone import Backbone
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams, Params, Precision, TrainParams
from pipeline.pretrained.location import locate
from pipeline.training.engine import micro_batches_per_rank
from pipeline.training.setup import TaskData, TrainingSetup
from pipeline.training.trainer import Scores, TrainingRun, train
from stages.runtime.entry import stops
from stages.runtime.paths import CLUSTER, RUNS, WORK
from stages.training.progress import Progress
from stages.training.resource_usage import write_resource_usage
from stages.training.tracking import start_tracker


def load_backbone(
    params: BackboneParams, words: Iterable[Sequence[int]], precision: Precision
) -> Backbone:
    """The backbone, with its LM head where a task has a verbalizer's words.

    It checkpoints its layers where GRADIENT_CHECKPOINTING=1: that costs time, saves memory, changes no result, so it is no param.
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
    validated: Callable[[TrainingRun], None] = lambda run: None,
) -> tuple[TrainingRun, bool]:
    """Train; returns the run, and whether this process writes its files. `validated` is called after each validation, and may
    raise to end the run.
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
    tracker = (
        start_tracker(params.tracking, stage, key, asdict(training))
        if params.tracking and not ranks.rank
        else None
    )
    shown = Progress(stage, ranks.rank == 0, WORK / stage / "train.tsv", names, tracker, validated)
    with process_group(ranks, 60 * cluster.timeout_minutes), shown as progress, stops() as stopped:
        count = "1 rank" if ranks.world == 1 else f"{ranks.world} ranks"
        progress.log(
            f"{count} on {', '.join(hosts(ranks))}; ZeRO stage {cluster.zero}{' with offload' * cluster.offload}, "
            f"{training.precision}; {micro_batches_per_rank(training.micro_batches_per_step, ranks)} of a step's {training.micro_batches_per_step} "
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
                callback=progress,
                stopping=lambda: bool(stopped),
                cluster=cluster,
            )
        except Diverged as diverged:
            raise _explained(diverged, {task.name: task for task in tasks}) from diverged
    if ranks.rank == 0:
        _forget_others(checkpoints)
    return run, ranks.rank == 0


def _forget_others(checkpoints: Path) -> None:
    """Remove those of runs with other params or inputs. Its own stay: whoever saves what came of it may yet be killed."""
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
        f"{diverged}, on the rows {rows}; lower the learning rate, or look at these rows; the last checkpoint is "
        "kept"
    )


def _digest(
    arm: ArmName, training: TrainParams, params: Params, rates: Sequence[int], *inputs: Any
) -> str:
    code = {
        str(path): sha256(path)
        for folder in ("pipeline", "stages")
        for path in sorted(Path(folder).rglob("*.py"))
    }
    everything = [
        arm,
        asdict(training),
        params.seed,
        asdict(params.backbone),
        list(rates),
        inputs,
        code,
        torch.__version__,
    ]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:32]


def consumed_by_corpus(
    setup: TrainingSetup, training: TrainParams, seed: int, run: TrainingRun
) -> dict[str, Any]:
    """What a run has drawn of each task: the schedule is a function of the step, so it need not be counted while training."""
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
    """Write the run's curves and run.json to RUNS/`folder`, and its resource usage to RESOURCE_USAGE/`folder`."""
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

"""What pretraining and fine-tuning share: a task's data, a model's start, and what a run leaves."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.artifact import ArtifactConfig, TaskHead
from pipeline.backbone import Backbone
from pipeline.batches import TrainBatches, collate
from pipeline.config import load_json
from pipeline.evaluate import Split, decode, scored
from pipeline.features import FeatureTable
from pipeline.files import atomic_folder, sha256, write_json
from pipeline.launch import Ranks, joined
from pipeline.mixture import mix_seed
from pipeline.model import Heads, PromptedModel
from pipeline.params import Arm, TrainParams
from pipeline.prompt import DeepPrompt, SoftPrompt, initial_key_values
from pipeline.tasks import TASKS
from pipeline.trainer import Run, Scores, train
from stages.params import Params
from stages.progress import Progress
from stages.splits import load_split

WORK = Path(".work")


@dataclass(frozen=True)
class TaskData:
    """One task's training features and the validation examples it is watched on."""

    name: str
    task: str
    classes: tuple[str, ...]
    pad: int
    train: FeatureTable
    validation: Split
    hashes: dict[str, Any]

    @classmethod
    def load(cls, name: str, validation_rows: int | None) -> "TaskData":
        """From data/features/NAME and data/examples/NAME."""
        features, examples = Path("data/features") / name, Path("data/examples") / name
        summary = load_json(features / "summary.json")
        return cls(name, summary["task"], tuple(summary["classes"]), summary["pad"], FeatureTable(features / "train.arrow"),
                   load_split(features, examples, summary, "validation", validation_rows), summary["splits"])


def heads_for(tasks: Sequence[TaskData], hidden_size: int, seed: int) -> Heads:
    """A fresh head for each task."""
    return Heads([TASKS[task.task].head for task in tasks], [len(task.classes) for task in tasks], hidden_size, seed)


def new_prompt(arm: Arm, backbone: Backbone, tasks: Sequence[TaskData], training: TrainParams,
               seed: int) -> DeepPrompt | SoftPrompt | None:
    """A prompt that starts from training text, an equal part from each task (or as `init` says)."""
    if arm in ("fine_tune", "head_only"):
        return None
    parts = []
    for index, task in enumerate(tasks):
        count = training.num_virtual_tokens * (index + 1) // len(tasks) - training.num_virtual_tokens * index // len(tasks)
        rows = np.arange(min(len(task.train), max(1, count)))
        rows = rows[: int(np.searchsorted(np.cumsum(task.train.lengths[rows]), count)) + 1]
        batch = collate(task.train, rows, 0, task.pad)
        if arm == "soft_prompt":
            parts.append(backbone.text_embeddings(batch.input_ids, batch.attention_mask, count))
        else:
            parts.append(backbone.text_key_values(batch.input_ids, batch.attention_mask, batch.token_types, count))
    if arm == "soft_prompt":
        return SoftPrompt(torch.cat(parts))
    return DeepPrompt(initial_key_values(training.init, torch.cat(parts, dim=3), mix_seed(seed, 3) % (1 << 63)))


def fit(stage: str, arm: Arm, model: PromptedModel, tasks: Sequence[TaskData], rates: Sequence[int], training: TrainParams,
        params: Params, start: dict[str, Any]) -> tuple[Run, bool]:
    """Train; returns the run, and whether this process writes its files. `start` describes what training starts from."""
    ranks = Ranks.from_environment(os.environ)
    batches = TrainBatches([task.train for task in tasks], rates, training.batch_tokens, training.micro_batches, params.seed)
    checkpoints = WORK / stage / _digest(arm, training, params, rates, {task.name: task.hashes for task in tasks}, start)

    def validate(trained: PromptedModel) -> Scores:
        scores = {}
        for number, task in enumerate(tasks):
            decoded = decode(trained, task.validation, number, task.pad)
            kind = TASKS[task.task]
            thresholds = kind.decide(task.validation.examples, decoded)
            scores[task.name] = scored(task.validation, decoded, thresholds).overall[kind.primary]
        return scores

    with joined(ranks), Progress(stage, visible=ranks.rank == 0) as progress:
        run = train(model, arm, batches, training, names=[task.name for task in tasks], pad=tasks[0].pad, validate=validate,
                    checkpoints=checkpoints, ranks=ranks, watcher=progress)
    return run, ranks.rank == 0


def _digest(arm: Arm, training: TrainParams, params: Params, rates: Sequence[int], *inputs: Any) -> str:
    code = {str(path): sha256(path) for folder in ("pipeline", "stages") for path in sorted(Path(folder).rglob("*.py"))}
    everything = [arm, asdict(training), params.seed, asdict(params.backbone), list(rates), inputs, code, torch.__version__]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:32]


def describe(arm: Arm, model: PromptedModel, tasks: Sequence[TaskData], training: TrainParams, params: Params) -> ArtifactConfig:
    """The artifact's config: nothing in it changes between two runs of the same inputs."""
    shape = None if model.prompt is None else tuple(next(model.prompt.parameters()).shape)
    heads = {task.name: TaskHead(task.task, TASKS[task.task].head, task.classes) for task in tasks}
    return ArtifactConfig(
        arm=arm, backbone=params.backbone, model_type=model.backbone.config.model_type, hidden_size=model.backbone.hidden_size,
        heads=heads, prompt_shape=shape,
        provenance={"seed": params.seed, "training": asdict(training), "data": {task.name: task.hashes for task in tasks}},
    )


def write_run(folder: Path, run: Run, arm: Arm, training: TrainParams, seed: int) -> None:
    """train.tsv, validation.tsv and run.json: apart from the artifact, since seconds differ from run to run."""
    with atomic_folder(folder) as beside:
        pd.DataFrame(run.train).to_csv(beside / "train.tsv", sep="\t", index=False, float_format="%.6g")
        pd.DataFrame(run.validation).to_csv(beside / "validation.tsv", sep="\t", index=False, float_format="%.6g")
        write_json(beside / "run.json", {
            "seconds": round(run.seconds, 1), "steps": len(run.train), "best_step": run.best_step, "rows_seen": run.rows,
            "tokens_seen": run.tokens, "seed": seed, "learning_rates": training.learning_rates(arm),
            "ranks": Ranks.from_environment(os.environ).world,
        })


def forget_checkpoints(stage: str) -> None:
    """Remove what a finished run kept for resuming."""
    shutil.rmtree(WORK / stage, ignore_errors=True)

"""What pretraining and fine-tuning share: a task's data, a model's start, and what a run leaves."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipeline.backbone import Backbone
from pipeline.batches import TrainBatches, collate
from pipeline.cluster import Ranks, load_cluster
from pipeline.collective import hosts
from pipeline.config import load_json
from pipeline.engine import share
from pipeline.errors import Diverged, UserError
from pipeline.evaluate import Split, decode, scored
from pipeline.features import FeatureTable
from pipeline.files import atomic_folder, sha256, write_json
from pipeline.launch import joined
from pipeline.manifest import ArtifactConfig, TaskHead
from pipeline.mixture import mix_seed
from pipeline.model import Heads, PromptedModel
from pipeline.params import Arm, Precision, TrainParams
from pipeline.prompt import DeepPrompt, Projection, SoftPrompt, TaskFactors, initial_key_values
from pipeline.source import BackboneParams, locate
from pipeline.subset import Subset
from pipeline.tasks import task_named
from pipeline.trainer import Run, Scores, train
from stages.command import stops
from stages.launching import PATH
from stages.params import Params
from stages.progress import Progress
from stages.splits import load_split
from stages.tracking import start_tracker

WORK = Path(".work")


@dataclass(frozen=True)
class TaskData:
    """One task's training features and the validation examples it is watched on."""

    name: str
    task: str
    classes: tuple[str, ...]
    words: tuple[int, ...]
    primary: str
    pad: int
    train: FeatureTable
    validation: Split
    summary: dict[str, Any]

    @classmethod
    def load(cls, name: str, validation_rows: int | None, without: Sequence[int] = ()) -> "TaskData":
        """From data/features/NAME and data/examples/NAME; `without` are train examples to leave out, by number."""
        features, examples = Path("data/features") / name, Path("data/examples") / name
        summary = load_json(features / "summary.json")
        table = FeatureTable(features / "train")
        validation = load_split(features, examples, summary, "validation", validation_rows)
        return cls(name, summary["task"], tuple(summary["classes"]), tuple(summary["words"]), summary["primary"], summary["pad"],
                   Subset(table, without) if without else table, validation, summary)

    def ids(self, features: Sequence[int]) -> list[str]:
        """The ids of the training examples that some features are of, each once."""
        numbers = list(dict.fromkeys(self.train.examples[features].tolist()))
        ids = pq.read_table(Path("data/examples") / self.name / "train.parquet", columns=["id"])["id"]
        return list(map(str, ids.take(numbers).to_pylist()))


@dataclass(frozen=True)
class Beginning:
    """What a training begins with: the model, its tasks and the rate of each among them, what tells this start from another one
    (of plain values), and the corpora that were seen before.
    """

    model: PromptedModel
    tasks: Sequence[TaskData]
    rates: Sequence[int]
    start: dict[str, Any]
    pretrained_on: Sequence[str] = ()


def heads_for(tasks: Sequence[TaskData], hidden_size: int, seed: int) -> Heads:
    """A fresh head for each task."""
    return Heads([task_named(task.task).head for task in tasks], [len(task.classes) for task in tasks], hidden_size, seed,
                 [task.words for task in tasks])


def load_backbone(params: BackboneParams, words: Iterable[Sequence[int]], precision: Precision) -> Backbone:
    """The backbone, with its LM head where a task has a verbalizer's words.

    It checkpoints its layers where GRADIENT_CHECKPOINTING=1: that costs time, saves memory, changes no result, so it is no param.
    """
    backbone = Backbone.load(locate(params), any(words), precision)
    if os.environ.get("GRADIENT_CHECKPOINTING") == "1":
        backbone.checkpoint_layers()
    return backbone


def new_prompt(arm: Arm, backbone: Backbone, tasks: Sequence[TaskData], training: TrainParams,
               seed: int) -> DeepPrompt | SoftPrompt | None:
    """A prompt that starts from training text, an equal part from each task (or as `init` says)."""
    if arm in ("fine_tune", "head_only"):
        return None
    texts = list(_texts(tasks, training.num_virtual_tokens))
    if arm == "soft_prompt":
        return SoftPrompt(torch.cat([backbone.text_embeddings(ids, mask, count) for (ids, mask, _), count in texts]))
    try:
        layers = training.layers(backbone.num_layers)
    except ValueError as error:
        raise UserError(f"params.yaml: {arm}: {error}") from None
    if training.shift_positions and backbone.family.positions == "relative":
        raise UserError(f"params.yaml: {arm}: shift_positions is set, but the backbone's positions are relative; remove it")
    text = torch.cat([backbone.text_key_values(*batch, count) for batch, count in texts], dim=3)[layers.start : layers.stop]
    start = initial_key_values(training.init, text, mix_seed(seed, 3) % (1 << 63))
    return DeepPrompt(
        start, first_layer=layers.start, dropout=training.prompt_dropout,
        position_offset=training.num_virtual_tokens if training.shift_positions else 0,
        projection=_new_projection(backbone, texts, training, start, seed) if training.projection else None,
        factors=_new_factors(len(tasks), training, start, seed) if training.factor_rank else None)


def check_positions(prompt: DeepPrompt | SoftPrompt | None, backbone: Backbone, params: Params, names: Iterable[str]) -> None:
    """Raise UserError where a prompt that shifts the text leaves a task's longest windows without positions."""
    offset = prompt.position_offset if isinstance(prompt, DeepPrompt) else 0
    if offset and backbone.family.positions == "absolute":
        long = {name: params.tasks[name].max_length for name in names}
        wrong = [f"params.yaml: tasks.{name}.max_length is {length}; its prompt shifts texts by {offset} of the backbone's "
                 f"{backbone.positions} positions, make it smaller" for name, length in long.items()
                 if length + offset > backbone.positions]
        if wrong:
            raise UserError(*wrong)


def check_stored(where: str, prompt: DeepPrompt | SoftPrompt | None, backbone: Backbone, training: TrainParams) -> None:
    """Raise UserError where `stored_megabytes` is given and nothing can be stored: no layer is below the prompt, or none can be
    computed apart. `where` is the key of the training's params.
    """
    if not training.stored_megabytes:
        return
    key = f"params.yaml: {where}: stored_megabytes is {training.stored_megabytes}, but"
    if not isinstance(prompt, DeepPrompt) or not prompt.first_layer:
        raise UserError(f"{key} no layer is below its prompt; remove it, or set prompt_layers where that prompt is made")
    if not backbone.computes_below(prompt()):
        raise UserError(f"{key} the layers of this {backbone.config.model_type!r} model do not go on from what those below them "
                        "give; remove it")


def _texts(tasks: Sequence[TaskData], total: int) -> Iterator[tuple[tuple[Tensor, Tensor, Tensor], int]]:
    """The first training texts of each task, and how many of their tokens are to be taken so that all are `total`."""
    for index, task in enumerate(tasks):
        count = total * (index + 1) // len(tasks) - total * index // len(tasks)
        rows = np.arange(min(len(task.train), max(1, count)))
        rows = rows[: int(np.searchsorted(np.cumsum(task.train.lengths[rows]), count)) + 1]
        batch = collate(task.train, rows, 0, task.pad)
        yield (batch.input_ids, batch.attention_mask, batch.token_types), count


def _new_projection(backbone: Backbone, texts: Sequence[tuple[tuple[Tensor, Tensor, Tensor], int]], training: TrainParams,
                    start: Tensor, seed: int) -> Projection:
    """An MLP whose own embedding starts from the texts' input embeddings, or as small numbers; what it computes starts small."""
    embedding = torch.cat([backbone.text_embeddings(ids, mask, count) for (ids, mask, _), count in texts])
    if training.init != "text":
        embedding = torch.randn(embedding.shape, generator=torch.Generator().manual_seed(mix_seed(seed, 4) % (1 << 63)))
    return Projection(embedding, training.projection, start.numel() // start.shape[3], mix_seed(seed, 5) % (1 << 63))


def _new_factors(tasks: int, training: TrainParams, start: Tensor, seed: int) -> TaskFactors:
    count = start.shape[3]
    return TaskFactors(tasks, count, training.factor_rank, start.numel() // count, mix_seed(seed, 6) % (1 << 63))


def fit(stage: str, arm: Arm, begun: Beginning, training: TrainParams, params: Params,
        validated: Callable[[Run], None] = lambda run: None) -> tuple[Run, bool]:
    """Train; returns the run, and whether this process writes its files. `validated` is called after each validation, and may
    raise to end the run.
    """
    ranks, cluster = Ranks.from_environment(os.environ), load_cluster(PATH)
    model, tasks, rates = begun.model, begun.tasks, begun.rates
    batches = TrainBatches([task.train for task in tasks], rates, training.batch_tokens, training.micro_batches, params.seed)
    key = _digest(arm, training, params, rates, {task.name: task.summary for task in tasks}, begun.start)
    checkpoints = WORK / stage / key

    def validate(trained: PromptedModel) -> Scores:
        scores = {}
        for number, task in enumerate(tasks):
            decoded = decode(trained, task.validation, number, task.pad, ranks=ranks)
            thresholds = task.validation.task.decide(task.validation.examples, decoded)
            scores[task.name] = scored(task.validation, decoded, thresholds).overall[task.primary]
        return scores

    names = [task.name for task in tasks]
    tracker = start_tracker(params.tracking, stage, key, asdict(training)) if params.tracking and not ranks.rank else None
    shown = Progress(stage, ranks.rank == 0, WORK / stage / "train.tsv", names, tracker, validated)
    with joined(ranks, 60 * cluster.timeout_minutes), shown as progress, stops() as stopped:
        count = "1 rank" if ranks.world == 1 else f"{ranks.world} ranks"
        progress.say(f"{count} on {', '.join(hosts(ranks))}; ZeRO stage {cluster.zero}{' with offload' * cluster.offload}, "
                     f"{training.precision}; {share(training.micro_batches, ranks)} of a step's {training.micro_batches} "
                     "micro-batches each")
        try:
            run = train(model, arm, batches, training, names=names, pad=tasks[0].pad, validate=validate,
                        checkpoints=checkpoints, ranks=ranks, watcher=progress, stopping=lambda: bool(stopped), cluster=cluster)
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
    rows = "; ".join(f"{name}: {', '.join(tasks[name].ids(numbers))}" for name, numbers in features.items())
    return UserError(f"{diverged}, on the rows {rows}; lower the learning rate, or look at these rows; the last checkpoint is "
                     "kept")


def _digest(arm: Arm, training: TrainParams, params: Params, rates: Sequence[int], *inputs: Any) -> str:
    code = {str(path): sha256(path) for folder in ("pipeline", "stages") for path in sorted(Path(folder).rglob("*.py"))}
    everything = [arm, asdict(training), params.seed, asdict(params.backbone), list(rates), inputs, code, torch.__version__]
    return hashlib.sha256(json.dumps(everything, sort_keys=True).encode()).hexdigest()[:32]


def describe(arm: Arm, begun: Beginning, training: TrainParams, params: Params) -> ArtifactConfig:
    """The artifact's config: nothing in it changes between two runs of the same inputs."""
    about: dict[str, Any] = {}
    model, tasks = begun.model, begun.tasks
    prompt = model.prompt
    if isinstance(prompt, SoftPrompt):
        about = {"prompt_shape": tuple(prompt.vectors.shape)}
    elif prompt is not None:
        about = {"prompt_shape": prompt.shape, "first_layer": prompt.first_layer, "position_offset": prompt.position_offset,
                 "projection": training.projection if prompt.projection is not None else 0,
                 "factor_rank": training.factor_rank if prompt.factors is not None else 0}
    kinds, words = model.heads.kinds, model.heads.words
    heads = {task.name: TaskHead(task.task, kinds[i], task.classes, tuple(words[i]), **task.summary["windows"])
             for i, task in enumerate(tasks)}
    return ArtifactConfig(
        arm=arm, backbone=params.backbone, model_type=model.backbone.config.model_type, hidden_size=model.backbone.hidden_size,
        heads=heads, **about,
        provenance={"seed": params.seed, "training": asdict(training), "pretrained_on": list(begun.pretrained_on),
                    "data": {task.name: task.summary["splits"] for task in tasks}},
    )


def realized(begun: Beginning, training: TrainParams, seed: int, run: Run) -> dict[str, Any]:
    """What a run has drawn of each task: the schedule is a function of the step, so it need not be counted while training."""
    tables = [task.train for task in begun.tasks]
    batches = TrainBatches(tables, begun.rates, training.batch_tokens, training.micro_batches, seed)
    return {task.name: counts for task, counts in zip(begun.tasks, batches.drawn(len(run.train)), strict=True)}


def write_run(folder: Path, run: Run, arm: Arm, training: TrainParams, seed: int, drawn: dict[str, Any] | None = None) -> None:
    """train.tsv, validation.tsv and run.json: apart from the artifact, since seconds differ from run to run."""
    with atomic_folder(folder) as beside:
        pd.DataFrame(run.train).to_csv(beside / "train.tsv", sep="\t", index=False, float_format="%.6g")
        pd.DataFrame(run.validation).to_csv(beside / "validation.tsv", sep="\t", index=False, float_format="%.6g")
        write_json(beside / "run.json", {
            "seconds": round(run.seconds, 1), "steps": len(run.train), "best_step": run.best_step, "rows_seen": run.rows,
            "tokens_seen": run.tokens, "seed": seed, "learning_rates": training.learning_rates(arm),
            "ranks": Ranks.from_environment(os.environ).world, "drawn": drawn or {},
        })



"""Set up a training run: the data of its tasks, the model, and the config of the artifact."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor

from pipeline.arms import ARMS, ArmName
from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.config import load_json
from pipeline.errors import UserError
from pipeline.evaluation.evaluate import EvalSet
from pipeline.evaluation.splits import load_eval_set
from pipeline.features.subset import FeatureSubset
from pipeline.features.table import FeatureTable, Table
from pipeline.mixing.batches import collate
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import (
    DeepPrompt,
    Projection,
    SoftPrompt,
    TaskFactors,
    normal_key_values,
    without_values,
)
from pipeline.model.prompted_model import PromptedModel
from pipeline.model.scale_shift import new_scale_shift
from pipeline.params import Params, TrainParams
from pipeline.seeding import Stream, torch_seed
from pipeline.tasks import task_named


@dataclass(frozen=True)
class TaskData:
    """The training features and validation examples of a task."""

    name: str
    task: str
    classes: tuple[str, ...]
    label_token_ids: tuple[int, ...]
    primary: str
    pad_token_id: int
    train: Table
    validation: EvalSet
    summary: dict[str, Any]
    examples: Path

    @classmethod
    def load(
        cls,
        features: Path,
        examples: Path,
        validation_rows: int | None,
        excluded: Sequence[int] = (),
    ) -> "TaskData":
        """Load the folders of a task: its features and its examples.

        `excluded` has the indices of training examples to leave out. `validation_rows` limits the
        number of validation examples (None: all).
        """
        summary = load_json(features / "summary.json")
        table = FeatureTable(features / "train")
        validation = load_eval_set(features, examples, summary, "validation", validation_rows)
        return cls(
            features.name,
            summary["task"],
            tuple(summary["classes"]),
            tuple(summary["label_token_ids"]),
            summary["primary"],
            summary["pad_token_id"],
            FeatureSubset(table, excluded) if excluded else table,
            validation,
            summary,
            examples,
        )

    def ids(self, features: Sequence[int]) -> list[str]:
        """The ids of the training examples of `features` (indices), without repetition."""
        indices = list(dict.fromkeys(self.train.examples[features].tolist()))
        ids = pq.read_table(self.examples / "train.parquet", columns=["id"])["id"]
        return list(map(str, ids.take(indices).to_pylist()))


@dataclass(frozen=True)
class TrainingSetup:
    """The model before training, and its tasks.

    `rates` has the sampling rate of each task. `start` identifies the initial state of the run by
    plain values: its code, and the hashes of an artifact or of the dropped rows. `arm_params` has
    the keys of TrainParams that this training uses and some others do not. `pretrained_on` has the
    corpora of earlier training, and `init_from` the name and the provenance of its artifact.
    """

    model: PromptedModel
    tasks: Sequence[TaskData]
    rates: Sequence[int]
    start: dict[str, Any]
    arm_params: Sequence[str] = ()
    pretrained_on: Sequence[str] = ()
    init_from: dict[str, Any] = field(default_factory=dict)


def heads_for(tasks: Sequence[TaskData], hidden_size: int, seed: int) -> Heads:
    """A new head for each task."""
    return Heads(
        [task_named(task.task).head for task in tasks],
        [len(task.classes) for task in tasks],
        hidden_size,
        seed,
        [task.label_token_ids for task in tasks],
    )


def new_prompt(
    arm: ArmName,
    where: str,
    backbone: Backbone,
    tasks: Sequence[TaskData],
    training: TrainParams,
    seed: int,
) -> DeepPrompt | SoftPrompt | None:
    """A new prompt for an arm (None: the arm has no prompt). `where` is the key of `training`.

    A soft prompt is initialized from training text, a deep prompt as `training.init` selects. The
    tasks contribute equal numbers of virtual tokens. Raises UserError if `prompt_layers`,
    `shift_positions` or a soft prompt does not fit the backbone.
    """
    kind = ARMS[arm].prompt
    if kind is None:
        return None
    if kind == "soft":
        if backbone.family.positions == "fixed":
            raise UserError(
                f"params.yaml: {where}: a soft prompt would take the positions of the text, "
                f"because a {backbone.config.model_type!r} model counts them itself; remove the "
                "arm, or use another backbone"
            )
        return SoftPrompt(_embeddings_of_texts(backbone, tasks, training.num_virtual_tokens))
    try:
        layers = training.layers(backbone.num_layers)
    except ValueError as error:
        raise UserError(f"params.yaml: {where}: {error}") from None
    if training.shift_positions and not backbone.family.can_shift:
        raise UserError(
            f"params.yaml: {where}: shift_positions is set, but the backbone's positions are "
            f"{backbone.family.positions}; remove it"
        )
    scale_shift = _new_scale_shift(where, backbone, layers) if training.scale_shift else None
    start = _initial_key_values(backbone, tasks, training, layers, seed)
    return DeepPrompt(
        start,
        first_layer=layers.start,
        dropout=training.prompt_dropout,
        position_offset=training.num_virtual_tokens if training.shift_positions else 0,
        projection=_new_projection(backbone, tasks, training, start, seed)
        if training.projection_size
        else None,
        factors=_new_factors(len(tasks), training, start, seed) if training.factor_rank else None,
        scale_shift=scale_shift,
    )


def _new_scale_shift(where: str, backbone: Backbone, layers: range) -> Tensor:
    try:
        return new_scale_shift(backbone.scaled_modules(), layers)
    except UserError as error:
        raise UserError(f"params.yaml: {where}: {error}") from None


def check_positions(
    prompt: DeepPrompt | SoftPrompt | None, backbone: Backbone, params: Params, names: Iterable[str]
) -> None:
    """Check that the backbone has positions for the longest windows of each task and the prompt.

    A prompt takes positions if it shifts the text. Raises UserError if there are too few.
    """
    offset = prompt.position_offset if isinstance(prompt, DeepPrompt) else 0
    if offset and backbone.family.positions == "absolute":
        lengths = {name: params.tasks[name].max_length for name in names}
        problems = [
            f"params.yaml: tasks.{name}.max_length is {length}, but its prompt shifts texts by "
            f"{offset} of the backbone's {backbone.max_positions} positions; reduce max_length"
            for name, length in lengths.items()
            if length + offset > backbone.max_positions
        ]
        if problems:
            raise UserError(*problems)


def check_hidden_state_cache(
    where: str, prompt: DeepPrompt | SoftPrompt | None, backbone: Backbone, training: TrainParams
) -> None:
    """Check that there is something to cache if `hidden_state_cache_mb` is set.

    `where` is the key of the training params. Raises UserError if no layer is below the prompt, or
    the backbone's lower layers cannot be computed separately.
    """
    if not training.hidden_state_cache_mb:
        return
    key = f"params.yaml: {where}: hidden_state_cache_mb is {training.hidden_state_cache_mb}, but"
    if not isinstance(prompt, DeepPrompt) or not prompt.first_layer:
        raise UserError(
            f"{key} no layer is below its prompt; remove it, or set prompt_layers in the params of "
            "that prompt"
        )
    if not backbone.supports_lower_cache(prompt()):
        raise UserError(
            f"{key} the upper layers of this {backbone.config.model_type!r} model need more than "
            "the output of the lower layers; remove it"
        )


def _initial_texts(
    tasks: Sequence[TaskData], total: int
) -> Iterator[tuple[tuple[Tensor, Tensor, Tensor], int]]:
    """The first training texts of each task, and the number of their tokens to use.

    The texts are the tensors `input_ids`, `attention_mask` and `token_types`. The numbers sum to
    `total`.
    """
    for index, task in enumerate(tasks):
        count = total * (index + 1) // len(tasks) - total * index // len(tasks)
        rows = np.arange(min(len(task.train), max(1, count)))
        rows = rows[: int(np.searchsorted(np.cumsum(task.train.lengths[rows]), count)) + 1]
        batch = collate(task.train, rows, 0, task.pad_token_id)
        yield (batch.input_ids, batch.attention_mask, batch.token_types), count


def _initial_key_values(
    backbone: Backbone, tasks: Sequence[TaskData], training: TrainParams, layers: range, seed: int
) -> Tensor:
    """Initial keys and values [len(layers), 2, H, P, D] of a deep prompt, by `training.init`."""
    count = training.num_virtual_tokens
    if training.init == "normal":
        shape = (len(layers), *backbone.prompt_shape(count)[1:])
        return normal_key_values(shape, torch_seed(seed, Stream.KEY_VALUES))
    texts = _initial_texts(tasks, count)
    all_layers = torch.cat(
        [backbone.text_key_values(*text, num_tokens) for text, num_tokens in texts], dim=3
    )
    key_values = all_layers[layers.start : layers.stop]
    return key_values if training.init == "text" else without_values(key_values)


def _embeddings_of_texts(backbone: Backbone, tasks: Sequence[TaskData], total: int) -> Tensor:
    """Input embeddings [total, E] of the first training texts."""
    return torch.cat(
        [
            backbone.text_embeddings(ids, mask, count)
            for (ids, mask, _), count in _initial_texts(tasks, total)
        ]
    )


def _new_projection(
    backbone: Backbone,
    tasks: Sequence[TaskData],
    training: TrainParams,
    start: Tensor,
    seed: int,
) -> Projection:
    """A new MLP for a prompt. Its initial output is small.

    Its embedding is initialized from the input embeddings of the texts if `init` is "text", and
    from random numbers otherwise.
    """
    count = training.num_virtual_tokens
    if training.init == "text":
        embedding = _embeddings_of_texts(backbone, tasks, count)
    else:
        embedding = torch.randn(
            (count, backbone.embedding_size),
            generator=torch.Generator().manual_seed(torch_seed(seed, Stream.PROJECTION_EMBEDDING)),
        )
    return Projection(
        embedding,
        training.projection_size,
        start.numel() // start.shape[3],
        torch_seed(seed, Stream.PROJECTION),
    )


def _new_factors(tasks: int, training: TrainParams, start: Tensor, seed: int) -> TaskFactors:
    count = start.shape[3]
    width = start.numel() // count
    seed = torch_seed(seed, Stream.TASK_FACTORS)
    return TaskFactors(tasks, count, training.factor_rank, width, seed)


def artifact_config(
    arm: ArmName, setup: TrainingSetup, training: TrainParams, params: Params
) -> ArtifactConfig:
    """The config of the artifact. It is a function of the inputs."""
    details: dict[str, Any] = {}
    model, tasks = setup.model, setup.tasks
    prompt = model.prompt
    if isinstance(prompt, SoftPrompt):
        details = {"prompt_shape": tuple(prompt.vectors.shape)}
    elif isinstance(prompt, DeepPrompt):
        details = {
            "prompt_shape": prompt.shape,
            "first_layer": prompt.first_layer,
            "position_offset": prompt.position_offset,
            "zero_token_types": prompt.zero_token_types,
            "projection_size": training.projection_size if prompt.projection is not None else 0,
            "factor_rank": training.factor_rank if prompt.factors is not None else 0,
            "scale_shift": prompt.scale_shift_units is not None,
        }
    if "lora" in training.learning_rates(arm):
        details |= {"lora_rank": training.lora_rank, "lora_alpha": training.lora_alpha}
    kinds, label_token_ids = model.heads.kinds, model.heads.label_token_ids
    heads = {
        task.name: TaskHead(
            task.task,
            kinds[i],
            task.classes,
            tuple(label_token_ids[i]),
            **task.summary["windows"],
            max_answer_length=task.summary.get("max_answer_length"),
            word_rule=task.summary.get("word_rule"),
            optional_inputs=task.summary.get("optional_inputs", {}),
        )
        for i, task in enumerate(tasks)
    }
    return ArtifactConfig(
        arm=arm,
        backbone=params.backbone,
        model_type=model.backbone.config.model_type,
        hidden_size=model.backbone.hidden_size,
        heads=heads,
        precision=model.backbone.precision,
        backbone_files=model.backbone.files,
        random_weights=model.backbone.random_weights,
        **details,
        provenance={
            "seed": params.seed,
            "training": training.used(setup.arm_params),
            "pretrained_on": list(setup.pretrained_on),
            "data": {task.name: task.summary["splits"] for task in tasks},
        }
        | ({"init_from": setup.init_from} if setup.init_from else {}),
    )

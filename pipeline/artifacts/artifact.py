"""Artifacts: a folder with a prompt, its heads, and a config. Equal inputs give equal bytes.

- config.json: a description of the artifact (see `ArtifactConfig`).
- prompt.safetensors: `key_values` [L', 2, H, P, D], or `vectors` [P, E] of a soft prompt.
- scale_shift.safetensors: `LAYER.MODULE` [2, size], the scale and shift of a module's output, if
  the prompt has them.
- heads.safetensors: `TASK.weight` [K, C] and `TASK.bias` [K], without padding.
- factors.safetensors: `TASK.u` [P, R] and `TASK.v` [R, 2 L' H D], if the prompt has factors per
  task.
- projection.safetensors: the MLP that computes the prompt, if any; needed only for training.
- lora.safetensors: NAME.lora_A.weight [R, inputs] and NAME.lora_B.weight [outputs, R], for LoRA.
- backbone.safetensors: all weights of the backbone, if the arm trained it.

Random weights of a backbone are not stored; config.json has their seed and their hash.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from pipeline.arms import ARMS
from pipeline.artifacts.compatibility import check_fits
from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.errors import UserError, first_line, listed
from pipeline.files import atomic_folder, write_json
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.lora import add_lora, lora_factors
from pipeline.model.prompt import DeepPrompt, Projection, PromptBank, SoftPrompt, TaskFactors
from pipeline.model.prompted_model import PromptedModel
from pipeline.model.scale_shift import by_module, new_scale_shift
from pipeline.params import BackboneParams
from pipeline.tasks.base.task import LM_HEADS

MAX_LISTED_CLASSES = 200  # in a message


def save_artifact(folder: Path, model: PromptedModel, config: ArtifactConfig) -> None:
    """Write an artifact atomically."""
    assert not isinstance(model.prompt, PromptBank), (
        "an artifact has the prompt of one training run"
    )
    with atomic_folder(folder) as new_folder:
        _save_prompt(new_folder, model.prompt, list(config.heads))
        if config.scale_shift:
            _save(_scale_shift_of(model), new_folder / "scale_shift.safetensors")
        _save(_unpadded_heads(model.heads, config), new_folder / "heads.safetensors")
        if config.lora_rank:
            _save(lora_factors(model.backbone), new_folder / "lora.safetensors")
        if ARMS[config.arm].trains_backbone:
            _save(dict(model.backbone.named_parameters()), new_folder / "backbone.safetensors")
        write_json(new_folder / "config.json", dataclasses.asdict(config))


def _save_prompt(
    folder: Path, prompt: DeepPrompt | SoftPrompt | None, tasks: Sequence[str]
) -> None:
    if isinstance(prompt, SoftPrompt):
        _save({"vectors": prompt.vectors}, folder / "prompt.safetensors")
    elif prompt is not None:
        _save({"key_values": prompt.materialize()}, folder / "prompt.safetensors")
        if prompt.projection is not None:
            _save(prompt.projection.state_dict(), folder / "projection.safetensors")
        if prompt.factors is not None:
            factors = {
                f"{task}.{name}": getattr(prompt.factors, name)[i]
                for i, task in enumerate(tasks)
                for name in ("u", "v")
            }
            _save(factors, folder / "factors.safetensors")


def _scale_shift_of(model: PromptedModel) -> dict[str, Tensor]:
    assert isinstance(model.prompt, DeepPrompt)
    values = model.prompt.scale_shift()
    assert values is not None
    return by_module(values, model.backbone.scaled_modules(), model.prompt.first_layer)


def _unpadded_heads(heads: Heads, config: ArtifactConfig) -> dict[str, Tensor]:
    tensors = {}
    for index, (name, head) in enumerate(config.heads.items()):
        if head.kind not in LM_HEADS:
            tensors[f"{name}.weight"] = heads.weight[index, : len(head.classes)]
            tensors[f"{name}.bias"] = heads.bias[index, : len(head.classes)]
    return tensors


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    # The error of save_file does not mention a full disk.
    path.write_bytes(
        save({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()})
    )


def load_prompt(
    folder: Path,
    config: ArtifactConfig,
    params: BackboneParams,
    backbone: Backbone,
    task: str | None = None,
    projection: int = 0,
    dropout: float = 0.0,
) -> DeepPrompt | SoftPrompt | None:
    """The prompt of an artifact, checked against the backbone.

    `task` selects a task if the shared prompt has factors per task. `projection` is the hidden size
    of an MLP to load with the prompt (0: none). `dropout` is for further training. Returns None if
    the artifact has no prompt. Raises UserError with all fields that differ from the backbone.
    """
    check_fits(folder, config, params, backbone)
    if config.prompt_shape is None:
        return None
    tensors = _load(folder / "prompt.safetensors")
    soft = ARMS[config.arm].prompt == "soft"
    name = "vectors" if soft else "key_values"
    if tensors.keys() != {name} or tuple(tensors[name].shape) != config.prompt_shape:
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        raise UserError(
            f"{folder}/prompt.safetensors: holds {shapes}, but config.json has {name} "
            f"{config.prompt_shape}; make the artifact again"
        )
    if soft:
        return SoftPrompt(tensors[name])
    values = tensors[name]
    if config.factor_rank and task is not None:
        if projection:
            raise UserError(
                f"{folder}: its prompt has factors for {task}, and the MLP of projection_size "
                f"{projection} computes only the shared prompt; remove projection_size or "
                "factor_rank"
            )
        values = _with_factors(folder, config, values, task)
    mlp = _load_projection(folder, config, projection) if projection else None
    return DeepPrompt(
        values,
        first_layer=config.first_layer,
        projection=mlp,
        dropout=dropout,
        position_offset=config.position_offset,
        zero_token_types=config.zero_token_types,
        scale_shift=_load_scale_shift(folder, config, backbone) if config.scale_shift else None,
    )


def check_deep_prompt_alone(folder: Path, config: ArtifactConfig) -> None:
    """Raise UserError unless an artifact has a deep prompt that works without its other parts."""
    if ARMS[config.arm].prompt != "deep" or config.prompt_shape is None:
        raise UserError(
            f"{folder}: arm is {config.arm!r}, without a deep prompt; use an artifact that has one"
        )
    check_no_lora_beside_prompt(folder, config)


def check_no_lora_beside_prompt(folder: Path, config: ArtifactConfig) -> None:
    """Raise UserError if the prompt of an artifact was trained with LoRA factors beside it."""
    if config.prompt_shape is not None and config.lora_rank:
        raise UserError(
            f"{folder}: its prompt was trained with LoRA factors (lora_lr), and means nothing "
            "without them; use an artifact without LoRA factors"
        )


def _load_scale_shift(folder: Path, config: ArtifactConfig, backbone: Backbone) -> Tensor:
    """The scales and shifts [L', 2, W] of an artifact."""
    assert config.prompt_shape is not None
    scaled, first = backbone.scaled_modules(), config.first_layer
    values = new_scale_shift(scaled, range(first, first + config.prompt_shape[0]))
    views = by_module(values, scaled, first)  # each shares the memory of `values`
    _load_into(views, folder / "scale_shift.safetensors")
    return values


def _with_factors(folder: Path, config: ArtifactConfig, shared: Tensor, task: str) -> Tensor:
    factors = _load(folder / "factors.safetensors")
    u, v = factors.get(f"{task}.u"), factors.get(f"{task}.v")
    layers, two, heads, count, size = shared.shape
    width = layers * two * heads * size
    if (
        u is None
        or v is None
        or u.shape != (count, config.factor_rank)
        or v.shape != (config.factor_rank, width)
    ):
        raise UserError(
            f"{folder}/factors.safetensors: no factors of rank {config.factor_rank} for {task!r}; "
            "make the artifact again"
        )
    task_factors = TaskFactors(1, count, config.factor_rank, width, 0)
    with torch.no_grad():
        task_factors.u.copy_(u[None])
        task_factors.v.copy_(v[None])
        return DeepPrompt(shared, factors=task_factors).materialize(0)


def _load_projection(folder: Path, config: ArtifactConfig, hidden_size: int) -> Projection:
    if config.projection_size != hidden_size:
        raise UserError(
            f"{folder}/config.json: projection_size is {config.projection_size}, but params have "
            f"{hidden_size}; make them equal, or remove projection_size to train the prompt itself"
        )
    assert config.prompt_shape is not None
    layers, two, heads, _, size = config.prompt_shape
    tensors = _load(folder / "projection.safetensors")
    embedding = tensors.get("embedding", torch.zeros(0, 0))
    projection = Projection(embedding, hidden_size, layers * two * heads * size, 0)
    try:
        projection.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"{folder}/projection.safetensors: does not fit: {first_line(error)}; "
            "make the artifact again"
        ) from error
    return projection


def heads_of(folder: Path, config: ArtifactConfig, names: Iterable[str]) -> list[TaskHead]:
    """The heads of some tasks, in this order. Raises UserError if the artifact lacks one."""
    missing = [name for name in names if name not in config.heads]
    if missing:
        raise UserError(
            f"{folder}/config.json: has no head {', '.join(map(repr, missing))}, only "
            f"{', '.join(config.heads)}; make the artifact again"
        )
    return [config.heads[name] for name in names]


def empty_heads(heads: Iterable[TaskHead], hidden_size: int) -> Heads:
    """Heads of these kinds and classes, whose values `load_heads` replaces."""
    heads = list(heads)
    return Heads(
        [head.kind for head in heads],
        [len(head.classes) for head in heads],
        hidden_size,
        0,
        [head.label_token_ids for head in heads],
    )


def load_heads(
    folder: Path, config: ArtifactConfig, into: Heads, classes: dict[str, tuple[str, ...]]
) -> None:
    """Copy the heads of the tasks in `classes`, in this order, into `into`.

    Raises UserError if the artifact has no such head, or one with other classes or shape.
    """
    tensors = _load(folder / "heads.safetensors")
    heads = heads_of(folder, config, classes)
    for index, (head, (name, task_classes)) in enumerate(zip(heads, classes.items(), strict=True)):
        if head.classes != task_classes:
            head_classes, data_classes = (
                listed(names, MAX_LISTED_CLASSES) for names in (head.classes, task_classes)
            )
            raise UserError(
                f"{folder}/config.json: the classes of {name!r} are {head_classes}, but those of "
                f"the data are {data_classes}; make the artifact again, or, if it is of another "
                "corpus with this name, rename the task"
            )
        if head.kind in LM_HEADS:
            continue
        size, hidden_size = into.classes[index], into.weight.shape[2]
        weight, bias = _head(folder, tensors, name, (size, hidden_size))
        with torch.no_grad():
            into.weight[index, :size] = weight
            into.bias[index, :size] = bias


def init_head(
    folder: Path, config: ArtifactConfig, into: Heads, task_type: str, classes: Sequence[str]
) -> list[str]:
    """Initialize the only head of `into` from the artifact's heads of other tasks.

    A class starts from the mean of the weights and biases of the classes with its name, in the
    heads of the same task type. The other classes keep their random weights. Returns the classes
    that the artifact has. Raises UserError if a tensor is missing or has another shape.
    """
    tensors, hidden_size = _load(folder / "heads.safetensors"), into.weight.shape[2]
    rows: dict[str, list[tuple[Tensor, Tensor]]] = {}
    for name, head in config.heads.items():
        if head.type == task_type and head.kind not in LM_HEADS:
            weight, bias = _head(folder, tensors, name, (len(head.classes), hidden_size))
            for row, label in enumerate(head.classes):
                rows.setdefault(label, []).append((weight[row], bias[row]))
    with torch.no_grad():
        for index, label in enumerate(classes):
            if label in rows:
                weights, biases = zip(*rows[label], strict=True)
                into.weight[0, index] = torch.stack(weights).mean(dim=0)
                into.bias[0, index] = torch.stack(biases).mean(dim=0)
    return [label for label in classes if label in rows]


def _head(
    folder: Path, tensors: Mapping[str, Tensor], name: str, shape: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """The weight [K, C] and the bias [K] of a head, checked against `shape`."""
    weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
    if weight is None or bias is None or weight.shape != shape or bias.shape != shape[:1]:
        raise UserError(
            f"{folder}/heads.safetensors: no head {name!r} of {shape[0]} classes; "
            "make the artifact again"
        )
    return weight, bias


def load_into_backbone(folder: Path, config: ArtifactConfig, backbone: Backbone) -> None:
    """Load the trained parameters of the backbone: all weights, LoRA's factors, or none.

    Raises UserError if names or shapes differ, and the errors of `add_lora`.
    """
    if config.lora_rank:
        add_lora(backbone, config.lora_rank, config.lora_alpha, seed=0)
        _load_into(lora_factors(backbone), folder / "lora.safetensors")
    if ARMS[config.arm].trains_backbone:
        _load_into(dict(backbone.named_parameters()), folder / "backbone.safetensors")


def _load_into(parameters: Mapping[str, Tensor], path: Path) -> None:
    tensors = _load(path)
    differing = sorted(
        name
        for name in tensors.keys() | parameters.keys()
        if name not in tensors
        or name not in parameters
        or tensors[name].shape != parameters[name].shape
    )
    if differing:
        raise UserError(
            f"{path}: does not fit the backbone: {', '.join(differing[:3])} differ; "
            "use the backbone it was made for, or make the artifact again"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(
            f"{path}: no such file; the artifact is incomplete, make it again"
        ) from None
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: not a safetensors file ({first_line(error)}); make the artifact again"
        ) from None

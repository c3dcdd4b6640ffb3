"""Artifacts: a prompt, its heads and what they fit, for others. Safetensors and JSON; equal inputs give equal bytes.

config.json              what it is, and the backbone, shapes and classes it fits
prompt.safetensors       `key_values` [L', 2, H, P, D], or `vectors` [P, E] of a soft prompt (absent: no prompt)
heads.safetensors        `TASK.weight` [classes, C] and `TASK.bias` [classes], cut out of the padded parameter
factors.safetensors      `TASK.u` [P, R] and `TASK.v` [R, 2 L' H D], where tasks have factors on the shared prompt
projection.safetensors   the MLP that computes the prompt, where there is one: only to train it further
lora.safetensors         LoRA's factors, NAME.lora_A.weight [R, inputs] and NAME.lora_B.weight [outputs, R] of each projection
backbone.safetensors     every weight, where the arm trained the backbone
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from pipeline.arms import ARMS
from pipeline.artifacts.config import ArtifactConfig
from pipeline.errors import UserError
from pipeline.files import atomic_folder, write_json
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.lora import add_lora, lora_factors
from pipeline.model.prompt import DeepPrompt, Projection, PromptBank, SoftPrompt, TaskFactors
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams


def save_artifact(folder: Path, model: PromptedModel, config: ArtifactConfig) -> None:
    """Write the folder beside and rename it."""
    assert not isinstance(model.prompt, PromptBank), "an artifact has the prompt of one training"
    with atomic_folder(folder) as beside:
        _save_prompt(beside, model.prompt, list(config.heads))
        _save(_cut_heads(model.heads, config), beside / "heads.safetensors")
        if config.lora_rank:
            _save(lora_factors(model.backbone), beside / "lora.safetensors")
        if ARMS[config.arm].trains_backbone:
            _save(dict(model.backbone.named_parameters()), beside / "backbone.safetensors")
        write_json(beside / "config.json", dataclasses.asdict(config))


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


def _cut_heads(heads: Heads, config: ArtifactConfig) -> dict[str, Tensor]:
    cut = {}
    for index, (name, head) in enumerate(config.heads.items()):
        if head.kind != "verbalizer":
            cut[f"{name}.weight"] = heads.weight[index, : len(head.classes)]
            cut[f"{name}.bias"] = heads.bias[index, : len(head.classes)]
    return cut


def _save(tensors: Mapping[str, Tensor], path: Path) -> None:
    # Not save_file, whose error says nothing of a disk that is full.
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
    """The artifact's prompt, checked against the backbone; that of one `task` where tasks have factors on a shared one.

    `projection` asks for the MLP of this hidden size with it, `dropout` is for further training. Raises UserError naming every
    field that differs.
    """
    _check_fits(folder, config, params, backbone)
    if config.prompt_shape is None:
        return None
    tensors = _load(folder / "prompt.safetensors")
    soft = ARMS[config.arm].prompt == "soft"
    name = "vectors" if soft else "key_values"
    if tensors.keys() != {name} or tuple(tensors[name].shape) != config.prompt_shape:
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        raise UserError(
            f"{folder}/prompt.safetensors: holds {shapes}, config.json says {name} {config.prompt_shape}; "
            "make the artifact again"
        )
    if soft:
        return SoftPrompt(tensors[name])
    values = tensors[name]
    if config.factor_rank and task is not None:
        values = _with_factors(folder, config, values, task)
    mlp = _load_projection(folder, config, projection) if projection else None
    return DeepPrompt(
        values,
        first_layer=config.first_layer,
        projection=mlp,
        dropout=dropout,
        position_offset=config.position_offset,
    )


def _check_fits(
    folder: Path, config: ArtifactConfig, params: BackboneParams, backbone: Backbone
) -> None:
    found = {"model_type": backbone.config.model_type, "hidden_size": backbone.hidden_size}
    wrong = [
        f"{name} is {getattr(config, name)!r}, the backbone's is {value!r}"
        for name, value in found.items()
        if getattr(config, name) != value
    ]
    same_source = config.backbone.source == params.source
    if (config.backbone.sha256, params.sha256) != (None, None):
        same_source = config.backbone.sha256 == params.sha256
    if not same_source:
        wrong.append(
            f"it was made for backbone {config.backbone.source} (sha256 {config.backbone.sha256}), "
            f"params have {params.source} (sha256 {params.sha256})"
        )
    if config.prompt_shape is not None and (
        misfit := _misfit(config, config.prompt_shape, backbone)
    ):
        wrong.append(misfit)
    if config.position_offset and backbone.family.positions == "relative":
        wrong.append(
            f"position_offset is {config.position_offset}, but the backbone's positions are relative and cannot shift"
        )
    if config.position_offset < 0:
        wrong.append(f"position_offset is {config.position_offset}; it cannot be negative")
    if wrong:
        raise UserError(
            *(
                f"{folder}: {problem}; use the backbone it was made for, or make it again"
                for problem in wrong
            )
        )


def _misfit(config: ArtifactConfig, shape: tuple[int, ...], backbone: Backbone) -> str | None:
    if ARMS[config.arm].prompt == "soft":
        fits = len(shape) == 2 and shape[1] == backbone.embedding_size
        return (
            None
            if fits
            else f"prompt_shape is {shape}, the backbone takes (P, {backbone.embedding_size})"
        )
    layers, *rest = backbone.prompt_shape(shape[3] if len(shape) == 5 else 0)
    fits = (
        len(shape) == 5
        and list(shape[1:]) == rest
        and 0 <= config.first_layer <= layers - shape[0]
        and shape[0] > 0
    )
    return (
        None
        if fits
        else (
            f"prompt_shape is {shape} from layer {config.first_layer} on, the backbone takes "
            f"({layers}, {rest[0]}, {rest[1]}, P, {rest[3]})"
        )
    )


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
            f"{folder}/factors.safetensors: no factors of rank {config.factor_rank} for {task!r}; make it again"
        )
    own = TaskFactors(1, count, config.factor_rank, width, 0)
    with torch.no_grad():
        own.u.copy_(u[None])
        own.v.copy_(v[None])
        return DeepPrompt(shared, factors=own).materialize(0)


def _load_projection(folder: Path, config: ArtifactConfig, hidden_size: int) -> Projection:
    if config.projection_size != hidden_size:
        raise UserError(
            f"{folder}/config.json: projection is {config.projection_size}, params ask for {hidden_size}; make them one, "
            "or leave projection out to go on from the prompt itself"
        )
    assert config.prompt_shape is not None
    layers, two, heads, _, size = config.prompt_shape
    tensors = _load(folder / "projection.safetensors")
    embedding = tensors.get("embedding", torch.zeros(0, 0))
    made = Projection(embedding, hidden_size, layers * two * heads * size, 0)
    try:
        made.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(
            f"{folder}/projection.safetensors: does not fit: {str(error).splitlines()[0]}; make it again"
        ) from error
    return made


def load_heads(
    folder: Path, config: ArtifactConfig, into: Heads, classes: dict[str, tuple[str, ...]]
) -> None:
    """Copy the heads of the tasks in `classes`, in that order, into the rows of `into`.

    Raises UserError where the artifact has no such head, or one of other classes or shape.
    """
    tensors = _load(folder / "heads.safetensors")
    for index, (name, wanted) in enumerate(classes.items()):
        if name not in config.heads:
            raise UserError(
                f"{folder}/config.json: has no head {name!r}, but {', '.join(config.heads)}; make the artifact again"
            )
        if config.heads[name].classes != wanted:
            found = ", ".join(config.heads[name].classes)
            raise UserError(
                f"{folder}/config.json: the classes of {name!r} are {found}, the data's are {', '.join(wanted)}; "
                "make the artifact again"
            )
        if config.heads[name].kind == "verbalizer":
            continue
        weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
        size, hidden_size = into.classes[index], into.weight.shape[2]
        if (
            weight is None
            or bias is None
            or weight.shape != (size, hidden_size)
            or bias.shape != (size,)
        ):
            raise UserError(
                f"{folder}/heads.safetensors: no head {name!r} of {size} classes; make the artifact again"
            )
        with torch.no_grad():
            into.weight[index, :size] = weight
            into.bias[index, :size] = bias


def load_into_backbone(folder: Path, config: ArtifactConfig, backbone: Backbone) -> None:
    """Put in what the arm has trained inside the backbone: all weights, LoRA's factors, or nothing.

    Raises UserError if names or shapes differ, and as `add_lora`.
    """
    if config.lora_rank:
        add_lora(backbone, config.lora_rank, config.lora_alpha, seed=0)
        _load_into(lora_factors(backbone), folder / "lora.safetensors")
    if ARMS[config.arm].trains_backbone:
        _load_into(dict(backbone.named_parameters()), folder / "backbone.safetensors")


def _load_into(parameters: Mapping[str, nn.Parameter], path: Path) -> None:
    tensors = _load(path)
    wrong = sorted(
        name
        for name in tensors.keys() | parameters.keys()
        if name not in tensors
        or name not in parameters
        or tensors[name].shape != parameters[name].shape
    )
    if wrong:
        raise UserError(
            f"{path}: does not fit the backbone: {', '.join(wrong[:3])} differ; "
            "use the backbone it was made for, or make it again"
        )
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(tensors[name])


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the artifact is not whole, make it again") from None
    except SafetensorError as error:
        raise UserError(
            f"{path}: not a safetensors file ({error}); make the artifact again"
        ) from None

"""Artifacts: a prompt, its heads and what they fit, for others. Safetensors and JSON; equal inputs give equal bytes.

    config.json            what it is, and the backbone, shapes and classes it fits
    prompt.safetensors     `key_values` [L, 2, H, P, D], or `vectors` [P, C] of a soft prompt (absent: no prompt)
    heads.safetensors      `TASK.weight` [classes, C] and `TASK.bias` [classes], cut out of the padded parameter
    backbone.safetensors   every weight, where the arm trained the backbone (fine_tune)
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from pipeline.backbone import Backbone
from pipeline.config import load_json, parse
from pipeline.errors import UserError
from pipeline.files import atomic_folder, write_json
from pipeline.model import HeadKind, Heads, PromptedModel
from pipeline.params import Arm
from pipeline.prompt import DeepPrompt, SoftPrompt
from pipeline.source import BackboneParams

FORMAT = 1


@dataclass(frozen=True)
class TaskHead:
    """One task's head: its type, what kind of head, and its classes in order."""

    type: str
    kind: HeadKind
    classes: tuple[str, ...]


@dataclass(frozen=True)
class ArtifactConfig:
    """`position_offset` is by how many positions the prompt shifted the text when it was trained: 0 for ours."""

    arm: Arm
    backbone: BackboneParams
    model_type: str
    hidden_size: int
    heads: dict[str, TaskHead]
    prompt_shape: tuple[int, ...] | None = None
    position_offset: int = 0
    format: int = FORMAT
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)


def save_artifact(folder: Path, model: PromptedModel, config: ArtifactConfig) -> None:
    """Write the folder beside and rename it."""
    with atomic_folder(folder) as beside:
        if model.prompt is not None:
            save_file(_contiguous(model.prompt.state_dict()), beside / "prompt.safetensors")
        weight, bias = model.heads.weight.detach(), model.heads.bias.detach()
        cut = {}
        for index, (name, head) in enumerate(config.heads.items()):
            cut[f"{name}.weight"] = weight[index, : len(head.classes)]
            cut[f"{name}.bias"] = bias[index, : len(head.classes)]
        save_file(_contiguous(cut), beside / "heads.safetensors")
        if config.arm == "fine_tune":
            save_file(_contiguous(model.backbone.model.state_dict()), beside / "backbone.safetensors")
        write_json(beside / "config.json", dataclasses.asdict(config))


def _contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def load_config(folder: Path) -> ArtifactConfig:
    """The artifact's description. Raises UserError: no artifact, another format, keys that do not fit."""
    values = load_json(folder / "config.json")
    if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:  # first: another format may have other keys
        raise UserError(f"{folder}/config.json: format is {values['format']!r}, this version reads {FORMAT}; "
                        "make the artifact again")
    return parse(ArtifactConfig, values, str(folder / "config.json"))


def load_prompt(folder: Path, config: ArtifactConfig, params: BackboneParams,
                backbone: Backbone) -> DeepPrompt | SoftPrompt | None:
    """The artifact's prompt, checked against the backbone. Raises UserError naming every field that differs."""
    found = {"model_type": backbone.config.model_type, "hidden_size": backbone.hidden_size}
    wrong = [f"{name} is {getattr(config, name)!r}, the backbone's is {value!r}"
             for name, value in found.items() if getattr(config, name) != value]
    same_source = config.backbone.source == params.source
    if (config.backbone.sha256, params.sha256) != (None, None):
        same_source = config.backbone.sha256 == params.sha256
    if not same_source:
        wrong.append(f"it was made for backbone {config.backbone.source} (sha256 {config.backbone.sha256}), "
                     f"params have {params.source} (sha256 {params.sha256})")
    if config.position_offset:
        wrong.append(f"position_offset is {config.position_offset}, and prompts that shift the text are not supported")
    if wrong:
        raise UserError(*(f"{folder}: {problem}; use the backbone it was made for, or make it again" for problem in wrong))
    if config.prompt_shape is None:
        return None
    tensors = _load(folder / "prompt.safetensors")
    kind, name = (SoftPrompt, "vectors") if config.arm == "soft_prompt" else (DeepPrompt, "key_values")
    expected = tuple(config.prompt_shape)
    count = expected[-2] if len(expected) > 1 else 0
    fits = backbone.prompt_shape(count) if kind is DeepPrompt else (count, backbone.hidden_size)
    if tensors.keys() != {name} or tuple(tensors[name].shape) != expected or expected != tuple(fits):
        shapes = {key: tuple(value.shape) for key, value in tensors.items()}
        raise UserError(f"{folder}/prompt.safetensors: holds {shapes}, config.json says {name} {expected}, the backbone needs "
                        f"{tuple(fits)}; make the artifact again")
    return kind(tensors[name])


def load_heads(folder: Path, config: ArtifactConfig, into: Heads, classes: dict[str, tuple[str, ...]]) -> None:
    """Copy the heads of the tasks in `classes`, in that order, into the rows of `into`.

    Raises UserError where the artifact has no such head, or one of other classes or shape.
    """
    tensors = _load(folder / "heads.safetensors")
    for index, (name, wanted) in enumerate(classes.items()):
        if name not in config.heads:
            raise UserError(f"{folder}/config.json: has no head {name!r}, but {', '.join(config.heads)}; make the artifact again")
        if config.heads[name].classes != wanted:
            found = ", ".join(config.heads[name].classes)
            raise UserError(f"{folder}/config.json: the classes of {name!r} are {found}, the data's are {', '.join(wanted)}; "
                            "make the artifact again")
        weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
        size, hidden_size = into.classes[index], into.weight.shape[2]
        if weight is None or bias is None or weight.shape != (size, hidden_size) or bias.shape != (size,):
            raise UserError(f"{folder}/heads.safetensors: no head {name!r} of {size} classes; make the artifact again")
        with torch.no_grad():
            into.weight[index, :size] = weight
            into.bias[index, :size] = bias


def load_backbone_weights(folder: Path, backbone: Backbone) -> None:
    """Put a fine-tuned backbone's weights in. Raises UserError where names or shapes differ."""
    tensors = _load(folder / "backbone.safetensors")
    try:
        backbone.model.load_state_dict(tensors)
    except RuntimeError as error:
        raise UserError(f"{folder}/backbone.safetensors: does not fit the backbone: {str(error).splitlines()[0]}") from error


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; the artifact is not whole, make it again") from None
    except SafetensorError as error:
        raise UserError(f"{path}: not a safetensors file ({error}); make the artifact again") from None

"""The config.json of an artifact. Reading it requires neither the tensors nor torch."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.arms import ARMS, LORA, ArmName
from pipeline.artifacts.zoo import ZOO, zoo_names
from pipeline.config import load_json, parse
from pipeline.errors import UserError, closest
from pipeline.files import sha256
from pipeline.params import BackboneParams, Precision
from pipeline.pretrained.random_weights import RandomWeights
from pipeline.tasks.base.row import RowsWith
from pipeline.tasks.base.task import HeadKind

FORMAT = 3
_RENAMED_SINCE_2 = {"projection": "projection_size"}
_RENAMED_IN_HEADS_SINCE_2 = {"words": "label_token_ids"}


@dataclass(frozen=True)
class TaskHead:
    """The head of a task.

    `type` is the task type, `kind` the kind of head. `classes` are in the order of the logits.
    `label_token_ids` are the vocabulary ids of the classes' words (verbalizer only). `thresholds`
    were fitted on the validation set. `max_length` and `stride` are those of the training windows
    (None: unknown). `max_answer_length` is the maximum length of a predicted answer or text in
    sub-words (None: the default of the task type, or neither). `word_rule` is the name of the rule
    that makes words of text (see `pipeline.words`; None: the task has no tokens, or the artifact is
    of an earlier version). `optional_inputs` tells how many training rows had each optional key
    that is input of the model ({}: the task has no such keys, or an earlier version).
    """

    type: str
    kind: HeadKind
    classes: tuple[str, ...]
    label_token_ids: tuple[int, ...] = ()
    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)
    max_length: int | None = None
    stride: int | None = None
    max_answer_length: int | None = None
    word_rule: str | None = None
    optional_inputs: dict[str, RowsWith] = dataclasses.field(default_factory=dict)

    @property
    def required_inputs(self) -> tuple[str, ...]:
        """The optional keys that all training rows had."""
        return tuple(key for key, rows in self.optional_inputs.items() if rows == "all")


@dataclass(frozen=True)
class ArtifactConfig:
    """The description of an artifact: its arm, backbone, shapes and classes.

    `prompt_shape` is the shape of the prompt's tensor, for layers from `first_layer` on. The prompt
    shifts the text by `position_offset` positions: 0 for prompts of this project, P for prompts of
    peft and P-tuning v2. With `zero_token_types`, all token types of the text are 0 under the
    prompt, as in most classes of peft. `backbone_files` has the hashes of the backbone's config and
    tokenizer files (see `pipeline.pretrained.location.backbone_files`); it is empty in artifacts of
    earlier versions, and the files are then not compared. `projection_size` is the hidden size of
    the prompt's MLP. With `scale_shift`, the prompt has scales and shifts. `lora_rank` and
    `lora_alpha` describe LoRA's factors (0: none). `random_weights` describes the weights of the
    backbone if they are random (None: they are pretrained). `precision` is that of the backbone in
    training, never "auto".
    """

    arm: ArmName
    backbone: BackboneParams
    model_type: str
    hidden_size: int
    heads: dict[str, TaskHead]
    prompt_shape: tuple[int, ...] | None = None
    first_layer: int = 0
    position_offset: int = 0
    zero_token_types: bool = False
    projection_size: int = 0
    factor_rank: int = 0
    scale_shift: bool = False
    lora_rank: int = 0
    lora_alpha: float = 0.0
    random_weights: RandomWeights | None = None
    precision: Precision = "float32"
    backbone_files: dict[str, str] = dataclasses.field(default_factory=dict)
    format: int = FORMAT
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        arm, has_lora = ARMS[self.arm], self.lora_rank > 0
        fits = "lora" in (*arm.parts, *arm.optional_parts) if has_lora else "lora" not in arm.parts
        if not fits or has_lora != (self.lora_alpha > 0):
            raise ValueError(
                f"arm is {self.arm}, but lora_rank is {self.lora_rank} and lora_alpha "
                f"{self.lora_alpha}; make the artifact again"
            )
        if (self.random_weights is not None) != ARMS[self.arm].random_backbone:
            has = "a record" if self.random_weights else "no record"
            raise ValueError(
                f"arm is {self.arm}, but random_weights has {has}; make the artifact again"
            )

    @property
    def served_alone(self) -> str:
        """The reason why it cannot share a predictor with other artifacts (empty: it can)."""
        return ARMS[self.arm].served_alone or (LORA.served_alone if self.lora_rank else "")

    @property
    def random_seed(self) -> int | None:
        """The seed of the backbone's random weights; None if they are pretrained."""
        return self.random_weights.seed if self.random_weights else None


def load_config(folder: Path) -> ArtifactConfig:
    """Read the config of an artifact, in format 3 or 2.

    Raises UserError if the folder has no artifact, or one of another format or with other keys.
    """
    values = load_json(folder / "config.json", _remedy(folder))
    if isinstance(values, dict) and not values.keys() & {"arm", "format"}:
        raise UserError(
            f"{folder}/config.json: is not the config of an artifact; give a folder written by "
            "finetune, release or import"
        )
    if isinstance(values, dict) and values.get("format") == 2:
        values = _from_format_2(values)
    # Check the format before the keys, because another format may have other keys.
    if isinstance(values, dict) and values.get("format", FORMAT) != FORMAT:
        raise UserError(
            f"{folder}/config.json: format is {values['format']!r}, but this version reads "
            f"{FORMAT}; make the artifact again"
        )
    if isinstance(values, dict) and "precision" not in values:
        values = values | _precision_of_training(values)
    return parse(ArtifactConfig, values, str(folder / "config.json"))


def _remedy(folder: Path) -> str:
    """The remedy if an artifact is missing."""
    name, parent = folder.name, str(folder.parent)
    if folder.parent.name == ZOO.name and name in zoo_names():
        return f"write zoo:{name}, or run `python -m stages.zoo`"
    if parent == "." and (match := closest(name, zoo_names())):
        return f"give the folder of an artifact; did you mean 'zoo:{match}'?"
    if parent == "models":
        return f"run `dvc repro release@{name}`, or give the folder of an artifact"
    return "run the stage that makes it, or give the folder of an artifact"


def missing_hashes(folder: Path, config: ArtifactConfig) -> list[str]:
    """A warning if the artifact has no hashes of the backbone's files, and [] otherwise."""
    if config.backbone_files:
        return []
    return [
        f"{folder}: has no hashes of the backbone's config and tokenizer files, so they were not "
        "compared; make the artifact again to record them"
    ]


def artifact_hashes(folder: Path) -> dict[str, str]:
    """The sha256 of each file of an artifact that training reads, by name."""
    files = [folder / "config.json", *sorted(folder.glob("*.safetensors"))]
    return {file.name: sha256(file) for file in files}


def training_rows_hash(provenance: Mapping[str, Any], corpus: str) -> str | None:
    """The sha256 of the training examples of a corpus; None if a provenance does not have it."""
    value: str | None = (
        provenance.get("data", {}).get(corpus, {}).get("train", {}).get("examples_sha256")
    )
    return value


def _precision_of_training(values: dict[str, Any]) -> dict[str, Any]:
    """The key `precision` of an artifact that has it only among the params of its training."""
    provenance = values.get("provenance")
    training = provenance.get("training") if isinstance(provenance, dict) else None
    if not isinstance(training, dict) or "precision" not in training:
        return {}
    return {"precision": training["precision"]}


def _from_format_2(values: dict[str, Any]) -> dict[str, Any]:
    """Convert the values of format 2: rename their keys to those of format 3."""
    heads = values.get("heads") or {}
    if not isinstance(heads, dict):  # a problem that `parse` reports
        return {**values, "format": FORMAT}
    heads = {
        name: {_RENAMED_IN_HEADS_SINCE_2.get(key, key): value for key, value in head.items()}
        if isinstance(head, dict)
        else head
        for name, head in heads.items()
    }
    return {_RENAMED_SINCE_2.get(key, key): value for key, value in values.items()} | {
        "heads": heads,
        "format": FORMAT,
    }

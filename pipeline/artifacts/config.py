"""What an artifact says of itself: its config.json, which can be read without its tensors, and without torch."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.arms import ARMS, ArmName
from pipeline.config import load_json, parse
from pipeline.errors import UserError
from pipeline.params import BackboneParams
from pipeline.tasks.base.task import HeadKind

FORMAT = 3
_RENAMED_SINCE_2 = {"projection": "projection_size"}
_RENAMED_IN_HEADS_SINCE_2 = {"words": "label_token_ids"}


@dataclass(frozen=True)
class TaskHead:
    """One task's head: its type, what kind of head, its classes in order; the vocabulary's numbers of their words (verbalizer);
    thresholds decided on validation, where predictions need them; and the windows that it was trained on (None: not known).
    """

    type: str
    kind: HeadKind
    classes: tuple[str, ...]
    label_token_ids: tuple[int, ...] = ()
    thresholds: dict[str, float] = dataclasses.field(default_factory=dict)
    max_length: int | None = None
    stride: int | None = None


@dataclass(frozen=True)
class ArtifactConfig:
    """`prompt_shape` is that of the prompt's tensor, for the layers from `first_layer` on. `position_offset` is by how many
    positions the prompt shifts the text: 0 for ours, P for those of peft and P-tuning v2. `projection` is its MLP's hidden size.
    `lora_rank` and `lora_alpha` are those of LoRA's factors in the backbone (0: there are none).
    """

    arm: ArmName
    backbone: BackboneParams
    model_type: str
    hidden_size: int
    heads: dict[str, TaskHead]
    prompt_shape: tuple[int, ...] | None = None
    first_layer: int = 0
    position_offset: int = 0
    projection_size: int = 0
    factor_rank: int = 0
    lora_rank: int = 0
    lora_alpha: float = 0.0
    format: int = FORMAT
    provenance: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        trained = "lora" in ARMS[self.arm].parts
        if (self.lora_rank > 0, self.lora_alpha > 0) != (trained, trained):
            raise ValueError(
                f"arm is {self.arm}, lora_rank {self.lora_rank} and lora_alpha {self.lora_alpha}, which do not "
                "fit together; make the artifact again"
            )


def load_config(folder: Path) -> ArtifactConfig:
    """The artifact's description. Raises UserError: no artifact, another format, keys that do not fit."""
    values = load_json(folder / "config.json")
    if isinstance(values, dict) and not values.keys() & {"arm", "format"}:
        raise UserError(
            f"{folder}/config.json: says nothing of an artifact; name a folder that finetune, release or import made"
        )
    if isinstance(values, dict) and values.get("format") == 2:
        values = _from_format_2(values)
    if (
        isinstance(values, dict) and values.get("format", FORMAT) != FORMAT
    ):  # first: another format may have other keys
        raise UserError(
            f"{folder}/config.json: format is {values['format']!r}, this version reads {FORMAT}; "
            "make the artifact again"
        )
    return parse(ArtifactConfig, values, str(folder / "config.json"))


def _from_format_2(values: dict[str, Any]) -> dict[str, Any]:
    """The same under the keys of format 3."""
    heads = {
        name: {_RENAMED_IN_HEADS_SINCE_2.get(key, key): value for key, value in head.items()}
        if isinstance(head, dict)
        else head
        for name, head in dict(values.get("heads") or {}).items()
    }
    return {_RENAMED_SINCE_2.get(key, key): value for key, value in values.items()} | {
        "heads": heads,
        "format": FORMAT,
    }

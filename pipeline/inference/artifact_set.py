"""Several artifacts that are to be served together: read, checked to fit each other, their heads in one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.artifacts.artifact import load_heads, load_prompt
from pipeline.artifacts.config import ArtifactConfig, TaskHead, load_config
from pipeline.errors import UserError
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt, SoftPrompt
from pipeline.params import Arm, BackboneParams

_ALONE: dict[Arm, str] = {
    "fine_tune": "it has a backbone of its own, so it shares no pass with others",
    "soft_prompt": "its prompt is part of the input, where other tasks' rows have none",
}


@dataclass(frozen=True)
class ServedArtifact:
    """An artifact; `heads_by_name` are its heads by the names that rows ask for them, in the artifact's order."""

    folder: Path
    config: ArtifactConfig
    heads_by_name: dict[str, TaskHead]

    def prompts(
        self, params: BackboneParams, backbone: Backbone
    ) -> list[DeepPrompt | SoftPrompt | None]:
        """One for each head: the same, unless tasks have factors of their own on it."""
        if self.config.factor_rank:
            return [
                load_prompt(self.folder, self.config, params, backbone, task)
                for task in self.config.heads
            ]
        return [load_prompt(self.folder, self.config, params, backbone)] * len(self.config.heads)

    def heads(self, hidden_size: int) -> Heads:
        """Its own, in its order."""
        made = _empty_heads(self.heads_by_name.values(), hidden_size)
        load_heads(
            self.folder,
            self.config,
            made,
            {name: head.classes for name, head in self.config.heads.items()},
        )
        return made


def read_artifacts(
    artifacts: Mapping[str, Path | str] | Sequence[Path | str],
) -> list[ServedArtifact]:
    """The artifacts in some folders; under a mapping, one that has one head serves it by its key. Raises UserError: none there,
    or one is broken.
    """
    named = (
        artifacts.items()
        if isinstance(artifacts, Mapping)
        else [(None, folder) for folder in artifacts]
    )
    parts = []
    for name, place in named:
        folder = Path(place)
        config = load_config(folder)
        renamed = name is not None and len(config.heads) == 1
        parts.append(
            ServedArtifact(
                folder,
                config,
                {str(name): head for head in config.heads.values()} if renamed else config.heads,
            )
        )
    if not parts:
        raise UserError("artifacts: none is given; name the folder of at least one")
    return parts


def check_compatible(parts: Sequence[ServedArtifact], params: BackboneParams | None) -> None:
    """Raise UserError with all that keeps the artifacts apart. `params` is the backbone that all must name (None: not asked)."""
    wrong: list[str] = []
    owner: dict[str, Path] = {}
    for part in parts:
        folder, config = part.folder, part.config
        if not config.heads:
            wrong.append(
                f"{folder}/config.json: heads is empty, and a prompt alone predicts nothing; tune it on a task first"
            )
        if len(parts) > 1 and config.arm in _ALONE:
            wrong.append(f"{folder}: arm is {config.arm!r}: {_ALONE[config.arm]}; load it alone")
        if params is not None and _differ(config.backbone, params):
            wrong.append(
                f"{folder}: made for backbone {config.backbone.source} (sha256 {config.backbone.sha256}), but "
                f"{parts[0].folder} for {params.source} (sha256 {params.sha256}); load them apart"
            )
        wrong += [
            f"{folder}: task {name!r} is in {owner[name]} too, so that rows could not say which of them they ask; "
            "load one of them, or rename one: load({NAME: FOLDER, ...})"
            for name in part.heads_by_name
            if name in owner
        ]
        owner |= dict.fromkeys(part.heads_by_name, folder)
    if wrong:
        raise UserError(*wrong)


def _differ(one: BackboneParams, other: BackboneParams) -> bool:
    """By the weights where a hash is known: the same files may lie in two places."""
    if (one.sha256, other.sha256) == (None, None):
        return one.source != other.source
    return one.sha256 != other.sha256


def _empty_heads(heads: Iterable[TaskHead], hidden_size: int) -> Heads:
    heads = list(heads)
    return Heads(
        [head.kind for head in heads],
        [len(head.classes) for head in heads],
        hidden_size,
        0,
        [head.label_token_ids for head in heads],
    )


def merge_heads(parts: Sequence[ServedArtifact], hidden_size: int) -> Heads:
    """The heads of all artifacts in one padded parameter."""
    made = _empty_heads(
        [head for part in parts for head in part.heads_by_name.values()], hidden_size
    )
    number = 0
    with torch.no_grad():
        for heads in (part.heads(hidden_size) for part in parts):
            tasks, size = heads.bias.shape
            made.weight[number : number + tasks, :size] = heads.weight
            made.bias[number : number + tasks, :size] = heads.bias
            number += tasks
    return made

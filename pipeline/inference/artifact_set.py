"""The artifacts of a predictor: read them, check their compatibility, merge their heads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.arms import ARMS
from pipeline.artifacts.artifact import load_heads, load_prompt
from pipeline.artifacts.config import ArtifactConfig, TaskHead, load_config
from pipeline.errors import UserError
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt, SoftPrompt
from pipeline.params import BackboneParams


@dataclass(frozen=True)
class ServedArtifact:
    """An artifact. `heads_by_name` has its heads, in the artifact's order, by the names that rows
    use for them.
    """

    folder: Path
    config: ArtifactConfig
    heads_by_name: dict[str, TaskHead]

    def prompts(
        self, params: BackboneParams, backbone: Backbone
    ) -> list[DeepPrompt | SoftPrompt | None]:
        """The prompt of each head: the same for all, unless the artifact has low-rank factors per
        task.
        """
        if self.config.factor_rank:
            return [
                load_prompt(self.folder, self.config, params, backbone, task)
                for task in self.config.heads
            ]
        return [load_prompt(self.folder, self.config, params, backbone)] * len(self.config.heads)

    def heads(self, hidden_size: int) -> Heads:
        """The artifact's heads, in its order."""
        heads = _empty_heads(self.heads_by_name.values(), hidden_size)
        load_heads(
            self.folder,
            self.config,
            heads,
            {name: head.classes for name, head in self.config.heads.items()},
        )
        return heads


def read_artifacts(
    artifacts: Mapping[str, Path | str] | Sequence[Path | str],
) -> list[ServedArtifact]:
    """The artifacts in some folders. Under a mapping, the key becomes the name of an artifact's
    only head.

    Raises UserError where there is no artifact, or where one is broken.
    """
    named = (
        artifacts.items()
        if isinstance(artifacts, Mapping)
        else [(None, folder) for folder in artifacts]
    )
    parts = []
    for name, path in named:
        folder = Path(path)
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
        raise UserError("artifacts: the list is empty; name the folder of at least one artifact")
    return parts


def check_compatible(parts: Sequence[ServedArtifact], params: BackboneParams | None) -> None:
    """Raise UserError with every reason why one predictor cannot serve the artifacts.

    `params` is the backbone that all must have been trained on; None skips that check.
    """
    wrong: list[str] = []
    owner: dict[str, Path] = {}
    for part in parts:
        folder, config = part.folder, part.config
        if not config.heads:
            wrong.append(
                f"{folder}/config.json: heads is empty, and a prompt alone predicts nothing; "
                "fine-tune it on a task first"
            )
        if len(parts) > 1 and (reason := ARMS[config.arm].served_alone):
            wrong.append(f"{folder}: arm is {config.arm!r}: {reason}; load it alone")
        if params is not None and _differ(config.backbone, params):
            wrong.append(
                f"{folder}: made for backbone {config.backbone.source} (sha256 "
                f"{config.backbone.sha256}), but "
                f"{parts[0].folder} for {params.source} (sha256 {params.sha256}); load them apart"
            )
        wrong += [
            f"{folder}: head {name!r} is also in {owner[name]}; load only one of the two, or "
            "rename one by "
            "load({NAME: FOLDER, ...})"
            for name in part.heads_by_name
            if name in owner
        ]
        owner |= dict.fromkeys(part.heads_by_name, folder)
    if wrong:
        raise UserError(*wrong)


def _differ(one: BackboneParams, other: BackboneParams) -> bool:
    """Whether the weights differ, by their hashes if known: two folders may hold the same files."""
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
    merged = _empty_heads(
        [head for part in parts for head in part.heads_by_name.values()], hidden_size
    )
    number = 0
    with torch.no_grad():
        for heads in (part.heads(hidden_size) for part in parts):
            tasks, size = heads.bias.shape
            merged.weight[number : number + tasks, :size] = heads.weight
            merged.bias[number : number + tasks, :size] = heads.bias
            number += tasks
    return merged

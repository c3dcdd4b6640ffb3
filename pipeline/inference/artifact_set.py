"""The artifacts of a predictor: read them, check their compatibility, merge their heads."""

import dataclasses
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

import torch

from pipeline.artifacts.artifact import empty_heads, load_heads, load_prompt
from pipeline.artifacts.config import ArtifactConfig, TaskHead, load_config, missing_hashes
from pipeline.artifacts.location import locate_artifact
from pipeline.artifacts.scores import FILE
from pipeline.errors import UserError, did_you_mean
from pipeline.inference.sentences import DEFAULT_RULE
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.precision import inference_precision
from pipeline.model.prompt import DeepPrompt, SoftPrompt
from pipeline.params import BackboneParams, Precision
from pipeline.tasks import task_named
from pipeline.tasks.base.capabilities import HasConfidence, TagsWords
from pipeline.words import RULES


@dataclass(frozen=True)
class ServedArtifact:
    """An artifact of a predictor.

    `heads_by_name` has its heads in the artifact's order. A row selects a head by this name. The
    heads in `replaced` are not among them, because another artifact has only this head.
    """

    folder: Path
    config: ArtifactConfig
    heads_by_name: dict[str, TaskHead]
    replaced: tuple[str, ...] = ()

    def prompts(
        self, params: BackboneParams, backbone: Backbone
    ) -> list[DeepPrompt | SoftPrompt | None]:
        """The prompt of each head.

        All heads have the same prompt, unless the artifact has low-rank factors per task.
        """
        if self.config.factor_rank:
            return [
                load_prompt(self.folder, self.config, params, backbone, task)
                for task in self.config.heads
            ]
        return [load_prompt(self.folder, self.config, params, backbone)] * len(self.config.heads)

    def heads(self, hidden_size: int) -> Heads:
        """The artifact's heads, in its order."""
        heads = empty_heads(self.heads_by_name.values(), hidden_size)
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
    """Read artifacts from their folders.

    In a mapping, the key is the new name of an artifact's head, if it has only one head. A head of
    an artifact with several gives way to an artifact that has only a head of this name: a prompt
    that was tuned for the task. Raises UserError if a folder has no artifact or a broken one.
    """
    named_folders = (
        artifacts.items()
        if isinstance(artifacts, Mapping)
        else [(None, folder) for folder in artifacts]
    )
    result = []
    for name, path in named_folders:
        folder = locate_artifact(path)
        config = load_config(folder)
        renamed = name is not None and len(config.heads) == 1
        result.append(
            ServedArtifact(
                folder,
                config,
                {str(name): head for head in config.heads.values()} if renamed else config.heads,
            )
        )
    if not result:
        raise UserError("artifacts: the list is empty; name the folder of at least one artifact")
    names = [list(artifact.heads_by_name) for artifact in result]
    tuned = {heads[0] for heads in names if len(heads) == 1}
    return [_without(artifact, tuned) for artifact in result]


def _without(artifact: ServedArtifact, tuned: Set[str]) -> ServedArtifact:
    """An artifact with several heads without those of some names."""
    replaced = tuple(name for name in artifact.heads_by_name if name in tuned)
    if len(artifact.heads_by_name) == 1 or not replaced:
        return artifact
    heads = {name: head for name, head in artifact.heads_by_name.items() if name not in tuned}
    config = dataclasses.replace(artifact.config, heads=heads)
    return ServedArtifact(artifact.folder, config, heads, replaced)


def check_compatible(artifacts: Sequence[ServedArtifact], params: BackboneParams | None) -> None:
    """Raise UserError with every reason why the artifacts cannot share a predictor.

    `params` is the backbone that all artifacts must have been trained on (None: do not check).
    """
    problems: list[str] = []
    folder_of_head: dict[str, Path] = {}
    for artifact in artifacts:
        folder, config = artifact.folder, artifact.config
        problems += _unknown_rules(folder, config)
        if not config.heads and artifact.replaced:
            problems.append(
                f"{folder}: other artifacts replace all its heads "
                f"({', '.join(artifact.replaced)}); leave it out"
            )
        elif not config.heads:
            problems.append(
                f"{folder}/config.json: heads is empty, and a prompt alone predicts nothing; "
                "fine-tune it on a task first"
            )
        if len(artifacts) > 1 and (reason := config.served_alone):
            problems.append(f"{folder}: arm is {config.arm!r}: {reason}; load it alone")
        if params is not None and not config.backbone.has_weights_of(params):
            problems.append(
                f"{folder}: made for backbone {config.backbone.source} (sha256 "
                f"{config.backbone.sha256}), but {artifacts[0].folder} for {params.source} (sha256 "
                f"{params.sha256}); load them separately"
            )
        common: dict[Path, list[str]] = {}
        for name in artifact.heads_by_name:
            if name in folder_of_head:
                common.setdefault(folder_of_head[name], []).append(repr(name))
        problems += [
            f"{folder}: head {', '.join(names)} is also in {other}; load only one of the "
            "two, or in Python rename one by load({NAME: FOLDER, ...})"
            for other, names in common.items()
        ]
        folder_of_head |= dict.fromkeys(artifact.heads_by_name, folder)
    if problems:
        raise UserError(*problems)


def common_precision(artifacts: Sequence[ServedArtifact]) -> Precision:
    """The precision that all artifacts were trained in, or float32 if they differ."""
    precisions = {artifact.config.precision for artifact in artifacts}
    return precisions.pop() if len(precisions) == 1 else "float32"


def precision_warnings(
    artifacts: Sequence[ServedArtifact], precision: Precision, device: torch.device
) -> list[str]:
    """The artifacts that would not compute in `precision` if they were loaded alone, by line."""
    folders: dict[Precision, list[str]] = {}
    for artifact in artifacts:
        alone = inference_precision(artifact.config.precision, device)
        if alone != precision:
            folders.setdefault(alone, []).append(str(artifact.folder))
    return [
        f"{', '.join(names)}: trained in {alone}, but computed in {precision}, the precision of "
        "the backbone that the artifacts share; load them alone, or give dtype"
        for alone, names in folders.items()
    ]


def warnings_of(artifacts: Sequence[ServedArtifact]) -> list[str]:
    """One line for each fact that a user must know before relying on the predictions."""
    warnings: list[str] = []
    for artifact in artifacts:
        folder, config = artifact.folder, artifact.config
        remedy = (
            "all or none of its validation answers were right; take a larger validation set"
            if (folder / FILE).exists()  # the stage release wrote it
            else "load the folder that the stage release writes (models/TASK)"
        )
        warnings += missing_hashes(folder, config)
        warnings += [
            f"{folder}: head {name!r} is not used, because another artifact is for this task alone"
            for name in artifact.replaced
        ]
        warnings += [
            f"{folder}: head {name!r} has no thresholds: its probabilities are not calibrated, and "
            f"it makes no decision that needs a threshold, such as 'no answer'; {remedy}"
            for name, head in config.heads.items()
            if not head.thresholds and isinstance(task_named(head.type), HasConfidence)
        ]
        warnings += [
            f"{folder}: head {name!r} records no rule for words, so {DEFAULT_RULE!r} makes words "
            "of rows with text; give tokens, or make the artifact again to record the rule of its "
            "corpus"
            for name, head in config.heads.items()
            if head.word_rule is None and isinstance(task_named(head.type), TagsWords)
        ]
    return warnings


def _unknown_rules(folder: Path, config: ArtifactConfig) -> list[str]:
    return [
        f"{folder}/config.json: head {name!r}: word_rule: {head.word_rule!r} is not a rule of this "
        f"version{did_you_mean(head.word_rule, RULES)}"
        for name, head in config.heads.items()
        if head.word_rule is not None and head.word_rule not in RULES
    ]


def merge_heads(artifacts: Sequence[ServedArtifact], hidden_size: int) -> Heads:
    """The heads of all artifacts in one padded parameter."""
    merged = empty_heads(
        [head for artifact in artifacts for head in artifact.heads_by_name.values()], hidden_size
    )
    first = 0
    with torch.no_grad():
        for heads in (artifact.heads(hidden_size) for artifact in artifacts):
            tasks, size = heads.bias.shape
            merged.weight[first : first + tasks, :size] = heads.weight
            merged.bias[first : first + tasks, :size] = heads.bias
            first += tasks
    return merged

"""Whether an artifact fits a backbone: its type, its files, its weights and the prompt's shape."""

from collections.abc import Mapping
from pathlib import Path

from pipeline.arms import ARMS
from pipeline.artifacts.config import ArtifactConfig
from pipeline.errors import UserError
from pipeline.model.backbone import Backbone
from pipeline.params import BackboneParams
from pipeline.pretrained.random_weights import RandomWeights


def check_fits(
    folder: Path, config: ArtifactConfig, params: BackboneParams, backbone: Backbone
) -> None:
    """Raise UserError with all reasons why the artifact in `folder` does not fit the backbone.

    `params` are those of the backbone.
    """
    expected = {"model_type": backbone.config.model_type, "hidden_size": backbone.hidden_size}
    problems = [
        f"{name} is {getattr(config, name)!r}, but the backbone's is {value!r}"
        for name, value in expected.items()
        if getattr(config, name) != value
    ]
    if config.backbone.decoder != backbone.is_encoder_decoder:
        problems.append(
            f"backbone.decoder is {config.backbone.decoder}, but the backbone is loaded "
            f"{'with' if backbone.is_encoder_decoder else 'without'} its decoder"
        )
    if not config.backbone.has_weights_of(params):
        problems.append(
            f"it was made for backbone {config.backbone.source} (sha256 {config.backbone.sha256}), "
            f"but params have {params.source} (sha256 {params.sha256})"
        )
    if config.backbone_files and (files := _differing_files(config, backbone.files)):
        problems.append(
            f"it was made with another {' and '.join(files)} of the backbone, which may change "
            "its predictions"
        )
    if config.prompt_shape is not None and (
        problem := _shape_problem(config, config.prompt_shape, backbone)
    ):
        problems.append(problem)
    if config.position_offset and not backbone.family.can_shift:
        problems.append(
            f"position_offset is {config.position_offset}, but the backbone's positions are "
            f"{backbone.family.positions} and cannot shift"
        )
    if config.position_offset < 0:
        problems.append(f"position_offset is {config.position_offset}; it cannot be negative")
    problems = [
        f"{problem}; use the backbone it was made for, or make the artifact again"
        for problem in problems
    ]
    problems += _weights_problems(config.random_weights, backbone.random_weights)
    if problems:
        raise UserError(*(f"{folder}: {problem}" for problem in problems))


def _weights_problems(expected: RandomWeights | None, actual: RandomWeights | None) -> list[str]:
    """The difference between the weights of training and those of a backbone, if any is random."""
    if expected is None or actual is None or expected.seed != actual.seed:
        texts = [
            f"random weights of seed {weights.seed}" if weights else "pretrained weights"
            for weights in (expected, actual)
        ]
        problem = (
            f"it was made for {texts[0]} of the backbone, not for its {texts[1]}; use an artifact "
            "of another arm"
        )
        return [] if expected == actual else [problem]
    if expected.sha256 == actual.sha256:
        return []
    return [
        f"{actual.versions} on this machine draw other random weights from seed {actual.seed} than "
        f"{expected.versions} in its training; install those versions, use a CPU with the same "
        "instructions (AVX2 or not), or make the artifact again"
    ]


def _differing_files(config: ArtifactConfig, files: Mapping[str, str]) -> list[str]:
    """The names of the config and tokenizer files that differ from those of the artifact.

    `files` are those of the loaded backbone (empty: unknown, nothing differs). With an equal
    tokenizer.json, the vocabulary may also be in other files, or not: they are not used.
    """
    expected = config.backbone_files
    fast = "tokenizer.json" in files and files["tokenizer.json"] == expected.get("tokenizer.json")
    compared = {
        name
        for name in expected.keys() | files.keys()
        if name.endswith("config.json") or not fast or (name in expected and name in files)
    }
    return [name for name in sorted(compared) if files and expected.get(name) != files.get(name)]


def _shape_problem(
    config: ArtifactConfig, shape: tuple[int, ...], backbone: Backbone
) -> str | None:
    if ARMS[config.arm].prompt == "soft":
        fits = len(shape) == 2 and shape[1] == backbone.embedding_size
        return (
            None
            if fits
            else f"prompt_shape is {shape}, but the backbone takes (P, {backbone.embedding_size})"
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
            f"prompt_shape is {shape} from layer {config.first_layer} on, but the backbone takes "
            f"({layers}, {rest[0]}, {rest[1]}, P, {rest[3]})"
        )
    )

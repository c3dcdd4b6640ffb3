"""deep-prompt as a library: load artifacts, predict with them, and read their configs.

    import deep_prompt

    model = deep_prompt.load("models/world_ner")
    print(model("Ada met Bo."))  # for example: [PER: Ada] met [PER: Bo].
    for prediction in model.predict([{"tokens": ["Ada", "met", "Bo"]}]):
        print(prediction.result)

or load one artifact by the conventions of the Hugging Face hub (`Model.from_pretrained`), or attach
a prompt to a model of transformers, to train it in a loop of your own.

This page is the public API. `pipeline` is the library below it, `stages` the DVC stages, and
`deep_prompt.cli` the command `deep-prompt`.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

# Torch and transformers take seconds to import, and `deep-prompt --help` imports this package.
# Functions therefore import them.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from deep_prompt.model import Model
    from pipeline.artifacts.config import ArtifactConfig
    from pipeline.inference.prediction import Prediction, Predictions
    from pipeline.inference.predictor import Predictor
    from pipeline.interop.attach import PromptedTransformer
    from pipeline.model.generation import Decoding

__all__ = [
    "ArtifactConfig",
    "Decoding",
    "Model",
    "Prediction",
    "Predictions",
    "Predictor",
    "PromptedTransformer",
    "UserError",
    "attach",
    "load",
    "load_config",
]
_MODULES = {
    "ArtifactConfig": "pipeline.artifacts.config",
    "Decoding": "pipeline.model.generation",
    "Model": "deep_prompt.model",
    "Prediction": "pipeline.inference.prediction",
    "Predictions": "pipeline.inference.prediction",
    "Predictor": "pipeline.inference.predictor",
    "PromptedTransformer": "pipeline.interop.attach",
}
"""Class -> its module, which is imported when the class is first used."""


def load(
    artifacts: str | Path | Sequence[str | Path] | Mapping[str, str | Path], **options: Any
) -> "Predictor":
    """Load one or more artifacts on their common backbone.

    `artifacts` is a folder, a list of folders, or a mapping from task names to folders; rows then
    name a task by its key in the mapping. In place of a folder, zoo:NAME is an artifact that ships
    with the project, and hub:OWNER/NAME@REVISION one on the Hugging Face hub. `options` are those
    of `pipeline.inference.loading.load`: `backbone`, `device`, `dtype`, `max_length` and `stride`.
    `Predictor.predict(rows)` yields a `Prediction` for each row, in order. A call of the predictor
    takes a text, a row, a list of these, or a pandas frame (see `Predictor.__call__`).

    Raises UserError if an artifact is incomplete, does not fit its backbone, or cannot be loaded
    together with the others. Warns (`warnings.warn`) about heads without thresholds, about heads
    that record no rule for words, and about artifacts that do not record the backbone's config and
    tokenizer files.
    """
    import warnings

    from pipeline.inference import loading

    if isinstance(artifacts, str | Path):
        artifacts = [artifacts]
    model = loading.load(artifacts, **options)
    for warning in model.warnings:
        warnings.warn(warning, stacklevel=2)
    return model


def attach(model: Any, num_virtual_tokens: int = 32, **options: Any) -> "PromptedTransformer":
    """Attach a deep prompt to a model of transformers, to train it in a loop of your own.

    `model` is any class with a supported body, such as AutoModelForTokenClassification. The result
    is an `nn.Module` with the same arguments and outputs, whose only trained values are the
    prompt's keys and values [L, 2, H, P, D], with P = `num_virtual_tokens`. `options` are those of
    `pipeline.interop.attach.attach`: `input_ids`, a text to start from, and `seed`.

    Raises UserError if P is not positive, or if prompts do not work on the model.
    """
    from pipeline.interop import attach as interop

    return interop.attach(model, num_virtual_tokens, **options)


def load_config(artifact: str | Path) -> "ArtifactConfig":
    """Read the config of an artifact: arm, backbone, shapes, heads, provenance. No tensor is read.

    Raises UserError if the folder has no artifact, or an artifact of another format version.
    """
    from pipeline.artifacts import config
    from pipeline.artifacts.location import locate_artifact
    from pipeline.inference.arguments import check_path

    check_path("artifact", artifact)
    return config.load_config(locate_artifact(artifact))


def __dir__() -> list[str]:
    return __all__


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)

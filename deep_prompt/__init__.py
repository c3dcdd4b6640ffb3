"""deep-prompt as a library: load artifacts, predict with them, and read what they are.

    import deep_prompt

    model = deep_prompt.load("models/world_ner")
    for prediction in model.predict([{"tokens": ["Ada", "met", "Bo"]}]):
        print(prediction.result)

This page is the public API. `pipeline` is the library below it, `stages` the DVC stages, and
`deep_prompt.cli` the command `deep-prompt`.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

# Torch and transformers take seconds to import. The command, whose package this is, must not wait
# for them, so functions import them.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from pipeline.artifacts.config import ArtifactConfig
    from pipeline.inference.predictor import Prediction, Predictor

__all__ = ["ArtifactConfig", "Prediction", "Predictor", "UserError", "load", "load_config"]


def load(
    artifacts: str | Path | Sequence[str | Path] | Mapping[str, str | Path], **options: Any
) -> "Predictor":
    """Load one or many artifacts over the one backbone that they share.

    `artifacts` is a folder, a list of folders, or a mapping from task names to folders; rows then
    ask for a task by that name. `options` are those of `pipeline.inference.predictor.load`:
    `backbone`, `device`, `dtype`, `max_length` and `stride`. `Predictor.predict(rows)` yields a
    `Prediction` for each row, in order.

    Raises UserError if an artifact is incomplete, does not fit its backbone, or cannot be loaded
    together with the others.
    """
    from pipeline.inference import predictor

    if isinstance(artifacts, str | Path):
        artifacts = [artifacts]
    return predictor.load(artifacts, **options)


def load_config(artifact: str | Path) -> "ArtifactConfig":
    """Read what an artifact is, without its tensors: arm, backbone, shapes, heads, provenance.

    Raises UserError if the folder holds no artifact, or one of another format.
    """
    from pipeline.artifacts import config

    return config.load_config(Path(artifact))


def __getattr__(name: str) -> Any:
    if name in ("Prediction", "Predictor"):
        from pipeline.inference import predictor

        return getattr(predictor, name)
    if name == "ArtifactConfig":
        from pipeline.artifacts import config

        return config.ArtifactConfig
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

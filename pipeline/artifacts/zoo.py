"""The artifacts that ship with the project, in the folder `zoo`: zoo:NAME names one of them."""

from pathlib import Path

from pipeline.errors import UserError, did_you_mean

ZOO = Path(__file__).resolve().parents[2] / "zoo"
_PREFIX = "zoo:"


def zoo_names() -> list[str]:
    """The names of the artifacts in the zoo."""
    return sorted(config.parent.name for config in ZOO.glob("*/config.json"))


def artifact_folder(artifact: Path | str) -> Path:
    """The folder of an artifact, given as a path or as zoo:NAME.

    Raises UserError if the zoo has no such artifact.
    """
    text = str(artifact)
    if not text.startswith(_PREFIX):
        return Path(artifact)
    name = text.removeprefix(_PREFIX)
    if name not in zoo_names():
        raise UserError(f"{text}: no such artifact{did_you_mean(name, zoo_names())}")
    return ZOO / name

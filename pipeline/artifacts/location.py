"""Locate an artifact: a folder, zoo:NAME, or a pinned revision of the Hugging Face hub."""

import re
from pathlib import Path

from pipeline.artifacts.zoo import artifact_folder
from pipeline.errors import UserError
from pipeline.pretrained.location import hub_folder

_HUB = re.compile(r"hub:([\w.-]+/[\w.-]+@[0-9a-f]{40})")
FILES = ("*.json", "*.safetensors", "README.md")
"""The files of an artifact on the hub."""


def locate_artifact(artifact: Path | str) -> Path:
    """The local folder of an artifact, given as a path, as zoo:NAME or as hub:OWNER/NAME@REVISION.

    A revision of the hub comes from the local cache if present, and is downloaded otherwise. Raises
    UserError if the zoo has no such artifact, the revision is not pinned, or the download fails.
    """
    text = str(artifact)
    if not text.startswith("hub:"):
        return artifact_folder(artifact)
    match = _HUB.fullmatch(text)
    if not match:
        raise UserError(
            f"{text}: not a pinned revision of the hub; write hub:OWNER/NAME@ and 40 hexadecimal "
            "digits (the commit, under History on its page)"
        )
    return hub_folder(match[1], FILES, "artifact")

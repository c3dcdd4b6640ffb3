"""Words that several commands of deep-prompt take."""

import argparse
from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Other imports are inside the functions, as in deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from pipeline.params import BackboneParams

SOURCE = "folder:PATH, package:NAME/FOLDER or hub:ID@REVISION"


def artifact_word(parser: ArgumentParser, **more: Any) -> None:
    """--artifact."""
    parser.add_argument(
        "--artifact",
        required=True,
        type=Path,
        metavar="DIR",
        **{"help": "the artifact's folder", **more},
    )


def number(word: str) -> int:
    """A type of words: whole numbers above 0."""
    if not (word.isascii() and word.isdigit() and int(word)):
        raise argparse.ArgumentTypeError(f"{word!r} is not a whole number above 0")
    return int(word)


def backbone_at(source: str, digest: str | None) -> "BackboneParams":
    """The backbone that --backbone names. Raises UserError where it is no such source."""
    from pipeline.config import parse
    from pipeline.params import BackboneParams

    return parse(BackboneParams, {"source": source, "sha256": digest}, "--backbone")

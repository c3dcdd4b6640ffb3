"""Arguments that several commands share."""

import argparse
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    import torch

    from pipeline.params import BackboneParams

SOURCE = "folder:PATH, package:NAME/FOLDER or hub:ID@REVISION"


def add_artifact_argument(parser: ArgumentParser | argparse._ArgumentGroup, **options: Any) -> None:
    """Add --artifact to a parser or a group. `options` override those of `add_argument`."""
    defaults = {
        "required": True,
        "type": artifact,
        "metavar": "DIR",
        "help": "folder of the artifact, zoo:NAME, or hub:OWNER/NAME@REVISION",
    }
    parser.add_argument("--artifact", **{**defaults, **options})


def add_dtype_argument(parser: ArgumentParser) -> None:
    """Add --dtype."""
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="precision of the backbone (default: that of the artifact's training, but float32 if "
        "it is bfloat16 and this device does not multiply it natively)",
    )


def dtype_of(arguments: argparse.Namespace) -> "torch.dtype | None":
    """The type that --dtype names, if it is given."""
    import torch

    return None if arguments.dtype is None else getattr(torch, arguments.dtype)


def artifact(text: str) -> Path:
    """The folder of an artifact (see `locate_artifact`), as an argparse type."""
    from pipeline.artifacts.location import locate_artifact
    from pipeline.errors import UserError

    try:
        return locate_artifact(text)
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def positive_integer(text: str) -> int:
    """Parse a whole number above 0, as an argparse type."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def backbone_at(source: str, digest: str | None) -> "BackboneParams":
    """The backbone of the option --backbone. Raises UserError if `source` has a wrong syntax."""
    from pipeline.config import parse
    from pipeline.params import BackboneParams

    return parse(BackboneParams, {"source": source, "sha256": digest}, "--backbone")


@contextmanager
def output_errors(option: str, name: Path | str) -> Iterator[None]:
    """Raise UserError for an OSError in the block: the file of an option cannot be written."""
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{option}: {name} cannot be written: {error.strerror or error}; give another file"
        ) from None

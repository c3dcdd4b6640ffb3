"""deep-prompt preset: replace params.yaml with a file of presets/."""

import os
from argparse import ArgumentParser, Namespace
from itertools import chain, count
from pathlib import Path

from deep_prompt.cli.yaml_edit import edited_text
from pipeline.config import load_yaml
from pipeline.errors import UserError, did_you_mean
from pipeline.files import atomic_write
from stages.runtime.entry import log
from stages.runtime.params import check_params
from stages.runtime.paths import PARAMS, PRESETS


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "name", nargs="?", default="", metavar="NAME", help="the preset presets/NAME.yaml"
    )
    parser.add_argument(
        "data_root",
        nargs="?",
        default="",
        metavar="DATA_ROOT",
        help="folder that contains the folders of the corpora (default: the environment variable "
        "DATA_ROOT)",
    )


def preset(arguments: Namespace) -> None:
    """Write presets/NAME.yaml to params.yaml. The previous params.yaml becomes params.yaml.before.

    An earlier backup stays; the new one is then params.yaml.before.2, and so on.

    DATA_ROOT is written into params.yaml as `data_root`, because DVC hashes the corpora there.
    """
    name: str = arguments.name
    source = PRESETS / f"{name}.yaml"
    known = [path.stem for path in PRESETS.glob("*.yaml")]
    if name not in known:
        problem = f"presets: no preset {name!r}" if name else "NAME is missing"
        raise UserError(f"{problem}{did_you_mean(name, known)}")
    root: str = arguments.data_root or os.environ.get("DATA_ROOT", "")
    params = check_params(load_yaml(source), str(source))
    if root and not Path(root).is_dir():
        raise UserError(
            f"DATA_ROOT: {root!r} is not a folder; give the folder that contains the folders of "
            "the corpora"
        )
    if ".." in Path(root).parts:  # A relative path outside does not hold in `dvc exp run --temp`.
        root = str(Path(root).resolve())
    changes = {"data_root": root} if root else {}
    text = edited_text(source, lambda document: document.update(changes))
    before = ""
    if PARAMS.exists():
        backup = _free_name()
        atomic_write(backup, PARAMS.read_bytes())
        before = f"; the previous file is {backup}"
    atomic_write(PARAMS, text)
    log(f"{PARAMS} is now {source}, with data_root {root or params.data_root}{before}")


def _free_name() -> Path:
    """The name of a backup that does not exist yet."""
    first = PARAMS.with_name(f"{PARAMS.name}.before")
    others = (first.with_name(f"{first.name}.{number}") for number in count(2))
    return next(path for path in chain([first], others) if not path.exists())

"""Switch to a preset: `deep-prompt preset NAME [DATA_ROOT]` writes presets/NAME.yaml to params.yaml.

DATA_ROOT, or else the environment variable of that name, becomes `data_root`: it is written into params.yaml so that what DVC
hashes is what the stages read. The former params.yaml is kept as params.yaml.before.
"""

import os
import shutil
from argparse import ArgumentParser, Namespace
from pathlib import Path

from deep_prompt.cli.yaml_edit import rewritten
from pipeline.config import load_yaml
from pipeline.errors import UserError, did_you_mean
from pipeline.files import atomic_write
from stages.runtime.entry import log
from stages.runtime.params import check_params
from stages.runtime.paths import PARAMS, PRESETS


def words(parser: ArgumentParser) -> None:
    """The command's words."""
    parser.add_argument("name", nargs="?", default="", metavar="NAME", help="of presets/NAME.yaml")
    parser.add_argument(
        "data_root",
        nargs="?",
        default="",
        metavar="DATA_ROOT",
        help="the folder that holds the corpora's folders (default: the environment variable DATA_ROOT)",
    )


def preset(given: Namespace) -> None:
    """Write a preset to params.yaml; the former params.yaml is kept as params.yaml.before."""
    name, data_root = given.name, given.data_root
    source = PRESETS / f"{name}.yaml"
    known = [path.stem for path in PRESETS.glob("*.yaml")]
    if name not in known:
        raise UserError(f"presets: no preset {name!r}{did_you_mean(name, known)}")
    root = data_root or os.environ.get("DATA_ROOT", "")
    params = check_params(load_yaml(source), str(source))
    if root and not Path(root).is_dir():
        raise UserError(
            f"DATA_ROOT: {root!r} is not a folder; name the one that holds the corpora's folders"
        )
    text = rewritten(source, lambda document: document.update({"data_root": root} if root else {}))
    if PARAMS.exists():
        shutil.copyfile(PARAMS, f"{PARAMS}.before")
    atomic_write(PARAMS, text)
    log(
        f"{PARAMS} is now {source}, with data_root {root or params.data_root}; the former one is {PARAMS}.before"
    )

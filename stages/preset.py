"""Switch to a preset: `python -m stages.preset NAME [DATA_ROOT]` writes presets/NAME.yaml to params.yaml.

DATA_ROOT, or else the environment variable of that name, becomes `data_root`: it is written into params.yaml so that what DVC
hashes is what the stages read. The former params.yaml is kept as params.yaml.before.
"""

import os
import shutil
from pathlib import Path

from pipeline.config import load_yaml
from pipeline.errors import UserError, did_you_mean
from pipeline.files import atomic_write
from stages.command import run, say
from stages.params import PATH, check_params
from stages.rewriting import rewritten


def preset(name: str = "", data_root: str = "") -> None:
    """Write params.yaml."""
    source = Path("presets") / f"{name}.yaml"
    known = [path.stem for path in Path("presets").glob("*.yaml")]
    if name not in known:
        raise UserError(f"presets: no preset {name!r}{did_you_mean(name, known)}")
    root = data_root or os.environ.get("DATA_ROOT", "")
    params = check_params(load_yaml(source), str(source))
    if root and not Path(root).is_dir():
        raise UserError(f"DATA_ROOT: {root!r} is not a folder; name the one that holds the corpora's folders")
    text = rewritten(source, lambda document: document.update({"data_root": root} if root else {}))
    if PATH.exists():
        shutil.copyfile(PATH, f"{PATH}.before")
    atomic_write(PATH, text)
    say(f"{PATH} is now {source}, with data_root {root or params.data_root}; the former one is {PATH}.before")


if __name__ == "__main__":
    run(preset)

"""The identity of the code that a stage runs, for checkpoints and shards: an edit of other code
does not void them.
"""

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.config import load_yaml
from pipeline.files import sha256
from pipeline.tasks import code_of
from stages.runtime.paths import DVC_YAML

CODE = Path(__file__).parents[2]  # the folder of the packages that this process runs
PACKAGES = ("pipeline", "stages")


def code_of_stage(module: str, tasks: Iterable[str] = ()) -> str:
    """A hash of the code that `python -m stages.MODULE` runs on tasks of the kinds `tasks`.

    The files are those that dvc.yaml lists as dependencies of the stages with that command, so that
    DVC, checkpoints and shards agree. Where there is no dvc.yaml, or no such stage in it, they are
    all files of the packages, so that none is missed.
    """
    digest = hashlib.sha256()
    for path in sorted({file for place in _listed(module) for file in _files(CODE / place)}):
        digest.update(f"{path.relative_to(CODE)} {sha256(path)}\n".encode())
    for task in sorted(set(tasks)):
        digest.update(f"{task} {code_of(task)}\n".encode())
    return digest.hexdigest()


def _listed(module: str) -> set[str]:
    """The files and folders of code that dvc.yaml lists for a stage's module."""
    listed: set[str] = set()
    stages = load_yaml(DVC_YAML).get("stages", {}) if DVC_YAML.exists() else {}
    for stage in stages.values():
        definition = stage.get("do", stage)  # of a `foreach`, or of the stage itself
        if f"stages.{module}" in definition["cmd"].split():
            listed |= {dep for dep in definition["deps"] if dep.split("/")[0] in PACKAGES}
    return listed or set(PACKAGES)


def _files(place: Path) -> Iterator[Path]:
    found = place.rglob("*") if place.is_dir() else [place]
    return (path for path in found if path.is_file() and "__pycache__" not in path.parts)

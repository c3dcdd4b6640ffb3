"""Hash the code that a stage runs, to identify it in checkpoints and shards.

An edit of other code does not invalidate them.
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

    It covers the files that dvc.yaml lists as dependencies of the stages with that command, so that
    DVC, checkpoints and shards agree. Without dvc.yaml, or without such a stage in it, it covers
    all files of the packages.
    """
    digest = hashlib.sha256()
    files = {file for dependency in _dependencies(module) for file in _files(CODE / dependency)}
    for path in sorted(files):
        digest.update(f"{path.relative_to(CODE)} {sha256(path)}\n".encode())
    for task in sorted(set(tasks)):
        digest.update(f"{task} {code_of(task)}\n".encode())
    return digest.hexdigest()


def _dependencies(module: str) -> set[str]:
    """The files and folders of code that dvc.yaml lists for the stages of a module."""
    dependencies: set[str] = set()
    stages = load_yaml(DVC_YAML).get("stages", {}) if DVC_YAML.exists() else {}
    for stage in stages.values():
        definition = stage.get("do", stage)  # a stage with `foreach` has its definition in `do`
        if f"stages.{module}" in definition["cmd"].split():
            dependencies |= {path for path in definition["deps"] if path.split("/")[0] in PACKAGES}
    return dependencies or set(PACKAGES)


def _files(path: Path) -> Iterator[Path]:
    """The file `path`, or all files of the folder `path`."""
    candidates = path.rglob("*") if path.is_dir() else [path]
    return (file for file in candidates if file.is_file() and "__pycache__" not in file.parts)

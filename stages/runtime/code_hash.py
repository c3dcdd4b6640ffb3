"""The code that a stage runs, as an input of DVC's stages, of checkpoints and of shards.

An edit of other code invalidates none of them.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pipeline.files import sha256
from pipeline.source_files import source_files
from pipeline.tasks import NAMES, code_of

CODE = Path(__file__).parents[2]  # the folder of the packages that this process runs
PACKAGES = ("pipeline", "stages")
RUN_ALL_TASKS = ("prepare", "release", "report")
"""The stages that run all tasks. The others read a hash of their tasks' code from their input."""


def code_files_of(stage: str) -> dict[str, str]:
    """The files that `python -m stages.STAGE` runs, relative to the root, each with its sha256."""
    modules = [f"stages.{stage}"]
    if stage in RUN_ALL_TASKS:
        modules += [f"pipeline.tasks.{name}" for name in NAMES]
    files = source_files(modules, CODE, PACKAGES)
    return {str(file.relative_to(CODE)): sha256(file) for file in files}


def code_of_stage(stage: str, tasks: Iterable[str] = ()) -> str:
    """A hash of the code that a stage runs on tasks of the kinds `tasks`."""
    digest = hashlib.sha256()
    for name, value in code_files_of(stage).items():
        digest.update(f"{name} {value}\n".encode())
    for task in sorted(set(tasks)):
        digest.update(f"{task} {code_of(task)}\n".encode())
    return digest.hexdigest()

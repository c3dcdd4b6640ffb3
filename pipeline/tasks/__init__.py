"""The kinds of task, one per file of this folder. A recipe names a kind by its file."""

import hashlib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pipeline.errors import UserError, did_you_mean
from pipeline.source_files import source_files
from pipeline.tasks.base.task import Task

NAMES = tuple(sorted(module.name for module in iter_modules(__path__) if not module.ispkg))


def task_named(name: str) -> Task[Any, Any, Any]:
    """The kind of task with this name. Raises UserError if no kind has it."""
    if name not in NAMES:
        raise UserError(f"no task {name!r}{did_you_mean(name, NAMES)}")
    task: Task[Any, Any, Any] = import_module(f"{__name__}.{name}").TASK
    return task


def task_of_summary(summary: Mapping[str, Any]) -> Task[Any, Any, Any]:
    """The task of a corpus, with its settings. `summary` is the content of a summary.json."""
    return task_named(summary["task"]).configured(
        summary.get("primary"), summary.get("max_answer_length")
    )


def check_answer_length(key: str, task: str, length: int | None) -> None:
    """Raise UserError if a task cannot have this `max_answer_length`; `key` names it in messages.

    None is always valid.
    """
    if length is None:
        return
    if task_named(task).max_answer_length is None:
        raise UserError(
            f"{key} is {length}, but {task} does not extract answers or generate text; remove it"
        )
    if length < 1:
        raise UserError(f"{key} is {length}; give a number of sub-words of at least 1")


def code_of(name: str) -> str:
    """A hash of the code that a task runs: its file and all that it imports from this library.

    Stages read this hash from their input and import no task by its name, so that an edit of one
    task's code reruns no other task.
    """
    root = Path(__path__[0]).parent.parent
    digest = hashlib.sha256()
    for file in source_files([f"{__name__}.{name}"], root, {"pipeline"}):
        digest.update(f"{file.relative_to(root)}\n".encode() + file.read_bytes())
    return digest.hexdigest()

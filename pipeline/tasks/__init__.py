"""The kinds of task, one per file of this folder. A recipe names a kind by its file."""

import ast
import hashlib
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pipeline.errors import UserError, did_you_mean
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
    """A hash of the code that is specific to a task.

    It covers the task's file and all modules of `tasks.shared`, other tasks and `metrics` that the
    file imports, directly or indirectly. Stages read this hash from their input instead of the
    files, so that an edit of one task's code reruns no other task.
    """
    root = Path(__path__[0]).parent.parent
    pending, files = [f"{__name__}.{name}"], dict[str, Path]()
    while pending:
        module = pending.pop()
        file = root.joinpath(*module.split(".")).with_suffix(".py")
        if module not in files and file.is_file():
            files[module] = file
            pending += [
                imported
                for imported in _imported_names(file)
                if imported.startswith(_TASK_CODE) and not imported.startswith(_CONTRACT)
            ]
    digest = hashlib.sha256()
    for module, file in sorted(files.items()):
        digest.update(f"{module}\n".encode() + file.read_bytes())
    return digest.hexdigest()


_TASK_CODE = ("pipeline.tasks.", "pipeline.metrics.")
_CONTRACT = "pipeline.tasks.base"  # every stage that runs tasks depends on it as a whole


def _imported_names(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)

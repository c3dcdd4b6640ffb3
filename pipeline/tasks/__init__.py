"""The tasks by the name that recipes use: that of a file here. A new kind of task is one such file."""

import ast
import hashlib
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

from pipeline.errors import UserError, did_you_mean
from pipeline.tasks.base.task import Task

NAMES = tuple(sorted(module.name for module in iter_modules(__path__) if not module.ispkg))


def task_named(name: str) -> Task[Any, Any, Any]:
    """The task called so. Raises UserError where there is none."""
    if name not in NAMES:
        raise UserError(f"no task {name!r}{did_you_mean(name, NAMES)}")
    task: Task[Any, Any, Any] = import_module(f"{__name__}.{name}").TASK
    return task


def code_of(name: str) -> str:
    """A hash of the code that is only this task's: its file, and what it imports of `tasks.shared`, other tasks and `metrics`.

    Stages take it from their input in place of these files, so that an edit of one task's code reruns no other task.
    """
    root = Path(__path__[0]).parent.parent
    todo, files = [f"{__name__}.{name}"], dict[str, Path]()
    while todo:
        module = todo.pop()
        file = root.joinpath(*module.split(".")).with_suffix(".py")
        if module not in files and file.is_file():
            files[module] = file
            todo += [
                name
                for name in _imported(file)
                if name.startswith(_OWN) and not name.startswith(_SHARED)
            ]
    digest = hashlib.sha256()
    for module, file in sorted(files.items()):
        digest.update(f"{module}\n".encode() + file.read_bytes())
    return digest.hexdigest()


_OWN = ("pipeline.tasks.", "pipeline.metrics.")
_SHARED = "pipeline.tasks.base"  # by all tasks: declared by every stage that runs one


def _imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)

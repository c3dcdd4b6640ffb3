"""The state of a running server: the model, its thread, and the artifacts that it serves."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

from deep_prompt.serve.batching import ModelThread
from deep_prompt.serve.corrections import Corrections, is_safe_name
from deep_prompt.serve.describe import describe_tasks
from deep_prompt.serve.jobs import Answers
from deep_prompt.serve.metrics import ServerCounts
from deep_prompt.serve.model import ServedArtifacts, ServedModel
from deep_prompt.serve.settings import Settings
from pipeline.errors import UserError, did_you_mean
from pipeline.tasks.base.row import Row

T = TypeVar("T")


class ServerState:
    """State shared by the routes.

    `tasks` has the description of each task by name. `status` is "ready" after the warm-up and
    until a stop signal. `num_streams` is the number of texts that are being sent as events.
    """

    def __init__(self, model: ServedModel, settings: Settings) -> None:
        self.model, self.settings = model, settings
        self.status: Literal["warming up", "ready", "stopping"] = "warming up"
        self.thread = ModelThread(
            self._answer,
            settings.wait_ms / 1000,
            settings.batch_tokens,
            settings.limits.queued_rows,
        )
        self.num_streams = 0
        self.metrics = ServerCounts(lambda: self.thread.queued_rows)
        folder = settings.corrections
        self.corrections = None if folder is None else Corrections(folder)
        self._changes = asyncio.Lock()
        self.tasks = describe_tasks(model.served.predictor, model.served.folders)

    def _answer(self, rows: Sequence[Row]) -> Answers:
        answers = self.model.answer(rows)
        self.metrics.passes(answers.passes)
        return answers

    def unknown_task(self, name: str) -> str:
        """The message for a task that is not served."""
        return f"no task {name[:40]!r}{did_you_mean(name, self.tasks)}"

    async def call(self, function: Callable[[], T]) -> T:
        """Call a function in the model's thread."""
        result: T = await asyncio.wrap_future(self.thread.call(function))
        return result

    async def warm_up(self) -> None:
        """Run each task once; then the server is ready."""
        await self.call(lambda: self.model.warm_up(_example_rows(self.tasks)))
        if self.status == "warming up":
            self.status = "ready"

    async def put_artifact(self, name: str, folder: str) -> dict[str, list[str]]:
        """Add or replace an artifact. Returns the names of all artifacts, and the warnings.

        Raises UserError if it cannot be served with the others.
        """
        if not is_safe_name(name):
            raise UserError(f"name: found {name[:40]!r}; use letters, digits, '_', '-' and '.'")
        path = self._inside(folder)
        async with self._changes:
            return await self._change({**self.model.served.folders, name: path})

    async def delete_artifact(self, name: str) -> dict[str, list[str]]:
        """Remove an artifact. Returns the names of the others, and the warnings.

        Raises UserError if there is no such artifact, or no other.
        """
        async with self._changes:
            folders = dict(self.model.served.folders)
            if name not in folders:
                raise UserError(f"no artifact {name[:40]!r}{did_you_mean(name, folders)}")
            del folders[name]
            if not folders:
                raise UserError(f"{name!r} is the only artifact; add another one before")
            return await self._change(folders)

    def _inside(self, folder: str) -> Path:
        """The path of a folder in `admin_folder`; links are followed before the check."""
        root = self.settings.admin_folder
        if root is None:
            raise UserError("artifacts cannot be added; start the server with --admin-folder")
        if "\0" in folder:
            raise UserError("folder: contains a null character; give the name of a folder")
        path = Path(os.path.realpath(root / folder))
        if not path.is_relative_to(root.resolve()):
            raise UserError(f"folder: {folder[:80]!r} is not inside --admin-folder; move it there")
        return path

    async def _change(self, folders: Mapping[str, Path]) -> dict[str, list[str]]:
        """Serve other artifacts. Returns their names, and the warnings of their predictor.

        Artifacts on the backbone in memory load in the model's thread, in milliseconds. Others get
        a backbone of their own, in another thread, while the old artifacts go on answering.
        """
        if await asyncio.to_thread(self.model.can_share, folders):
            await self.call(lambda: self._serve(self.model.load_beside(folders)))
        else:
            artifacts = await asyncio.to_thread(self.model.load_alone, folders)
            await self.call(lambda: self._serve(artifacts))
        served = self.model.served
        return {"artifacts": sorted(served.folders), "warnings": served.predictor.warnings}

    def _serve(self, artifacts: ServedArtifacts) -> None:
        """Serve other artifacts. If an example row of theirs fails, keep the present ones."""
        before, tasks = self.model.served, describe_tasks(artifacts.predictor, artifacts.folders)
        self.model.serve(artifacts)
        try:
            self.model.warm_up(_example_rows(tasks))
        except Exception:
            self.model.serve(before)
            raise
        self.tasks = tasks


def _example_rows(tasks: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    return [
        {**task["example"], "where": f"the example row of {name}"} for name, task in tasks.items()
    ]

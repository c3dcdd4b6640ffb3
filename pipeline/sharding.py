"""Split work into shards, and resume it after an interruption.

A shard is a pure function of its arguments that writes files to a folder. The process and machine
that run it do not affect the files. Finished shards are kept until all shards are finished, so an
interrupted run continues with the remaining shards. The files of a shard are used only if they
still have the hashes in the shard's manifest.
"""

import dataclasses
import gc
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import atomic_folder, sha256

MANIFEST = "shard.json"  # {result, files: {name: sha256}}


@dataclass(frozen=True)
class Shard:
    """A call `function(folder, *arguments)`.

    The function writes files to an empty folder and returns a value that JSON can represent. `key`
    identifies the code and the inputs of the function; see `key_of`.
    """

    key: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def make(self, into: Path) -> None:
        """Run the function and write the folder `into`/KEY."""
        with atomic_folder(into / self.key) as folder:
            with _infrequent_garbage_collection():
                result = self.function(folder, *self.arguments)
            files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
            manifest = {"result": result, "files": files}
            (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    def result(self, into: Path) -> Any:
        """The return value of the function, or None if the shard is absent or its files changed."""
        folder = into / self.key
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            intact = all(
                sha256(folder / name) == digest for name, digest in manifest["files"].items()
            )
        except (OSError, ValueError, KeyError):
            return None
        return manifest["result"] if intact else None


@contextmanager
def _infrequent_garbage_collection() -> Iterator[None]:
    """Context manager: run the garbage collector less often.

    A shard creates so many small objects that the collector takes a third of the time, and few of
    them are cyclic garbage.
    """
    thresholds = gc.get_threshold()
    gc.set_threshold(500_000, *thresholds[1:])
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)


Executor = Callable[[Sequence[Shard], Path], None]
"""A function that makes shards in a folder, in any order."""


def in_this_process(shards: Sequence[Shard], into: Path) -> None:
    """Make the shards one after another."""
    for shard in shards:
        shard.make(into)


def finish(shards: Sequence[Shard], into: Path, run: Executor = in_this_process) -> list[Any]:
    """Make the missing shards in `into` with `run`; returns the results of all shards, in order.

    Other shards in `into` are removed. No shard may have the result None. Raises UserError if a
    shard is still missing or damaged afterwards.
    """
    into.mkdir(parents=True, exist_ok=True)
    keys = {shard.key for shard in shards}
    for path in into.iterdir():
        if path.is_dir() and path.name not in keys:
            shutil.rmtree(path)
    results = {shard.key: shard.result(into) for shard in shards}
    missing = [shard for shard in shards if results[shard.key] is None]
    if missing:
        run(missing, into)
        results |= {shard.key: shard.result(into) for shard in missing}
    unusable = [shard.key for shard in shards if results[shard.key] is None]
    if unusable:
        raise UserError(
            f"{into}: {len(unusable)} of {len(shards)} shards ({unusable[0]}, ...) are missing or "
            "have changed since they were made; give all workers the same folder, then run the "
            "command again to continue with these shards"
        )
    return [results[shard.key] for shard in shards]


def key_of(number: int, *inputs: Any) -> str:
    """The key of a shard: its number and a hash of its inputs.

    Inputs are dataclasses or values that JSON can represent.
    """
    values = [
        dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
        for value in inputs
    ]
    text = json.dumps(values, sort_keys=True)
    return f"{number:05}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"

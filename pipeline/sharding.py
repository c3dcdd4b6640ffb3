"""Work cut into shards. A shard is a pure function from its arguments to files in a folder,
whatever process or machine runs it.

Finished shards stay until all are finished, so that an interrupted run continues with the others. A
shard's files are read only if their hashes are those from when the shard was made.
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
    """`function(folder, *arguments)` writes files into an empty folder and returns a value that
    JSON can hold.

    `key` identifies the function's code and inputs; see `key_of`.
    """

    key: str
    function: Callable[..., Any]
    arguments: tuple[Any, ...]

    def make(self, into: Path) -> None:
        """Make the folder `into`/KEY."""
        with atomic_folder(into / self.key) as folder:
            with _few_collections():
                result = self.function(folder, *self.arguments)
            files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
            manifest = {"result": result, "files": files}
            (folder / MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    def result(self, into: Path) -> Any:
        """The value that the function returned; None where the shard is absent or its files have
        changed.
        """
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
def _few_collections() -> Iterator[None]:
    """Collect cyclic garbage rarely: with so many small objects it takes a third of the time, and
    there is little.
    """
    before = gc.get_threshold()
    gc.set_threshold(500_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


Executor = Callable[[Sequence[Shard], Path], None]
"""Makes shards in a folder, in any order."""


def in_this_process(shards: Sequence[Shard], into: Path) -> None:
    """Make the shards one after the other."""
    for shard in shards:
        shard.make(into)


def finish(shards: Sequence[Shard], into: Path, run: Executor = in_this_process) -> list[Any]:
    """Have `run` make the shards that are not in `into` yet; returns the results of all, in order.

    Other shards in `into` are removed. Raises UserError where a shard is still missing or has
    changed.
    """
    into.mkdir(parents=True, exist_ok=True)
    keys = {shard.key for shard in shards}
    for path in into.iterdir():
        if path.name not in keys:
            shutil.rmtree(path)
    results = {shard.key: shard.result(into) for shard in shards}
    missing = [shard for shard in shards if results[shard.key] is None]
    if missing:
        run(missing, into)
        results |= {shard.key: shard.result(into) for shard in missing}
    lost = [shard.key for shard in shards if results[shard.key] is None]
    if lost:
        raise UserError(
            f"{into}: {len(lost)} of {len(shards)} shards ({lost[0]}, ...) are missing or have "
            "changed since they were made; "
            "give all workers the same folder, and run it again: it continues with these shards"
        )
    return [results[shard.key] for shard in shards]


def key_of(number: int, *inputs: Any) -> str:
    """A shard's key: its number, and a hash of its inputs, which are dataclasses or values that
    JSON can hold.
    """
    values = [
        dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
        for value in inputs
    ]
    text = json.dumps(values, sort_keys=True)
    return f"{number:05}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"

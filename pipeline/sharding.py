"""Work cut into shards. Each is a pure function from its arguments to files in a folder of its own, whoever runs it and wherever.

What is done stays, whole, until all is: a run that is cut short goes on from there. A merge reads a shard only after its files
were found to be what they were when they were made.
"""

import dataclasses
import gc
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.files import atomic_folder, sha256

MANIFEST = "shard.json"  # {result, files: {name: sha256}}


@dataclass(frozen=True)
class Shard:
    """`function(folder, *arguments)` writes files into an empty folder and returns what JSON can hold. `key` names all inputs."""

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
        """What its function returned; None unless the shard is there and its files are what they were."""
        folder = into / self.key
        try:
            manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            whole = all(
                sha256(folder / name) == digest for name, digest in manifest["files"].items()
            )
        except (OSError, ValueError, KeyError):
            return None
        return manifest["result"] if whole else None


@contextmanager
def _few_collections() -> Iterator[None]:
    """Look for cycles of garbage seldom: among so many small objects that takes a third of the time, and there are few."""
    before = gc.get_threshold()
    gc.set_threshold(500_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


Executor = Callable[[Sequence[Shard], Path], None]
"""Makes shards in a folder, in any order."""


def in_this_process(shards: Sequence[Shard], into: Path) -> None:
    """Make one after the other."""
    for shard in shards:
        shard.make(into)


def finish(shards: Sequence[Shard], into: Path, run: Executor = in_this_process) -> list[Any]:
    """Have `run` make the shards that are not in `into` yet; the results of all, in order. Others that lie there are removed.

    Raises UserError where one is still missing, or is torn.
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
            f"{into}: {len(lost)} of {len(shards)} shards ({lost[0]}, ...) are not there, or not what they were when "
            "they were made; all workers must share this folder: run it again, and it goes on from there"
        )
    return [results[shard.key] for shard in shards]


def key_of(number: int, *inputs: Any) -> str:
    """A shard's key: its number, and a hash of its inputs (what JSON can hold, and dataclasses) and of this package's code."""
    text = json.dumps(
        [
            _code(),
            *(
                dataclasses.asdict(value)
                if dataclasses.is_dataclass(value) and not isinstance(value, type)
                else value
                for value in inputs
            ),
        ],
        sort_keys=True,
    )
    return f"{number:05}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


@lru_cache(maxsize=1)
def _code() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()

"""Compress, write and read raw corpus files."""

import gzip
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import parse
from pipeline.data.readers import READERS
from pipeline.errors import Problems, UserError
from pipeline.tasks import NAMES, task_named
from pipeline.tasks.base.row import Row

EXTENSIONS = ("", ".gz", ".xz", ".zst")


def compress(content: bytes, extension: str) -> bytes:
    """Compress the content as in a file with this extension."""
    match extension:
        case ".gz":
            return gzip.compress(content)
        case ".xz":
            return lzma.compress(content, preset=0)
        case ".zst":
            return bytes(pa.Codec("zstd").compress(content, asbytes=True))
        case _:
            return content


def messages_of(problems: Problems) -> list[str]:
    """The messages that a user sees."""
    try:
        problems.raise_if_any()
    except UserError as error:
        return list(error.problems)
    return []


def read(
    reader: str,
    content: str | bytes,
    folder: Path,
    options: dict[str, Any] | None = None,
    name: str = "corpus",
) -> tuple[list[Row], list[str]]:
    """Write a file and read it; returns its rows and problems, with paths relative to `folder`.

    "auto" in options is resolved.
    """
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    parsed = parse(READERS[reader].options, options or {}, "recipe")
    resolved, _ = READERS[reader].resolve_auto(for_task(reader, parsed), [path])
    problems = Problems()
    rows = list(READERS[reader].read(path, resolved, problems))
    for row in rows:
        row["where"] = row["where"].replace(str(path), name)
    return rows, [message.replace(str(path), name) for message in messages_of(problems)]


def for_task(reader: str, options: Any) -> Any:
    """The options for the task that has the keys of the rows and the fewest other keys."""
    keys = READERS[reader].keys(options)
    declared = [task_named(name).row_keys for name in NAMES]
    fitting = [task_keys for task_keys in declared if keys <= task_keys.kinds.keys()]
    closest = min(fitting, key=lambda task_keys: len({*task_keys.required} - keys))
    return READERS[reader].for_task(options, closest)


def without_where(rows: list[Row]) -> list[Row]:
    """The rows without their positions."""
    return [{key: value for key, value in row.items() if key != "where"} for row in rows]

"""Raw files as users have them: written in a form and a compression, and read."""

import gzip
import lzma
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config import parse
from pipeline.data.readers import READERS
from pipeline.errors import Problems, UserError
from pipeline.tasks.base.row import Row

ENDINGS = ("", ".gz", ".xz", ".zst")


def packed(content: bytes, ending: str) -> bytes:
    """The content as a file with this ending has it."""
    match ending:
        case ".gz":
            return gzip.compress(content)
        case ".xz":
            return lzma.compress(content, preset=0)
        case ".zst":
            return bytes(pa.Codec("zstd").compress(content, asbytes=True))
        case _:
            return content


def told(problems: Problems) -> list[str]:
    """The messages, as a user sees them."""
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
    """The rows of a file with this content, under options that are settled, and its problems; no path has the folder's name."""
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    parsed, _ = READERS[reader].resolve_auto(
        parse(READERS[reader].options, options or {}, "recipe"), [path]
    )
    problems = Problems()
    rows = list(READERS[reader].read(path, parsed, problems))
    for row in rows:
        row["where"] = row["where"].replace(str(path), name)
    return rows, [problem.replace(str(path), name) for problem in told(problems)]


def content_of(rows: list[Row]) -> list[Row]:
    """The rows but for where they are."""
    return [{key: value for key, value in row.items() if key != "where"} for row in rows]

"""Chunks of a raw corpus: contiguous byte ranges of its files, each read and checked independently.

The boundaries depend on the files alone, so the result is the same for any number of processes and
any order of the chunks.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.readers import READERS, ChunkBoundary, hub
from pipeline.data.readers.base import (
    READ_ERRORS,
    Slice,
    compression,
    matching_files,
    open_lines,
)
from pipeline.data.recipe import Recipe
from pipeline.errors import UNDECODABLE, UNDECODED, Problems
from pipeline.files import sha256
from pipeline.tasks import task_named
from pipeline.tasks.base.row import SPLITS, Row
from pipeline.tasks.base.task import Task

CHUNK_BYTES = 2 << 20
ROW_GROUP_SIZE = 4096  # examples; the maximum of a chunk in memory

# Columns next to those of the example. `_number` counts the rows of a chunk, including rejected
# rows; `_has_id` is whether the raw row has an id; the last three are hashes of the id, the inputs
# (`Task.identity`) and the outputs.
BOOKKEEPING_COLUMNS = (
    pa.field("_where", pa.string()),
    pa.field("_split", pa.int8()),
    pa.field("_number", pa.int64()),
    pa.field("_has_id", pa.bool_()),
    pa.field("_id", pa.binary(16)),
    pa.field("_input", pa.binary(16)),
    pa.field("_output", pa.binary(8)),
)


@dataclass(frozen=True)
class Chunk:
    """Bytes [start, stop) of the file `name`; the whole file if `stop` is None.

    A chunk of a file has a `digest` of its content. A chunk without one is the hub's split `name`.
    """

    split: str
    name: str
    start: int = 0
    stop: int | None = None
    first_line: int = 1
    digest: str = ""

    @property
    def size(self) -> int:
        """The number of bytes of a chunk of a file, before decompression."""
        return (Path(self.name).stat().st_size if self.stop is None else self.stop) - self.start


def split_into_chunks(recipe: Recipe, folder: Path | None) -> list[Chunk]:
    """The chunks of a corpus, by split, in order. Reads each file once, a few MB at a time.

    `folder` holds the recipe's files; None means the recipe's hub data set.
    """
    if folder is None:
        assert recipe.hub is not None
        return [Chunk(split, name) for split in SPLITS for name in recipe.hub.splits.of(split)]
    chunks: list[Chunk] = []
    for split in SPLITS:
        for name in recipe.files.of(split):
            for path in matching_files(folder, name):
                chunks += _split_file(split, path, recipe)
    return chunks


def _split_file(split: str, path: Path, recipe: Recipe) -> Iterator[Chunk]:
    reader = READERS[recipe.reader]
    splittable = compression(path) is None and _is_readable(path)
    boundary = reader.chunk_boundary(path, recipe.options) if splittable else None
    if boundary == "lines" and _opens_list(path):
        boundary = None
    if boundary is None or not path.stat().st_size:
        companions = reader.companion_files(path, recipe.options)
        yield Chunk(split, str(path), digest=_file_digest(path, companions))
        return
    start, line = 0, 1
    with path.open("rb") as file:
        while block := _next_block(file, boundary):
            stop, digest = start + len(block), hashlib.sha256(block).hexdigest()
            yield Chunk(split, str(path), start, stop, line, digest)
            start, line = stop, line + block.count(b"\n")


def _is_readable(path: Path) -> bool:
    """Whether a file can be opened as text; the chunks of another file would repeat its problem."""
    try:
        open_lines(path).close()
    except READ_ERRORS:
        return False
    return True


def _opens_list(path: Path) -> bool:
    """Whether the first line only opens a JSON list: a reader of lines reports this once."""
    with path.open("rb") as file:
        first_line = next((line for line in file if line.strip()), b"")
    return first_line.strip(b"\xef\xbb\xbf \t\r\n") == b"["


def _file_digest(path: Path, companions: Iterable[Path]) -> str:
    """A hash of the file's content and of its companion files."""
    digest = hashlib.sha256("".join(map(sha256, companions)).encode())
    with path.open("rb") as file:
        while block := file.read(CHUNK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _next_block(file: BinaryIO, boundary: ChunkBoundary) -> bytearray:
    """About CHUNK_BYTES of the file, up to the next boundary."""
    block = bytearray(file.read(CHUNK_BYTES))
    if len(block) == CHUNK_BYTES and not block.endswith(b"\n"):
        block += file.readline()
    if not isinstance(boundary, tuple) or len(block) < CHUNK_BYTES:
        return block
    beginnings = tuple(text.encode() for text in boundary)
    while line := file.readline():
        block += line
        if not line.strip() or line.startswith(beginnings):
            break
    return block


def read_chunk(target: Path, recipe: Recipe, chunk: Chunk) -> dict[str, Any]:
    """Check the rows of a chunk; write examples.parquet and problems.jsonl into `target`.

    The columns of examples.parquet are those of the examples and BOOKKEEPING_COLUMNS.

    Returns values for JSON: `rows` is the number of rows from the reader; `kept`, `tokens` and
    `labels` count examples, tokens and labels by split; `dropped` counts rejected rows, and the
    problems of rows that the reader skipped; `with_id` counts examples whose raw row has an id;
    `first_held_out` is the position of each label's first occurrence outside train; `groups` has
    two of the groups of a training chunk that may be split, or the only one; `problems` are the
    arguments of `Problems.merge`.
    """
    task = task_named(recipe.task)
    sink = (target / "problems.jsonl").open("w", encoding="utf-8", errors="backslashreplace")
    with sink, _Writer(target / "examples.parquet", task) as writer:
        problems = Problems(sink=sink, allowed=recipe.allow)
        tally = _Tally(task, recipe.labels)
        rows = dropped = rejected = 0
        for row in _rows(recipe, chunk, task, problems):
            dropped += problems.rejected - rejected
            example = _example({"id": f"{chunk.split}-{rows}", **row}, recipe, task, problems)
            rejected = problems.rejected
            if example is None:
                dropped += 1
            elif not (problems.counts[UNDECODABLE] and _has_undecoded(row)):  # counted as dropped
                split = chunk.split
                if split == "train":
                    group = recipe.split_group(row)
                    split = recipe.assign_split(group)
                    tally.add_group(group)
                tally.add(split, row["where"], example)
                writer.write(example, row["where"], SPLITS.index(split), rows, "id" in row)
            rows += 1
        dropped += problems.rejected - rejected
        return {
            "rows": rows,
            "kept": tally.rows,
            "dropped": dropped,
            "with_id": writer.with_id,
            "tokens": tally.tokens,
            "labels": tally.labels,
            "first_held_out": tally.first_held_out,
            "groups": tally.groups,
            "problems": {
                "kept": problems.kept,
                "counts": problems.counts,
                "hiding": problems.hiding,
                "skipped": problems.skipped,
                "found": problems.found,
            },
        }


def _rows(
    recipe: Recipe, chunk: Chunk, task: Task[Any, Any, Any], problems: Problems
) -> Iterator[Row]:
    reader = READERS[recipe.reader]
    if not chunk.digest:
        assert recipe.hub is not None
        return hub.read(recipe.hub, chunk.name, task.row_keys, problems, reader.row, recipe.options)
    path = Path(chunk.name)
    source = path if chunk.stop is None else Slice(path, chunk.start, chunk.stop, chunk.first_line)
    return reader.read(source, recipe.options, problems)


def _example(row: Row, recipe: Recipe, task: Task[Any, Any, Any], problems: Problems) -> Any | None:
    """The checked example of a row, which must have the key that the recipe's metric needs."""
    example = task.example(row, recipe.labels, problems)
    key = task.metric_keys.get(recipe.metric or "")
    if key is None or row.get(key) not in (None, ""):
        return example
    problems.add(
        row["where"],
        f"key {key!r} is missing, and the recipe has metric: {recipe.metric}, which needs it; add "
        "it, or remove metric",
        "missing-key",
    )
    return None


def _has_undecoded(row: Row) -> bool:
    """Whether a text of the row had bytes that are not UTF-8."""
    return UNDECODED in json.dumps(row, ensure_ascii=False, default=str)


class _Tally:
    """The counts of a chunk by split, and each label's first position outside train."""

    def __init__(self, task: Task[Any, Any, Any], labels: Sequence[str]) -> None:
        self._task, self._labels = task, labels
        self.rows = dict.fromkeys(SPLITS, 0)
        self.tokens = dict.fromkeys(SPLITS, 0)
        self.labels: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.first_held_out: dict[str, str] = {}
        self.groups: list[str] = []

    def add_group(self, group: str) -> None:
        if len(self.groups) < 2 and group not in self.groups:
            self.groups.append(group)

    def add(self, split: str, where: str, example: Any) -> None:
        self.rows[split] += 1
        self.tokens[split] += self._task.num_tokens(example)
        for label in self._task.declared_labels(example, self._labels):
            self.labels[split][label] += 1
            if split != "train":
                self.first_held_out.setdefault(label, where)


class _Writer:
    """Writes the Parquet file of a chunk, one row group at a time."""

    def __init__(self, path: Path, task: Task[Any, Any, Any]) -> None:
        self._task = task
        self._schema = pa.schema([*task.schema, *BOOKKEEPING_COLUMNS])
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._pending: list[dict[str, Any]] = []
        self.with_id = 0

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def write(self, example: Any, where: str, split: int, number: int, has_id: bool) -> None:
        record = self._task.record(example)
        self._pending.append(
            record
            | {
                "_where": where,
                "_split": split,
                "_number": number,
                "_has_id": has_id,
                "_id": blake2b(record["id"]),
                "_input": blake2b([record[name] for name in self._task.identity]),
                "_output": blake2b([record[name] for name in self._task.outputs], 8),
            }
        )
        self.with_id += has_id
        if len(self._pending) == ROW_GROUP_SIZE:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._file.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._pending = []


def blake2b(value: str | Iterable[Any], size: int = 16) -> bytes:
    """The hash of a text, or of values as JSON; `size` bytes."""
    text = value if isinstance(value, str) else json.dumps(value)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=size).digest()

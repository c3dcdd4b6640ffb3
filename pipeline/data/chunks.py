"""A raw corpus cut into parts: stretches of its files, each read and checked by itself.

Where the cuts are depends on the files alone, so that what comes out is the same whoever reads which part, and in what order.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.data.readers import READERS, hub
from pipeline.data.readers.base import Slice, compression, paths
from pipeline.data.recipe import Recipe
from pipeline.errors import UNDECODABLE, Problems
from pipeline.files import sha256
from pipeline.tasks import task_named
from pipeline.tasks.base.row import SPLITS, Row
from pipeline.tasks.base.task import Task

CHUNK_BYTES = 2 << 20
ROW_GROUP = 4096  # examples; all that is held in memory of a part

# Beside the example's columns. `_number` counts the rows of a part, rejected ones too; `_named`: it has an id of its own; then
# hashes of the id, of what the model is shown and of what it should say.
BOOKKEEPING_COLUMNS = (
    pa.field("_where", pa.string()),
    pa.field("_split", pa.int8()),
    pa.field("_number", pa.int64()),
    pa.field("_named", pa.bool_()),
    pa.field("_id", pa.binary(16)),
    pa.field("_input", pa.binary(16)),
    pa.field("_output", pa.binary(8)),
)


@dataclass(frozen=True)
class Chunk:
    """Bytes [start, stop) of a file, all of it where it cannot be cut (`stop` is None), or a split of the hub (no `digest`)."""

    split: str
    name: str
    start: int = 0
    stop: int | None = None
    first_line: int = 1
    digest: str = ""


def split_into_chunks(recipe: Recipe, folder: Path | None) -> list[Chunk]:
    """The parts of a corpus, split by split, in order. Reads every file once, a few MB at a time."""
    if folder is None:
        assert recipe.hub is not None
        return [Chunk(split, name) for split in SPLITS for name in recipe.hub.splits.of(split)]
    files = [
        (split, path)
        for split in SPLITS
        for name in recipe.files.of(split)
        for path in paths(folder, name)
    ]
    return [part for split, path in files for part in _cut_file(split, path, recipe)]


def _cut_file(split: str, path: Path, recipe: Recipe) -> Iterator[Chunk]:
    reader = READERS[recipe.reader]
    at = reader.cut(path, recipe.options) if compression(path) is None else None
    start, line, whole = (
        0,
        1,
        hashlib.sha256("".join(map(sha256, reader.companion_files(path, recipe.options))).encode()),
    )
    with path.open("rb") as file:
        while block := bytearray(file.read(CHUNK_BYTES)):
            if at is None:
                whole.update(block)
                continue
            if len(block) == CHUNK_BYTES and not block.endswith(b"\n"):
                block += file.readline()
            while at == "blank lines" and len(block) >= CHUNK_BYTES and (more := file.readline()):
                block += more
                if not more.strip():
                    break
            yield Chunk(
                split, str(path), start, start + len(block), line, hashlib.sha256(block).hexdigest()
            )
            start, line = start + len(block), line + block.count(b"\n")
    if start == 0:
        yield Chunk(split, str(path), digest=whole.hexdigest())


def read_chunk(target: Path, recipe: Recipe, part: Chunk) -> dict[str, Any]:
    """Check a part's rows; write examples.parquet (with the columns BOOKKEEPING_COLUMNS) and problems.jsonl into `target`.

    Returns what JSON can hold: `rows` that the reader gave, `kept` of them by split, `lost` (rows rejected, and problems of rows
    that the reader did not give), `tokens` and `labels` by split, `first` (where each label is first, outside train), `problems`.
    """
    task = task_named(recipe.task)
    listed = (target / "problems.jsonl").open("w", encoding="utf-8", errors="backslashreplace")
    with listed as sink, _Writer(target / "examples.parquet", task) as writer:
        problems = Problems(sink=sink)
        tally = _Tally(task)
        rows = lost = seen = 0
        for row in _rows(recipe, part, task, problems):
            lost += len(problems) - seen
            example = task.example({"id": f"{part.split}-{rows}", **row}, recipe.labels, problems)
            seen = len(problems)
            if example is None:
                lost += 1
            elif not (
                problems.counts[UNDECODABLE] and "\ufffd" in str(row)
            ):  # then it is lost already
                split = (
                    recipe.assign_split(task.split_group(row))
                    if part.split == "train"
                    else part.split
                )
                tally.add(split, row["where"], example)
                writer.write(example, row["where"], SPLITS.index(split), rows, "id" in row)
            rows += 1
        lost += len(problems) - seen
        return {
            "rows": rows,
            "kept": tally.rows,
            "lost": lost,
            "named": writer.named,
            "tokens": tally.tokens,
            "labels": tally.labels,
            "first": tally.first,
            "problems": {
                "kept": problems.kept,
                "counts": problems.counts,
                "hiding": problems.hiding,
            },
        }


def _rows(
    recipe: Recipe, part: Chunk, task: Task[Any, Any, Any], problems: Problems
) -> Iterator[Row]:
    reader = READERS[recipe.reader]
    if not part.digest:
        assert recipe.hub is not None
        return hub.read(recipe.hub, part.name, task.keys, problems, reader.row, recipe.options)
    path = Path(part.name)
    source = path if part.stop is None else Slice(path, part.start, part.stop, part.first_line)
    return reader.read(source, recipe.options, problems)


class _Tally:
    """What is in a part, by split."""

    def __init__(self, task: Task[Any, Any, Any]) -> None:
        self._task = task
        self.rows = dict.fromkeys(SPLITS, 0)
        self.tokens = dict.fromkeys(SPLITS, 0)
        self.labels: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self.first: dict[str, str] = {}

    def add(self, split: str, where: str, example: Any) -> None:
        self.rows[split] += 1
        self.tokens[split] += self._task.num_tokens(example)
        for label in self._task.labels(example):
            self.labels[split][label] += 1
            if split != "train":
                self.first.setdefault(label, where)


class _Writer:
    """The Parquet file of a part, written one row group at a time. `named` counts the rows with an id of their own."""

    def __init__(self, path: Path, task: Task[Any, Any, Any]) -> None:
        self._task = task
        self._schema = pa.schema([*task.schema, *BOOKKEEPING_COLUMNS])
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd")
        self._pending: list[dict[str, Any]] = []
        self.named = 0

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def write(self, example: Any, where: str, split: int, number: int, named: bool) -> None:
        record = self._task.record(example)
        self._pending.append(
            record
            | {
                "_where": where,
                "_split": split,
                "_number": number,
                "_named": named,
                "_id": key(record["id"]),
                "_input": key([record[name] for name in self._task.inputs]),
                "_output": key([record[name] for name in self._task.outputs], 8),
            }
        )
        self.named += named
        if len(self._pending) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._file.write_table(pa.Table.from_pylist(self._pending, schema=self._schema))
        self._pending = []


def key(value: str | Iterable[Any], size: int = 16) -> bytes:
    """A hash of a text, or of values that JSON can hold."""
    text = value if isinstance(value, str) else json.dumps(value)
    return hashlib.blake2b(text.encode(errors="surrogatepass"), digest_size=size).digest()

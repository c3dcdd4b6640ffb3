"""Raw corpora to checked examples: one Parquet file per split, and a summary of what is in them."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import Problems, UserError
from pipeline.files import atomic_folder, write_json
from pipeline.readers import READERS, hub
from pipeline.readers.base import SPLITS, Row, paths
from pipeline.recipe import Recipe
from pipeline.task import Task
from pipeline.tasks import code_of, task_named

ROW_GROUP = 4096  # examples; all that is held in memory of a split


def prepare(recipe: Recipe, folder: Path | None, output: Path, found: Problems | None = None) -> dict[str, Any]:
    """Check a whole corpus and write it to `output` as {train,validation,test}.parquet and summary.json; return the summary.

    `folder` holds the recipe's files; None reads the recipe's pinned hub copy instead. Equal input gives equal bytes.
    Raises UserError with every problem found, and then `output` is left as it was; unless `found` is there to gather them: then
    what is sound is written.
    """
    _check_source(recipe, folder)
    problems = Problems() if found is None else found
    tally = _Tally(recipe, problems)
    with atomic_folder(output) as target:
        with ExitStack() as stack:
            files = {split: stack.enter_context(_Writer(target / f"{split}.parquet", tally.task)) for split in SPLITS}
            for split in SPLITS:
                for row in tally.watch(split, _rows(recipe, folder, split, tally.task, problems)):
                    destination = "validation" if split == "train" and _is_carved(recipe, tally.task.group(row)) else split
                    example = tally.task.example(row, recipe.labels, problems)
                    if example is not None and tally.add(destination, row, example):
                        files[destination].write(example)
        tally.check()
        if found is None:
            problems.raise_if_any()
        summary = tally.summary()
        write_json(target / "summary.json", summary)
    return summary


def read_examples(path: Path, task: Task[Any, Any, Any]) -> Iterator[Any]:
    """The examples of one of the Parquet files, in order."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=ROW_GROUP):
            yield from map(task.restore, batch.to_pylist())


def _check_source(recipe: Recipe, folder: Path | None) -> None:
    """Raise UserError if a file is missing (all of them at once), or the hub is asked for and the recipe names none."""
    if folder is None:
        if recipe.hub is None:
            raise UserError(f"data_recipes/{recipe.name}.yaml: hub is missing; add it, or give the corpus a folder")
        return
    problems = Problems()
    if not folder.is_dir():
        problems.add(str(folder), f"no such folder; put the corpus {recipe.name!r} there ({recipe.source})")
    else:
        for name in (name for split in SPLITS for name in recipe.files.of(split)):
            if not paths(folder, name):
                problems.add(str(folder / name), f"no such file; get it ({recipe.source}), or correct files in the recipe")
    problems.raise_if_any()


def _rows(recipe: Recipe, folder: Path | None, split: str, task: Task[Any, Any, Any], problems: Problems) -> Iterator[Row]:
    """The rows of a split as its source has it, before any is carved out; those without id become SPLIT-0, SPLIT-1 ..."""
    number = 0
    for name in (recipe.hub.splits if folder is None and recipe.hub else recipe.files).of(split):
        if folder is None:
            assert recipe.hub is not None
            sources = [hub.read(recipe.hub, name, task.keys, problems, READERS[recipe.reader].row, recipe.options)]
        else:
            sources = [READERS[recipe.reader].read(path, recipe.options, problems) for path in paths(folder, name)]
        for row in chain.from_iterable(sources):
            yield {"id": f"{split}-{number}", **row}
            number += 1


def _is_carved(recipe: Recipe, group: str) -> bool:
    """Whether a row of train goes to validation: by a hash of the seed and its group, so that adding rows moves no others."""
    digest = hashlib.sha256(f"{recipe.seed}\n{group}".encode(errors="surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") < (recipe.carve_validation or 0.0) * 2**64


class _Writer:
    """A Parquet file that is written one row group at a time."""

    def __init__(self, path: Path, task: Task[Any, Any, Any]) -> None:
        self._task = task
        self._file = pq.ParquetWriter(path, task.schema, compression="zstd")
        self._pending: list[dict[str, Any]] = []

    def __enter__(self) -> "_Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def write(self, example: Any) -> None:
        self._pending.append(self._task.record(example))
        if len(self._pending) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        if self._pending:
            self._file.write_table(pa.Table.from_pylist(self._pending, schema=self._task.schema))
        self._pending = []


class _Tally:
    """What can only be seen over the whole corpus: repeated ids, empty splits, labels without training, and the counts."""

    def __init__(self, recipe: Recipe, problems: Problems) -> None:
        self.task = task_named(recipe.task)
        self._recipe = recipe
        self._problems = problems
        self._ids: dict[str, str] = {}  # id -> where
        self._broken: set[str] = set()  # source splits with problems: what they seem to lack may be among the rejected rows
        self._rows = dict.fromkeys(SPLITS, 0)
        self._tokens = dict.fromkeys(SPLITS, 0)
        self._labels: dict[str, Counter[str]] = {split: Counter() for split in SPLITS}
        self._first: dict[str, str] = {}  # label -> where it is first, outside train

    def watch(self, split: str, rows: Iterator[Row]) -> Iterator[Row]:
        """The same rows; notes whether there were problems while they were read and checked."""
        before = len(self._problems)
        yield from rows
        if len(self._problems) > before:
            self._broken.add(split)

    def add(self, split: str, row: Row, example: Any) -> bool:
        """Count an example; False, and a problem, if its id is taken."""
        if example.id in self._ids:
            first = self._ids[example.id]
            self._problems.add(row["where"], f"id {example.id!r} is taken by {first}; ids are unique in a corpus: change one")
            return False
        self._ids[example.id] = row["where"]
        self._rows[split] += 1
        self._tokens[split] += self.task.size(example)
        for label in self.task.labels(example):
            self._labels[split][label] += 1
            if split != "train":
                self._first.setdefault(label, row["where"])
        return True

    def check(self) -> None:
        """Problems of the corpus as a whole, left out where rejected rows may be their cause."""
        place = f"data_recipes/{self._recipe.name}.yaml"
        for split in SPLITS:
            source = split if self._recipe.files.of(split) else "train"
            if not self._rows[split] and source not in self._broken:
                names = ", ".join(self._recipe.files.of(split)) or f"a share of {self._recipe.carve_validation} of train"
                self._problems.add(place, f"split {split!r} ({names}) is empty; correct files, carve_validation or seed")
        if self._recipe.unseen_labels == "fail" and "train" not in self._broken:
            for label in sorted(set(self._first) - set(self._labels["train"])):
                self._problems.add(self._first[label], f"label {label!r} is never in train, so it cannot be learned; "
                                                       "correct it, or allow it by unseen_labels: keep in the recipe")

    def summary(self) -> dict[str, Any]:
        """What is in the corpus: `tokens` are words, `label_counts` annotations. `code` is the task's, for the next stages."""
        recipe = self._recipe
        return {"name": recipe.name, "task": recipe.task, "code": code_of(recipe.task), "labels": list(recipe.labels),
                "classes": list(self.task.classes(recipe.labels)), "words": recipe.words,
                "primary": recipe.metric or self.task.figures[0], "license": recipe.license, "source": recipe.source,
                "rows": self._rows, "tokens": self._tokens,
                "label_counts": {split: dict(counts) for split, counts in self._labels.items()}}

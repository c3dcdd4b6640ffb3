"""Raw corpora to checked examples: one Parquet file per split, a summary of what is in them, and every problem found.

A corpus is read in parts (`pipeline.data.chunks`), each by itself. What only shows over the whole of it is looked for on disk
(`pipeline.data.duplicates`). Then the parts are put together, so that no step holds more than one of them in memory.
"""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.data.chunks import (
    BOOKKEEPING_COLUMNS,
    CHUNK_BYTES,
    ROW_GROUP,
    Chunk,
    key,
    read_chunk,
    split_into_chunks,
)
from pipeline.data.duplicates import Array, Buckets, Findings, conflicting, repeated, shared
from pipeline.data.readers.base import paths
from pipeline.data.recipe import Recipe
from pipeline.errors import WARNINGS, Problems, UserError
from pipeline.files import atomic_folder, atomic_stream, write_json
from pipeline.sharding import Executor, Shard, finish, in_this_process, key_of
from pipeline.tasks import code_of, task_named
from pipeline.tasks.base.row import SPLITS
from pipeline.tasks.base.task import Task

LOOKED_UP = 50_000  # rows whose places are in memory at once


class CorpusError(UserError):
    """A corpus whose problems are more than its recipe bears. `summary` are lines that say how many there are of each kind."""

    def __init__(self, summary: Sequence[str], *problems: str) -> None:
        super().__init__(*problems)
        self.summary = summary


def prepare(
    recipe: Recipe,
    folder: Path | None,
    output: Path,
    problems_file: Path | None = None,
    work: Path | None = None,
    run: Executor = in_this_process,
    gather: Problems | None = None,
) -> tuple[dict[str, Any], list[str]]:
    """Check a whole corpus and write it to `output` as {train,validation,test}.parquet and summary.json.

    Returns the summary, and lines that say which problems there are that the recipe bears.

    `folder` holds the recipe's files; None reads the recipe's pinned hub copy instead. `problems_file` gets every problem as a
    line of JSON, whether there are too many or not. Parts that are done lie in `work` until all is; `run` makes them, where
    there is more than a few MB to read. Equal input gives equal bytes. Raises CorpusError with what is wrong, and then `output`
    is left as it was; unless `gather` is there to take the problems: then what is sound is written before it is raised.
    """
    _check_source(recipe, folder)
    recipe, detected = recipe.settled(folder)
    parts = split_into_chunks(recipe, folder)
    large = sum((part.stop or 0) - part.start for part in parts) > 2 * CHUNK_BYTES
    shards = [
        Shard(key_of(i, recipe, part), read_chunk, (recipe, part)) for i, part in enumerate(parts)
    ]
    with _workspace(work, output) as space, atomic_folder(output) as target:
        found = finish(shards, space / "parts", run if large else in_this_process)
        corpus = _Corpus(recipe, parts, found, [space / "parts" / shard.key for shard in shards])
        with ExitStack() as stack:
            sink = stack.enter_context(atomic_stream(problems_file or space / "problems.jsonl"))
            problems = Problems(sink=sink) if gather is None else gather
            for path, about in zip(corpus.folders, found, strict=True):
                with (path / "problems.jsonl").open(encoding="utf-8") as lines:
                    shutil.copyfileobj(lines, sink)
                problems.merge(**about["problems"])
            broken = {part.split for part, about in zip(parts, found, strict=True) if about["lost"]}
            dropped = _find_duplicates(corpus, space / "buckets", problems)
            counts = _merge(corpus, dropped, target)
            _check_whole(corpus, counts, broken if recipe.on_problem == "fail" else set(), problems)
        lost = sum(about["lost"] for about in found) + int(dropped.sum())
        error = _judgment(recipe, problems, lost, corpus.rows + lost - int(dropped.sum()))
        if error and gather is None:
            raise error
        summary = _summary(recipe, counts, problems, lost) | {"detected": detected}
        write_json(target / "summary.json", summary)
    if error:
        raise error
    return summary, problems.summary()


def _check_source(recipe: Recipe, folder: Path | None) -> None:
    """Raise UserError if a file is missing (all of them at once), or the hub is asked for and the recipe names none."""
    if folder is None:
        if recipe.hub is None:
            raise UserError(
                f"data_recipes/{recipe.name}.yaml: hub is missing; add it, or give the corpus a folder"
            )
        return
    problems = Problems()
    if not folder.is_dir():
        problems.add(
            str(folder),
            f"no such folder; put the corpus {recipe.name!r} there ({recipe.source})",
            "missing-file",
        )
    else:
        for name in (name for split in SPLITS for name in recipe.files.of(split)):
            if not paths(folder, name):
                problems.add(
                    str(folder / name),
                    f"no such file; get it ({recipe.source}), or correct files in the recipe",
                    "missing-file",
                )
    problems.raise_if_any()


@contextmanager
def _workspace(work: Path | None, output: Path) -> Iterator[Path]:
    """Where to keep what is half done: `work`, which goes when all is done; else a folder that goes in any case."""
    if work is None:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            dir=output.parent, prefix=f".tmp-{output.name}."
        ) as folder:
            yield Path(folder)
    else:
        work.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(work / "buckets", ignore_errors=True)
        yield work
        shutil.rmtree(work)


class _Corpus:
    """The parts as they were read. A row's number counts the examples that were kept, over all parts."""

    def __init__(
        self,
        recipe: Recipe,
        parts: Sequence[Chunk],
        found: Sequence[dict[str, Any]],
        folders: Sequence[Path],
    ) -> None:
        self.recipe, self.parts, self.found, self.folders = recipe, parts, found, folders
        self.task = task_named(recipe.task)
        kept = [sum(about["kept"].values()) for about in found]
        self.starts = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        self.rows = int(self.starts[-1])
        self._before = dict.fromkeys(SPLITS, 0)
        self.first_number = [
            self._numbered(part.split, about["rows"])
            for part, about in zip(parts, found, strict=True)
        ]
        self.named = sum(about["named"] for about in found)

    def _numbered(self, split: str, rows: int) -> int:
        first = self._before[split]
        self._before[split] += rows
        return first

    def read(self, part: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of a part (all where None), with the ids that its rows have in the corpus, where ids are asked for."""
        if columns is not None and "id" in columns:
            columns = list(dict.fromkeys([*columns, "_named", "_number"]))
        table = pq.read_table(self.folders[part] / "examples.parquet", columns=columns)
        if "id" in table.column_names and not pc.all(table["_named"]).as_py():
            number = pc.add(table["_number"], self.first_number[part])
            made = pc.binary_join_element_wise(
                self.parts[part].split, pc.cast(number, pa.string()), "-"
            )
            table = table.set_column(
                table.schema.get_field_index("id"),
                "id",
                pc.if_else(table["_named"], table["id"], made),
            )
        return table

    def look_up(self, rows: NDArray[np.int64], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Columns of some rows."""
        found: dict[int, dict[str, Any]] = {}
        wanted = np.unique(rows)
        for part in np.unique(np.searchsorted(self.starts, wanted, side="right") - 1):
            inside = wanted[(wanted >= self.starts[part]) & (wanted < self.starts[part + 1])]
            table = self.read(int(part), columns).take(inside - self.starts[part])
            found |= dict(zip(inside.tolist(), table.to_pylist(), strict=True))
        return found


class _Check(NamedTuple):
    """What to say of a row that repeats another; `{}` are columns of its own, `{other}` those of the other."""

    kind: str
    message: str


_REPEATED = _Check(
    "duplicate-id", "id {id!r} is taken by {other[_where]}; ids are unique in a corpus: change one"
)
_CONFLICTING = _Check(
    "conflicting-labels",
    "{other[_where]} is the same and has other labels; correct one of them, or allow it "
    "by allow: [conflicting-labels] in the recipe",
)
_SHARED = _Check(
    "shared-row",
    "{other[_where]} is the same, in {other[split]}, whose rows must not be seen before; take one "
    "out, or allow it by allow: [shared-row] in the recipe",
)


def _find_duplicates(corpus: _Corpus, folder: Path, problems: Problems) -> NDArray[np.bool_]:
    """Add a problem for each row that repeats another as it must not. Which rows [all] are to be left out under `drop`."""
    dropped = np.zeros(corpus.rows, bool)
    folder.mkdir()
    if corpus.named:
        with Buckets(folder / "ids", corpus.rows) as ids:
            for part, rows in enumerate(_stretches(corpus.starts)):
                ids.add(
                    _id_keys(corpus, part),
                    rows,
                    np.zeros(len(rows), "u8"),
                    np.zeros(len(rows), "i1"),
                )
            _report(corpus, ids.find(repeated), _REPEATED, dropped, problems)
    with Buckets(folder / "inputs", corpus.rows) as inputs:
        for part, rows in enumerate(_stretches(corpus.starts)):
            table, left = corpus.read(part, ["_input", "_output", "_split"]), ~dropped[rows]
            inputs.add(
                _hashes(table["_input"])[left],
                rows[left],
                _hashes(table["_output"])[left, 0],
                table["_split"].to_numpy()[left],
            )
        for which, check in ((conflicting, _CONFLICTING), (shared, _SHARED)):
            _report(corpus, inputs.find(which), check, dropped, problems)
    shutil.rmtree(folder)
    return dropped


def _stretches(starts: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
    return (np.arange(*bounds) for bounds in pairwise(starts))


def _id_keys(corpus: _Corpus, part: int) -> Array:
    """Hashes of a part's ids: its own, or those that its rows were given by their place in the corpus."""
    if corpus.found[part]["named"] == sum(corpus.found[part]["kept"].values()):
        return _hashes(corpus.read(part, ["_id"])["_id"])
    keys = b"".join(key(id) for id in corpus.read(part, ["id"])["id"].to_pylist())
    return np.frombuffer(keys, "<u8").reshape(-1, 2)


def _hashes(column: pa.ChunkedArray) -> Array:
    """A column of n hashes as integers [n, size / 8]."""
    words = column.type.byte_width // 8
    values = [
        np.frombuffer(chunk.buffers()[1], "<u8")[
            chunk.offset * words : (chunk.offset + len(chunk)) * words
        ]
        for chunk in column.chunks
    ]
    return np.concatenate([np.empty(0, "<u8"), *values]).reshape(-1, words)


def _report(
    corpus: _Corpus, found: Findings, check: _Check, dropped: NDArray[np.bool_], problems: Problems
) -> None:
    """Add the problems, in the order of the rows, and mark the rows that `drop` leaves out."""
    columns = ("id", "_where", "_split")
    for start in range(0, len(found), LOOKED_UP):
        some = found[start : start + LOOKED_UP]
        about = corpus.look_up(some.ravel(), columns)
        for row, other in some.tolist():
            there = about[other] | {"split": SPLITS[about[other]["_split"]]}
            problems.add(
                about[row]["_where"], check.message.format(**about[row], other=there), check.kind
            )
    if corpus.recipe.on_problem == "drop" and check.kind not in corpus.recipe.allow:
        dropped[found[:, 0]] = True


@dataclass
class _Counts:
    """What is in the examples that are left, by split."""

    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    labels: dict[str, Counter[str]] = field(
        default_factory=lambda: {split: Counter() for split in SPLITS}
    )

    def add(self, about: dict[str, Any]) -> None:
        for split in SPLITS:
            self.rows[split] += about["kept"][split]
            self.tokens[split] += about["tokens"][split]
            self.labels[split].update(about["labels"][split])

    def take_away(self, split: str, task: Task[Any, Any, Any], example: Any) -> None:
        self.rows[split] -= 1
        self.tokens[split] -= task.num_tokens(example)
        self.labels[split].subtract(task.labels(example))
        self.labels[split] += Counter()  # without zeros


def _merge(corpus: _Corpus, dropped: NDArray[np.bool_], target: Path) -> _Counts:
    """Write the splits' files out of the parts, and count what is in them."""
    counts, about = _Counts(), [column.name for column in BOOKKEEPING_COLUMNS]
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                pq.ParquetWriter(
                    target / f"{split}.parquet", corpus.task.schema, compression="zstd"
                )
            )
            for split in SPLITS
        ]
        for part, rows in enumerate(_stretches(corpus.starts)):
            counts.add(corpus.found[part])
            table, left = corpus.read(part), ~dropped[rows]
            splits, examples = table["_split"].to_numpy(), table.drop_columns(about)
            for row in np.flatnonzero(~left).tolist():
                counts.take_away(
                    SPLITS[splits[row]],
                    corpus.task,
                    corpus.task.from_record(examples.slice(row, 1).to_pylist()[0]),
                )
            for number, file in enumerate(files):
                chosen = examples.filter(pa.array(left & (splits == number)))
                if len(chosen):
                    file.write_table(chosen, row_group_size=ROW_GROUP)
    return counts


def _check_whole(corpus: _Corpus, counts: _Counts, broken: set[str], problems: Problems) -> None:
    """Problems of the corpus as a whole, left out where rejected rows (of the splits `broken`) may be their cause."""
    recipe = corpus.recipe
    for split in SPLITS:
        if not counts.rows[split] and (split if recipe.files.of(split) else "train") not in broken:
            names = ", ".join(recipe.files.of(split))
            remedy = "files" if names else f"carve_{split} or seed"
            names = names or f"a share of {recipe.share(split)} of train"
            problems.add(
                f"data_recipes/{recipe.name}.yaml",
                f"split {split!r} ({names}) is empty; correct {remedy}",
                "empty-split",
                hides=True,
            )
    held_out = set(counts.labels["validation"]) | set(counts.labels["test"])
    if "train" not in broken:
        for label in sorted(held_out - set(counts.labels["train"])):
            where = next(about["first"][label] for about in corpus.found if label in about["first"])
            problems.add(
                where,
                f"label {label!r} is never in train, so it cannot be learned; correct it, or allow it by "
                "allow: [unseen-label] in the recipe",
                "unseen-label",
                hides="unseen-label" not in recipe.allow,
            )


def _judgment(recipe: Recipe, problems: Problems, lost: int, rows: int) -> CorpusError | None:
    """What to say where the recipe's policy does not bear what was found."""
    wrong = {
        kind: count
        for kind, count in problems.counts.items()
        if kind not in WARNINGS and kind not in recipe.allow
    }
    bearable = (
        recipe.on_problem == "drop"
        and not problems.hiding
        and lost <= recipe.max_dropped_fraction * rows
    )
    if not wrong or bearable:
        return None
    messages = [f"{where}: {message}" for kind, where, message in problems.kept if kind in wrong]
    more = sum(wrong.values()) - len(messages)
    if recipe.on_problem == "drop":
        why = (
            "some hide rows, or are of the corpus as a whole"
            if problems.hiding
            else f"max_dropped is {recipe.max_dropped}"
        )
        messages.insert(
            0,
            f"data_recipes/{recipe.name}.yaml: {lost} of {rows} rows would be dropped; {why}: correct the corpus",
        )
    return CorpusError(problems.summary(), *messages, *([f"and {more} more"] if more else []))


def _summary(recipe: Recipe, counts: _Counts, problems: Problems, dropped: int) -> dict[str, Any]:
    """What is in the corpus: `tokens` are words, `label_counts` annotations. `code` is the task's, for the next stages."""
    task = task_named(recipe.task)
    return {
        "name": recipe.name,
        "task": recipe.task,
        "code": code_of(recipe.task),
        "labels": list(recipe.labels),
        "classes": list(task.classes(recipe.labels)),
        "words": recipe.words,
        "primary": recipe.metric or task.metric_names[0],
        "license": recipe.license,
        "source": recipe.source,
        "rows": counts.rows,
        "tokens": counts.tokens,
        "label_counts": {split: dict(found) for split, found in counts.labels.items()},
        "problems": dict(problems.counts),
        "dropped": dropped,
    }

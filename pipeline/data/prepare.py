"""Raw corpora to checked examples: one Parquet file per split, a summary, and all problems.

A corpus is read in independent chunks (`pipeline.data.chunks`). Problems between chunks are found
on disk (`pipeline.data.duplicates`). Then the chunks are merged one by one, so that no step holds
more than one of them in memory.
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
    ROW_GROUP_SIZE,
    Chunk,
    blake2b,
    read_chunk,
    split_into_chunks,
)
from pipeline.data.duplicates import (
    Array,
    Buckets,
    RowPairs,
    find_conflicts,
    find_repeats,
    find_shared,
)
from pipeline.data.readers import READERS
from pipeline.data.readers.base import abbreviate, matching_files
from pipeline.data.readers.conll_props import WITHOUT_PREDICATES
from pipeline.data.readers.saved_datasets import folder_problem
from pipeline.data.recipe import Recipe
from pipeline.data.word_rules import measure_words
from pipeline.errors import WARNINGS, Problems, UserError, listed
from pipeline.files import atomic_folder, atomic_stream, write_json
from pipeline.sharding import Executor, Shard, finish, in_this_process, key_of
from pipeline.tasks import code_of, task_named
from pipeline.tasks.base.capabilities import TagsWords
from pipeline.tasks.base.row import SPLITS
from pipeline.tasks.shared.validation import MAX_SENTENCE_WORDS

MAX_LISTED_NAMES = 8  # in a message
MAX_WORDS_OF_SINGLE_SENTENCE = 30  # of a file; a longer one adds a warning
LOOKUP_ROWS = 50_000  # rows to look up at once, which limits memory


class CorpusError(UserError):
    """A corpus with more problems than its recipe accepts. `summary` counts them by kind."""

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
    problems: Problems | None = None,
    code: str = "",
) -> tuple[dict[str, Any], list[str]]:
    """Check a whole corpus; write {train,validation,test}.parquet and summary.json to `output`.

    `folder` holds the recipe's files; None reads the recipe's pinned hub data set instead.
    `problems_file` receives every problem as a line of JSON, even if the corpus is refused. `work`
    keeps finished chunks until all are finished; chunks of different `code` are recomputed. `run`
    computes the chunks if there are more than a few MB to read. Equal inputs give equal bytes.

    Returns the summary, and the lines of a summary of the accepted problems and skipped lines.

    Raises CorpusError with the problems if the recipe does not accept them; then `output` does not
    change. With `problems`, all problems are added to it, and the valid rows are written before
    CorpusError is raised.
    """
    _check_source(recipe, folder)
    recipe, detected = recipe.resolve_auto(folder)
    chunks = split_into_chunks(recipe, folder)
    large = sum((chunk.stop or 0) - chunk.start for chunk in chunks) > 2 * CHUNK_BYTES
    shards = [
        Shard(key_of(i, code, recipe, chunk), read_chunk, (recipe, chunk))
        for i, chunk in enumerate(chunks)
    ]
    write_anyway = problems is not None
    with _workspace(work, output) as workspace, atomic_folder(output) as target:
        results = finish(shards, workspace / "chunks", run if large else in_this_process)
        folders = [workspace / "chunks" / shard.key for shard in shards]
        corpus = _Corpus(recipe, chunks, results, folders)
        problems_path = problems_file or workspace / "problems.jsonl"
        with atomic_stream(problems_path, keep_partial=True) as sink:
            problems = Problems(sink=sink) if problems is None else problems
            for path, result in zip(folders, results, strict=True):
                with (path / "problems.jsonl").open(encoding="utf-8") as lines:
                    shutil.copyfileobj(lines, sink)
                problems.merge(**result["problems"])
            duplicates = _find_duplicates(corpus, workspace / "buckets", problems)
            counts = _merge(corpus, duplicates, target)
            _check_splits(corpus, counts, problems)
            _check_files(corpus, problems)
            if folder is not None and corpus.rows:
                READERS[recipe.reader].check_options(recipe.options, recipe.location, problems)
        dropped = corpus.dropped + int(duplicates.sum())
        error = _policy_error(recipe, problems, dropped, corpus.rows + corpus.dropped)
        if error and not write_anyway:
            raise error
        summary = _summary(recipe, counts, problems, dropped) | {"detected": detected}
        rule = detected.get("word_rule")
        summary |= measure_words(corpus.task, target / "train.parquet", rule)
        write_json(target / "summary.json", summary)
    if error:
        raise error
    return summary, _report_lines(problems)


def _check_source(recipe: Recipe, folder: Path | None) -> None:
    """Raise UserError if files are missing (all of them at once), or the recipe has no hub."""
    if folder is None:
        if recipe.hub is None:
            raise UserError(
                f"{recipe.location}: hub is missing; add it, or set a folder as the corpus's source"
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
            _check_files_of(folder / name, matching_files(folder, name), recipe, problems)
    problems.raise_if_any()


def _check_files_of(path: Path, files: Sequence[Path], recipe: Recipe, problems: Problems) -> None:
    """Add the problems of a source of the recipe: a file, a pattern, or a folder of `datasets`."""
    if path.is_dir() and (problem := folder_problem(path)):
        problems.add(str(path), problem, "missing-file")
        return
    for missing in [file for file in files if not file.is_file()] if files else [path]:
        problems.add(
            str(missing),
            f"no such file; download it ({recipe.source}), or correct files in the recipe",
            "missing-file",
        )


@contextmanager
def _workspace(work: Path | None, output: Path) -> Iterator[Path]:
    """The folder of unfinished work: `work`, deleted on success; or a temporary folder."""
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
    """The chunks of a corpus, the results of `read_chunk`, and the folders with their files.

    A row's number counts the kept examples of all chunks, in order: chunk i has the numbers from
    `starts[i]` to `starts[i + 1]`.
    """

    def __init__(
        self,
        recipe: Recipe,
        chunks: Sequence[Chunk],
        results: Sequence[dict[str, Any]],
        folders: Sequence[Path],
    ) -> None:
        self.recipe, self.chunks, self.results, self.folders = recipe, chunks, results, folders
        self.task = task_named(recipe.task)
        kept = [sum(result["kept"].values()) for result in results]
        self.starts = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        self.rows = int(self.starts[-1])
        self.dropped = sum(result["dropped"] for result in results)
        self.with_id = sum(result["with_id"] for result in results)
        self.ids_have_split = False  # see `_find_repeated_ids`
        self._first_numbers: list[int] = []
        rows_so_far = dict.fromkeys(SPLITS, 0)
        for chunk, result in zip(chunks, results, strict=True):
            self._first_numbers.append(rows_so_far[chunk.split])
            rows_so_far[chunk.split] += result["rows"]

    def row_numbers(self) -> Iterator[NDArray[np.int64]]:
        """The numbers of the rows of each chunk."""
        return (np.arange(start, stop) for start, stop in pairwise(self.starts))

    def read(self, index: int, columns: Sequence[str] | None = None) -> pa.Table:
        """Columns of a chunk; None reads all. The ids are those of the output."""
        if columns is not None and "id" in columns:
            columns = list(dict.fromkeys([*columns, "_has_id", "_number"]))
        table = pq.read_table(self.folders[index] / "examples.parquet", columns=columns)
        return self._with_ids(table, index) if "id" in table.column_names else table

    def _with_ids(self, table: pa.Table, index: int) -> pa.Table:
        """The table with ids for rows without; other ids get the split if `ids_have_split`."""
        if pc.all(table["_has_id"]).as_py() and not self.ids_have_split:
            return table
        number = pc.cast(pc.add(table["_number"], self._first_numbers[index]), pa.string())
        ids, new_ids = (
            pc.binary_join_element_wise(self.chunks[index].split, values, "-")
            for values in (table["id"], number)
        )
        ids = pc.if_else(table["_has_id"], ids if self.ids_have_split else table["id"], new_ids)
        return table.set_column(table.schema.get_field_index("id"), "id", ids)

    def sources(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the split whose files have each row, before splits are carved."""
        splits = np.array([SPLITS.index(chunk.split) for chunk in self.chunks])
        return splits[np.searchsorted(self.starts, rows, side="right") - 1]

    def look_up(self, rows: NDArray[np.int64], columns: Sequence[str]) -> dict[int, dict[str, Any]]:
        """Columns of some rows, by row number."""
        result: dict[int, dict[str, Any]] = {}
        rows = np.unique(rows)
        for index in np.unique(np.searchsorted(self.starts, rows, side="right") - 1):
            inside = rows[(rows >= self.starts[index]) & (rows < self.starts[index + 1])]
            table = self.read(int(index), columns).take(inside - self.starts[index])
            result |= dict(zip(inside.tolist(), table.to_pylist(), strict=True))
        return result


class _Check(NamedTuple):
    """The problem of a row that repeats another row.

    `message` is a format string with the row's columns as `{}` and those of the other as `{other}`.
    """

    kind: str
    message: str


_REPEAT = _Check(
    "duplicate-id",
    "id {id!r} is already the id of {other[_where]}; ids must be unique in a split: change one, or "
    "remove id from the rows (or from fields in the recipe's options), so that they are numbered",
)
_CONFLICT = _Check(
    "conflicting-labels",
    "{other[_where]} has the same input with other labels; "
    "correct one of them, or set allow: [conflicting-labels] in the recipe",
)
_SHARED = _Check(
    "shared-row",
    "{other[_where]} has the same input and is in {other[split]}, but splits must not share rows; "
    "remove one of them, or set allow: [shared-row] in the recipe",
)


def _find_duplicates(corpus: _Corpus, folder: Path, problems: Problems) -> NDArray[np.bool_]:
    """Add a problem for each duplicate row. Returns, for each row, whether `drop` drops it."""
    dropped = np.zeros(corpus.rows, bool)
    folder.mkdir()
    if corpus.with_id:
        pairs = _find_repeated_ids(corpus, folder, problems)
        _report(corpus, pairs, _REPEAT, dropped, problems)
    with Buckets(folder / "inputs", corpus.rows) as inputs:
        for index, rows in enumerate(corpus.row_numbers()):
            table, kept = corpus.read(index, ["_input", "_output", "_split"]), ~dropped[rows]
            inputs.add(
                _hashes(table["_input"])[kept],
                rows[kept],
                _hashes(table["_output"])[kept, 0],
                table["_split"].to_numpy()[kept],
            )
        for find, check in ((find_conflicts, _CONFLICT), (find_shared, _SHARED)):
            _report(corpus, inputs.search(find), check, dropped, problems)
    shutil.rmtree(folder)
    return dropped


def _find_repeated_ids(corpus: _Corpus, folder: Path, problems: Problems) -> RowPairs:
    """The rows whose id is that of an earlier row.

    If two splits have the same id, all ids get the name of their split, and a warning is added.
    """
    pairs = _search_ids(corpus, folder / "ids")
    is_in_two_splits = corpus.sources(pairs[:, 0]) != corpus.sources(pairs[:, 1])
    if not is_in_two_splits.any():
        return pairs
    first = pairs[is_in_two_splits][0]
    row, other = (corpus.look_up(first, ("id", "_where"))[number] for number in first.tolist())
    problems.add(
        row["_where"],
        f"id {row['id']!r} is also the id of {other['_where']} in another split, so each id gets "
        "its split as prefix (train-, validation-, test-); use ids that are unique in the corpus "
        "to keep them",
        "id-in-two-splits",
    )
    corpus.ids_have_split = True
    return _search_ids(corpus, folder / "prefixed_ids")


def _search_ids(corpus: _Corpus, folder: Path) -> RowPairs:
    with Buckets(folder, corpus.rows) as ids:
        for index, rows in enumerate(corpus.row_numbers()):
            outputs, splits = np.zeros(len(rows), "u8"), np.zeros(len(rows), "i1")
            ids.add(_id_hashes(corpus, index), rows, outputs, splits)
        return ids.search(find_repeats)


def _id_hashes(corpus: _Corpus, index: int) -> Array:
    """The hashes of a chunk's ids, as in the output."""
    result = corpus.results[index]
    if result["with_id"] == sum(result["kept"].values()) and not corpus.ids_have_split:
        return _hashes(corpus.read(index, ["_id"])["_id"])
    hashes = b"".join(blake2b(id) for id in corpus.read(index, ["id"])["id"].to_pylist())
    return np.frombuffer(hashes, "<u8").reshape(-1, 2)


def _hashes(column: pa.ChunkedArray) -> Array:
    """A column of n hashes as integers [n, size / 8]."""
    width = column.type.byte_width // 8
    values = [
        np.frombuffer(chunk.buffers()[1], "<u8")[
            chunk.offset * width : (chunk.offset + len(chunk)) * width
        ]
        for chunk in column.chunks
    ]
    return np.concatenate([np.empty(0, "<u8"), *values]).reshape(-1, width)


def _report(
    corpus: _Corpus, pairs: RowPairs, check: _Check, dropped: NDArray[np.bool_], problems: Problems
) -> None:
    """Add the problems in the order of the rows, and mark the rows that `drop` drops."""
    columns = ("id", "_where", "_split")
    for start in range(0, len(pairs), LOOKUP_ROWS):
        block = pairs[start : start + LOOKUP_ROWS]
        values = corpus.look_up(block.ravel(), columns)
        for row, other_row in block.tolist():
            other = values[other_row] | {"split": SPLITS[values[other_row]["_split"]]}
            message = check.message.format(**values[row], other=other)
            problems.add(values[row]["_where"], message, check.kind)
    if corpus.recipe.on_problem == "drop" and check.kind not in corpus.recipe.allow:
        dropped[pairs[:, 0]] = True


@dataclass
class _Counts:
    """The numbers of kept rows, tokens and labels by split."""

    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    tokens: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    labels: dict[str, Counter[str]] = field(
        default_factory=lambda: {split: Counter() for split in SPLITS}
    )

    def add(self, result: dict[str, Any]) -> None:
        """Add the result of `read_chunk`."""
        for split in SPLITS:
            self.rows[split] += result["kept"][split]
            self.tokens[split] += result["tokens"][split]
            self.labels[split].update(result["labels"][split])

    def remove(self, split: str, corpus: _Corpus, example: Any) -> None:
        task, labels = corpus.task, corpus.recipe.labels
        self.rows[split] -= 1
        self.tokens[split] -= task.num_tokens(example)
        self.labels[split].subtract(task.declared_labels(example, labels))
        self.labels[split] += Counter()  # removes zeros


def _merge(corpus: _Corpus, dropped: NDArray[np.bool_], target: Path) -> _Counts:
    """Write the Parquet file of each split from the chunks, without dropped rows, and count."""
    counts, bookkeeping = _Counts(), [column.name for column in BOOKKEEPING_COLUMNS]
    with ExitStack() as stack:
        files = [
            stack.enter_context(
                pq.ParquetWriter(
                    target / f"{split}.parquet", corpus.task.schema, compression="zstd"
                )
            )
            for split in SPLITS
        ]
        for index, rows in enumerate(corpus.row_numbers()):
            counts.add(corpus.results[index])
            table, kept = corpus.read(index), ~dropped[rows]
            splits, examples = table["_split"].to_numpy(), table.drop_columns(bookkeeping)
            for row in np.flatnonzero(~kept).tolist():
                record = examples.slice(row, 1).to_pylist()[0]
                counts.remove(SPLITS[splits[row]], corpus, corpus.task.from_record(record))
            for number, file in enumerate(files):
                selected = examples.filter(pa.array(kept & (splits == number)))
                if len(selected):
                    file.write_table(selected, row_group_size=ROW_GROUP_SIZE)
    return counts


def _check_splits(corpus: _Corpus, counts: _Counts, problems: Problems) -> None:
    """Add the problems of whole splits: empty splits, labels and annotations that are missing.

    Under `fail`, splits with rejected rows are not checked, because these may be the cause.
    """
    recipe = corpus.recipe
    incomplete = set()
    if recipe.on_problem == "fail":
        results = zip(corpus.chunks, corpus.results, strict=True)
        incomplete = {chunk.split for chunk, result in results if result["dropped"]}
    complete = [
        split
        for split in SPLITS
        if (split if recipe.files.of(split) else "train") not in incomplete
    ]
    for split in complete:
        if counts.rows[split]:
            _check_annotations(recipe, split, counts, problems)
        else:
            _add_empty_split(corpus, split, counts, problems)
    if "train" in complete:
        _check_unseen_labels(corpus, counts, problems)
    if len(complete) == len(SPLITS):
        _check_unused_labels(recipe, counts, problems)


def _add_empty_split(corpus: _Corpus, split: str, counts: _Counts, problems: Problems) -> None:
    names = corpus.recipe.files.of(split)
    message = (
        f"split {split!r} ({', '.join(names)}) is empty; correct files"
        if names
        else _empty_carved_split_message(corpus, counts, split)
    )
    problems.add(corpus.recipe.location, message, "empty-split", hides=True)


def _check_annotations(recipe: Recipe, split: str, counts: _Counts, problems: Problems) -> None:
    """Add a problem if a split has too few different labels to learn from or to score."""
    task = task_named(recipe.task)
    expected = task.expected_labels(recipe.labels)
    absent = [label for label in expected if not counts.labels[split][label]]
    num_found = len(expected) - len(absent)
    fact = (
        f"split {split!r}: none of the labels ({listed(absent, MAX_LISTED_NAMES)}) occurs in "
        f"{counts.rows[split]} rows, so nothing can be"
    )
    remedy = "correct labels, options or files, or set allow:"
    if expected and split == "train" and num_found < task.min_train_labels:
        problems.add(
            recipe.location,
            f"{fact} learned from it; {remedy} [nothing-to-learn]",
            "nothing-to-learn",
            hides="nothing-to-learn" not in recipe.allow,
        )
    elif expected and split != "train" and not num_found:
        problems.add(
            recipe.location,
            f"{fact} scored on it; {remedy} [nothing-to-score]",
            "nothing-to-score",
            hides="nothing-to-score" not in recipe.allow,
        )


def _check_unseen_labels(corpus: _Corpus, counts: _Counts, problems: Problems) -> None:
    """Add a problem for each label of a held-out split that the training split does not have.

    Labels that are collected from all splits may be new in a held-out split.
    """
    recipe = corpus.recipe
    if corpus.task.collects_labels:
        return
    held_out = set(counts.labels["validation"]) | set(counts.labels["test"])
    for label in sorted(held_out - set(counts.labels["train"])):
        first = (result["first_held_out"].get(label) for result in corpus.results)
        problems.add(
            next(where for where in first if where is not None),
            f"label {label!r} does not occur in the training split, so it cannot be learned; "
            "correct it, or set allow: [unseen-label] in the recipe",
            "unseen-label",
            hides="unseen-label" not in recipe.allow,
        )


def _check_unused_labels(recipe: Recipe, counts: _Counts, problems: Problems) -> None:
    """Warn of the recipe's labels that no split has, or that the test split does not have.

    Labels that only the training split lacks are errors: see `_check_unseen_labels`.
    """
    expected = [
        label
        for label in task_named(recipe.task).expected_labels(recipe.labels)
        if label in recipe.labels
    ]
    found = [label for label in expected if any(c[label] for c in counts.labels.values())]
    is_scored = any(counts.labels["test"][label] for label in expected)
    for label in expected:
        train, test = counts.labels["train"][label], counts.labels["test"][label]
        if label not in found:
            problems.add(
                recipe.location,
                f"label {label!r} never occurs; the corpus has "
                f"{listed(found, MAX_LISTED_NAMES) or 'no label'}: correct the label, or remove it "
                "from labels",
                "unused-label",
            )
        elif train and not test and is_scored:
            problems.add(
                recipe.location,
                f"label {label!r} occurs {train} times in train but never in test, so its score is "
                "unknown; add test rows with this label",
                "unused-label",
            )


def _check_files(corpus: _Corpus, problems: Problems) -> None:
    """Warn of files with a single, long sentence, which may lack boundaries of sentences.

    The check of rows warns of even longer sentences. A file with skipped sentences has several.
    """
    if not isinstance(corpus.task, TagsWords):
        return
    rows, tokens = Counter[str](), Counter[str]()
    for chunk, result in zip(corpus.chunks, corpus.results, strict=True):
        skipped = result["problems"]["skipped"].get(WITHOUT_PREDICATES, 0)
        rows[chunk.name] += result["rows"] + result["dropped"] + skipped
        tokens[chunk.name] += sum(result["tokens"].values())
    for name, count in rows.items():
        if count == 1 and MAX_WORDS_OF_SINGLE_SENTENCE < tokens[name] <= MAX_SENTENCE_WORDS:
            problems.add(
                name,
                f"the whole file is one sentence of {tokens[name]} words; if these are several "
                "sentences, separate them, e.g. by blank lines",
                "long-sentence",
            )


def _empty_carved_split_message(corpus: _Corpus, counts: _Counts, split: str) -> str:
    recipe, num_rows = corpus.recipe, counts.rows["train"]
    groups = {group for result in corpus.results for group in result["groups"]}
    message = f"split {split!r} ({recipe.carved_fraction(split)} of the training split) is empty"
    if len(groups) > 1 or num_rows < 2:
        return f"{message}; correct carve_{split} or seed"
    keys, name = " or ".join(corpus.task.row_keys.inputs), "".join(groups)
    return (
        f"{message}, because all {num_rows} rows are one group, {abbreviate(name, 60)}, "
        f"and a group stays in one split; set split_by in the recipe to another key ({keys}), "
        f"or add a file of the {split} split"
    )


def _policy_error(
    recipe: Recipe, problems: Problems, dropped: int, rows: int
) -> CorpusError | None:
    """The error if the recipe's policy does not accept the problems."""
    refused = {
        kind: count
        for kind, count in problems.counts.items()
        if kind not in WARNINGS and kind not in recipe.allow
    }
    can_drop = (
        recipe.on_problem == "drop"
        and not problems.hiding
        and dropped <= recipe.max_dropped_fraction * rows
    )
    if not refused or can_drop:
        return None
    messages = [f"{where}: {message}" for kind, where, message in problems.kept if kind in refused]
    more = sum(refused.values()) - len(messages)
    if recipe.on_problem == "drop":
        reason = (
            "some problems cannot be fixed by dropping rows (unreadable files or corpus-level "
            "errors)"
            if problems.hiding
            else f"max_dropped is {recipe.max_dropped}"
        )
        messages.insert(
            0,
            f"{recipe.location}: {dropped} of {rows} rows would be dropped, "
            f"but {reason}: correct the corpus",
        )
    return CorpusError(_report_lines(problems), *messages, *([f"and {more} more"] if more else []))


def _report_lines(problems: Problems) -> list[str]:
    """The problems by kind, and what the reader skipped."""
    skipped = problems.skipped_text()
    return [*problems.summary(), *([f"skipped: {skipped}"] if skipped else [])]


def _summary(recipe: Recipe, counts: _Counts, problems: Problems, dropped: int) -> dict[str, Any]:
    """The content of summary.json. `code` is a hash of the task's code for later stages."""
    task = task_named(recipe.task)
    labels = _collected_labels(counts) if task.collects_labels else list(recipe.labels)
    return {
        "name": recipe.name,
        "task": recipe.task,
        "code": code_of(recipe.task),
        "labels": labels,
        "classes": list(task.classes(labels)),
        "words": recipe.words,
        "primary": recipe.metric or task.metric_names[0],
        "license": recipe.license,
        "source": recipe.source,
        "rows": counts.rows,
        "tokens": counts.tokens,
        "label_counts": {split: dict(labels) for split, labels in counts.labels.items()},
        "problems": dict(problems.counts),
        "dropped": dropped,
    }


def _collected_labels(counts: _Counts) -> list[str]:
    """The labels of all splits: the most frequent of the training split first, then by name."""
    train = counts.labels["train"]
    labels = {label for labels in counts.labels.values() for label in labels}
    return sorted(labels, key=lambda label: (-train[label], label))

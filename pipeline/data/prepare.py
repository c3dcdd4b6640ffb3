"""Raw corpora to checked examples: one Parquet file per split, a summary, and all problems.

A corpus is read in independent chunks (`pipeline.data.chunks`). Rows that repeat rows of other
chunks are found on disk (`pipeline.data.repeated_rows`). Then the chunks are merged one by one, so
that no step holds more than one of them in memory.
"""

import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.data.chunked_corpus import ChunkedCorpus
from pipeline.data.chunks import (
    BOOKKEEPING_COLUMNS,
    CHUNK_BYTES,
    ROW_GROUP_SIZE,
    read_chunk,
    split_into_chunks,
)
from pipeline.data.readers import READERS
from pipeline.data.readers.base import matching_files
from pipeline.data.readers.saved_datasets import folder_problem
from pipeline.data.recipe import Recipe
from pipeline.data.repeated_rows import find_repeated_rows
from pipeline.data.split_checks import SplitCounts, check_long_sentences, check_splits
from pipeline.data.word_rules import measure_words
from pipeline.errors import WARNINGS, Problems, UserError, quantity
from pipeline.files import atomic_folder, atomic_stream, write_json
from pipeline.sharding import Executor, Shard, finish, in_this_process, key_of
from pipeline.tasks import code_of, task_named
from pipeline.tasks.base.examples import optional_inputs
from pipeline.tasks.base.row import SPLITS


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

    Returns the summary, and the lines of a summary of the accepted problems, the skipped lines and
    the dropped rows.

    Raises CorpusError with the problems if the recipe does not accept them; then `output` does not
    change. With `problems`, all problems are added to it, and the valid rows are written before
    CorpusError is raised.
    """
    _check_source(recipe, folder)
    recipe, detected = recipe.resolve_auto(folder)
    chunks = split_into_chunks(recipe, folder)
    large = folder is None or sum(chunk.size for chunk in chunks) > 2 * CHUNK_BYTES
    shards = [
        Shard(key_of(i, code, recipe, chunk), read_chunk, (recipe, chunk))
        for i, chunk in enumerate(chunks)
    ]
    reader, write_anyway = READERS[recipe.reader], problems is not None
    with _workspace(work, output) as workspace, atomic_folder(output) as target:
        results = finish(shards, workspace / "chunks", run if large else in_this_process)
        folders = [workspace / "chunks" / shard.key for shard in shards]
        corpus = ChunkedCorpus(recipe, chunks, results, folders)
        problems_path = problems_file or workspace / "problems.jsonl"
        with atomic_stream(problems_path, keep_partial=True) as sink:
            if problems is None:
                problems = Problems(sink=sink, allowed=recipe.allow)
            for path, result in zip(folders, results, strict=True):
                with (path / "problems.jsonl").open(encoding="utf-8") as lines:
                    shutil.copyfileobj(lines, sink)
                problems.merge(**result["problems"])
            duplicates = find_repeated_rows(corpus, workspace / "buckets", problems)
            counts = _merge(corpus, duplicates, target)
            check_splits(corpus, counts, problems)
            check_long_sentences(corpus, problems)
            if folder is not None:
                paths = {Path(chunk.name) for chunk in chunks}
                reader.count_unread_files(recipe.options, paths, problems)
                if corpus.rows:
                    reader.check_options(recipe.options, recipe.location, problems)
        dropped = corpus.dropped + int(duplicates.sum())
        error = _policy_error(recipe, problems, dropped, corpus.rows + corpus.dropped)
        if error and not write_anyway:
            raise error
        summary = _summary(recipe, counts, problems, dropped) | {"detected": detected}
        rule = detected.get("word_rule")
        summary |= measure_words(corpus.task, target / "train.parquet", rule)
        summary["optional_inputs"] = optional_inputs(target / "train.parquet", corpus.task)
        write_json(target / "summary.json", summary)
    if error:
        raise error
    dropped_line = dropped_text(recipe, summary)
    return summary, [*_report_lines(problems), *filter(None, [dropped_line])]


def dropped_text(recipe: Recipe, summary: Mapping[str, Any]) -> str:
    """The number of dropped rows and the limit; empty if the recipe drops none."""
    dropped = summary["dropped"]
    if not dropped or recipe.on_problem != "drop":
        return ""
    rows = dropped + sum(summary["rows"].values())
    percentage = 100 * dropped / rows
    return (
        f"dropped {dropped} of {quantity(rows, 'row')} "
        f"({percentage:{'.1f' if percentage >= 1 else '.2g'}} %; "
        f"max_dropped allows {100 * recipe.max_dropped_fraction:g} %)"
    )


def _check_source(recipe: Recipe, folder: Path | None) -> None:
    """Raise UserError if files are missing (all of them at once), or the recipe has no hub."""
    if folder is None:
        if recipe.hub is None:
            raise UserError(
                f"{recipe.location}: hub is missing; add it, or set a folder as the corpus's "
                "source in params.yaml (--folder of `deep-prompt check`)"
            )
        return
    problems = Problems()
    if folder.is_file():
        problems.add(
            str(folder),
            f"is a file; give the folder of the corpus {recipe.name!r}, in which the recipe names "
            "the files",
            "missing-file",
        )
    elif not folder.is_dir():
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


def _merge(corpus: ChunkedCorpus, dropped: NDArray[np.bool_], target: Path) -> SplitCounts:
    """Write the Parquet file of each split from the chunks, without dropped rows, and count."""
    counts, bookkeeping = SplitCounts(), [column.name for column in BOOKKEEPING_COLUMNS]
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
            f"{recipe.location}: {dropped} of {quantity(rows, 'row')} would be dropped, "
            f"but {reason}: correct the corpus",
        )
    return CorpusError(_report_lines(problems), *messages, *([f"and {more} more"] if more else []))


def _report_lines(problems: Problems) -> list[str]:
    """The problems by kind, and what the reader skipped."""
    skipped = problems.skipped_text()
    return [*problems.summary(), *([f"skipped: {skipped}"] if skipped else [])]


def _summary(
    recipe: Recipe, counts: SplitCounts, problems: Problems, dropped: int
) -> dict[str, Any]:
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
        "rows": counts.rows,
        "tokens": counts.tokens,
        "label_counts": {split: dict(labels) for split, labels in counts.labels.items()},
        "problems": dict(problems.counts),
        "dropped": dropped,
    }


def _collected_labels(counts: SplitCounts) -> list[str]:
    """The labels of all splits: the most frequent of the training split first, then by name."""
    train = counts.labels["train"]
    labels = {label for labels in counts.labels.values() for label in labels}
    return sorted(labels, key=lambda label: (-train[label], label))

"""Rows of a corpus that repeat an id or an input of another row."""

import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.data.chunked_corpus import ChunkedCorpus
from pipeline.data.chunks import blake2b
from pipeline.data.duplicates import (
    Array,
    Buckets,
    RowPairs,
    find_conflicts,
    find_repeats,
    find_shared,
)
from pipeline.errors import Problems
from pipeline.tasks.base.row import SPLITS, RowKeys

LOOKUP_ROWS = 50_000  # rows to look up at once, which limits memory


class _Check(NamedTuple):
    """The problem of a row that repeats another row.

    `message` is a format string: the names are the row's columns, `other` has those of the other
    row, and `join` is from `_join`.
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
    "correct one of them{join}, or set allow: [conflicting-labels] in the recipe",
)
_SHARED = _Check(
    "shared-row",
    "{other[_where]} has the same input and is in {other[split]}, but splits must not share rows; "
    "remove one of them, or set allow: [shared-row] in the recipe",
)


def find_repeated_rows(
    corpus: ChunkedCorpus, folder: Path, problems: Problems
) -> NDArray[np.bool_]:
    """Add a problem for each duplicate row. Returns, for each row, whether `drop` drops it."""
    dropped = np.zeros(corpus.rows, bool)
    folder.mkdir()
    if corpus.with_id:
        pairs = _find_repeated_ids(corpus, folder, problems)
        _report(corpus, pairs, _REPEAT, dropped, problems)
    with Buckets(folder / "inputs", corpus.rows) as inputs:
        for index, rows in enumerate(corpus.row_numbers()):
            table = corpus.read(index, ["_input", "_output", "_split"])
            inputs.add(
                _hashes(table["_input"]),
                rows,
                _hashes(table["_output"])[:, 0],
                table["_split"].to_numpy(),
            )
        for find, check in ((find_shared, _SHARED), (find_conflicts, _CONFLICT)):
            _report(corpus, inputs.search(find, dropped), check, dropped, problems)
    shutil.rmtree(folder)
    return dropped


def _find_repeated_ids(corpus: ChunkedCorpus, folder: Path, problems: Problems) -> RowPairs:
    """The rows whose id is that of an earlier row.

    If two splits have the same id, all ids get the name of their split, and a warning is added. If
    the id of a row without one would be that of another row, such ids get another form.
    """
    pairs = _search_ids(corpus, folder / "ids")
    is_in_two_splits = corpus.sources(pairs[:, 0]) != corpus.sources(pairs[:, 1])
    if is_in_two_splits.any():
        _add_id_in_two_splits(corpus, pairs[is_in_two_splits][0], problems)
        corpus.ids_have_split = True
        pairs = _search_ids(corpus, folder / "prefixed_ids")
    while len(pairs) and not _have_ids(corpus)[pairs].all():
        corpus.number_prefix += "-"
        pairs = _search_ids(corpus, folder / f"ids{corpus.number_prefix}")
    return pairs


def _add_id_in_two_splits(
    corpus: ChunkedCorpus, pair: NDArray[np.int64], problems: Problems
) -> None:
    rows = corpus.look_up(pair, ("id", "_where", "_has_id"))
    row, other = sorted((rows[number] for number in pair.tolist()), key=lambda r: not r["_has_id"])
    problems.add(
        row["_where"],
        f"id {row['id']!r} is also the {'' if other['_has_id'] else 'new '}id of {other['_where']} "
        "in another split, so each id gets its split as prefix (train-, validation-, test-); use "
        "ids that are unique in the corpus to keep them",
        "id-in-two-splits",
    )


def _have_ids(corpus: ChunkedCorpus) -> NDArray[np.bool_]:
    """For each row, whether it has an id in its file."""
    columns = (corpus.read(index, ["_has_id"])["_has_id"] for index in range(len(corpus.chunks)))
    return np.concatenate([column.to_numpy() for column in columns])


def _search_ids(corpus: ChunkedCorpus, folder: Path) -> RowPairs:
    with Buckets(folder, corpus.rows) as ids:
        for index, rows in enumerate(corpus.row_numbers()):
            outputs, splits = np.zeros(len(rows), "u8"), np.zeros(len(rows), "i1")
            ids.add(_id_hashes(corpus, index), rows, outputs, splits)
        return ids.search(find_repeats, np.zeros(corpus.rows, bool))


def _id_hashes(corpus: ChunkedCorpus, index: int) -> Array:
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


def _join(keys: RowKeys) -> str:
    """The remedy for two rows with one input, if a row of the task may have several targets."""
    several = [key for key in keys.targets if key in ("answers", "references")]
    return f", put the {several[0]} of both in one row" if several else ""


def _report(
    corpus: ChunkedCorpus,
    pairs: RowPairs,
    check: _Check,
    dropped: NDArray[np.bool_],
    problems: Problems,
) -> None:
    """Add the problems in the order of the rows, and mark the rows that `drop` drops."""
    columns, join = ("id", "_where", "_split"), _join(corpus.task.row_keys)
    for start in range(0, len(pairs), LOOKUP_ROWS):
        block = pairs[start : start + LOOKUP_ROWS]
        values = corpus.look_up(block.ravel(), columns)
        for row, other_row in block.tolist():
            other = values[other_row] | {"split": SPLITS[values[other_row]["_split"]]}
            message = check.message.format(**values[row], other=other, join=join)
            problems.add(values[row]["_where"], message, check.kind)
    if corpus.recipe.on_problem == "drop" and check.kind not in corpus.recipe.allow:
        dropped[pairs[:, 0]] = True

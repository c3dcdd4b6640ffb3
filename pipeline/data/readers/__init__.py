"""From a corpus's own files to rows: one module per format, listed here by the name that recipes use."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.data.readers import (
    conll_columns,
    conll_props,
    mrqa_jsonl,
    records,
    squad_json,
    superglue,
)
from pipeline.data.readers.base import Source
from pipeline.data.readers.hub import ToRow
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row

Cut = Literal["lines", "blank lines"] | None


def _always(*keys: str) -> Callable[[Any], frozenset[str]]:
    return lambda options: frozenset(keys)


def _at(place: Cut) -> Callable[[Path, Any], Cut]:
    return lambda path, options: place


def _nothing_auto(options: Any, files: Iterable[Source]) -> tuple[Any, dict[str, Any]]:
    return options, {}


class Reader(NamedTuple):
    """A format: the frozen dataclass of its options, and `read(path, options, problems)`, a generator of rows.

    Every row has `keys(options)`. `read` does not stop at what is wrong: it adds a problem, leaves that row out and goes on. A
    format whose records may also come from the hub has `row`, which makes the row of one. `cut(path, options)` says where the
    file, if it is not compressed, may be cut so that its stretches give the same rows as the whole, and then `read` takes a
    Slice too. `companion_files(path, options)` are other files that are read with it. `resolve_auto(options, files)` gives the options with
    what all files of a corpus say where they are auto, and what that is, by name; `read` takes no others.
    """

    options: type
    keys: Callable[[Any], frozenset[str]]
    read: Callable[[Any, Any, Problems], Iterator[Row]]
    row: ToRow | None = None
    cut: Callable[[Path, Any], Cut] = _at(None)
    companion_files: Callable[[Path, Any], list[Path]] = lambda path, options: []
    resolve_auto: Callable[[Any, Iterable[Source]], tuple[Any, dict[str, Any]]] = _nothing_auto


READERS: dict[str, Reader] = {
    "conll_columns": Reader(
        conll_columns.Options,
        _always("tokens", "tags"),
        conll_columns.read,
        None,
        _at("blank lines"),
        resolve_auto=conll_columns.resolve_auto,
    ),
    "conll_props": Reader(
        conll_props.Options,
        _always("tokens", "predicate", "tags"),
        conll_props.read,
        None,
        lambda path, options: None if options.words else "blank lines",
        conll_props.companion_files,
    ),
    "mrqa_jsonl": Reader(
        mrqa_jsonl.Options,
        _always("id", "question", "context", "answers"),
        mrqa_jsonl.read,
        None,
        _at("lines"),
    ),
    "records": Reader(
        records.Options,
        records.keys,
        records.read,
        records.row,
        records.cut,
        resolve_auto=records.resolve_auto,
    ),
    "squad_json": Reader(
        squad_json.Options, _always("id", "question", "context", "answers"), squad_json.read
    ),
    "superglue": Reader(
        superglue.Options, superglue.keys, superglue.read, superglue.row, _at("lines")
    ),
}

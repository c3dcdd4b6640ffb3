"""Readers convert a corpus's files to rows: one module per format, by its name in recipes."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipeline.data.readers import (
    conll_columns,
    conll_props,
    e2e_csv,
    mrqa_jsonl,
    offsets,
    parallel_lines,
    records,
    squad_json,
    superglue,
    token_spans,
    trex_jsonl,
    webnlg_xml,
    woz_json,
)
from pipeline.data.readers.base import Source
from pipeline.data.readers.hub import ToRow
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row, RowKeys

ChunkBoundary = Literal["lines"] | tuple[str, ...] | None
"""Where a file can be split: between any two lines; or after blank lines and lines that begin with
one of these texts; or nowhere."""


def _always(*keys: str) -> Callable[[Any], frozenset[str]]:
    return lambda options: frozenset(keys)


def _at(boundary: ChunkBoundary) -> Callable[[Path, Any], ChunkBoundary]:
    return lambda path, options: boundary


def _for_any_task(options: Any, keys: RowKeys) -> Any:
    return options


def _no_auto(options: Any, files: Iterable[Source]) -> tuple[Any, dict[str, Any]]:
    return options, {}


def _nothing_to_check(options: Any, where: str, problems: Problems) -> None:
    pass


def _no_unread_files(options: Any, files: Iterable[Path], problems: Problems) -> None:
    pass


class Reader(NamedTuple):
    """A format.

    - `options` is the frozen dataclass of its options.
    - `keys(options)` are the keys of all its rows, or of the rows of all tasks if they depend on
      the task; `optional_keys` are the keys of only some rows.
    - `for_task(options, keys)` returns the options for a task with these keys, for a format whose
      keys depend on the task; it raises ValueError if they do not fit. The functions below take
      these options.
    - `read(path, options, problems)` is a generator of rows. It does not stop at an error: it adds
      a problem, skips the row and continues. It does not accept options with auto.
    - `row` makes a row of a record, if records may also come from the hub.
    - `chunk_boundary(path, options)` is the boundary at which an uncompressed file can be split
      without a change of its rows; `read` then also accepts a Slice. None: it cannot be split.
    - `companion_files(path, options)` are the other files that belong to a file.
    - `resolve_auto(options, files)` replaces each auto in the options by the value detected in all
      files of a corpus. It returns the options and the detected values by name.
    - `check_options(options, where, problems)` adds a problem for each option that matches nothing
      in all files of a corpus. `problems` has what `read` skipped and found there.
    - `count_unread_files(options, files, problems)` counts, as skipped, the files beside the files
      of a corpus that should belong to one of them, but do not.
    """

    options: type
    keys: Callable[[Any], frozenset[str]]
    read: Callable[[Any, Any, Problems], Iterator[Row]]
    row: ToRow | None = None
    chunk_boundary: Callable[[Path, Any], ChunkBoundary] = _at(None)
    companion_files: Callable[[Path, Any], list[Path]] = lambda path, options: []
    resolve_auto: Callable[[Any, Iterable[Source]], tuple[Any, dict[str, Any]]] = _no_auto
    for_task: Callable[[Any, RowKeys], Any] = _for_any_task
    check_options: Callable[[Any, str, Problems], None] = _nothing_to_check
    count_unread_files: Callable[[Any, Iterable[Path], Problems], None] = _no_unread_files
    optional_keys: frozenset[str] = frozenset()


READERS: dict[str, Reader] = {
    "conll_columns": Reader(
        conll_columns.Options,
        _always("tokens", "tags"),
        conll_columns.read,
        None,
        lambda path, options: options.layout.boundaries,
        resolve_auto=conll_columns.resolve_auto,
        check_options=conll_columns.check_options,
    ),
    "conll_props": Reader(
        conll_props.Options,
        conll_props.keys,
        conll_props.read,
        None,
        lambda path, options: None if options.words else options.layout.boundaries,
        conll_props.companion_files,
        check_options=conll_props.check_options,
    ),
    "e2e_csv": Reader(e2e_csv.Options, _always("source", "references"), e2e_csv.read),
    "mrqa_jsonl": Reader(
        mrqa_jsonl.Options,
        _always("id", "question", "context", "answers"),
        mrqa_jsonl.read,
        None,
        _at("lines"),
    ),
    "offsets": Reader(
        offsets.Options,
        offsets.keys,
        offsets.read,
        None,
        offsets.chunk_boundary,
        offsets.companion_files,
        resolve_auto=offsets.resolve_auto,
        for_task=offsets.for_task,
        check_options=offsets.check_options,
        count_unread_files=offsets.count_unread_files,
        optional_keys=frozenset({"id", "title"}),
    ),
    "parallel_lines": Reader(
        parallel_lines.Options,
        _always("tokens", "tags", "intent"),
        parallel_lines.read,
        companion_files=parallel_lines.companion_files,
    ),
    "records": Reader(
        records.Options,
        records.keys,
        records.read,
        records.row,
        records.chunk_boundary,
        resolve_auto=records.resolve_auto,
        for_task=records.for_task,
        check_options=records.check_options,
    ),
    "squad_json": Reader(
        squad_json.Options,
        _always("id", "question", "context", "answers"),
        squad_json.read,
        optional_keys=frozenset({"title"}),
    ),
    "superglue": Reader(
        superglue.Options, superglue.keys, superglue.read, superglue.row, _at("lines")
    ),
    "token_spans": Reader(
        token_spans.Options,
        _always("tokens", "tags"),
        token_spans.read,
        None,
        token_spans.chunk_boundary,
        check_options=token_spans.check_options,
        optional_keys=frozenset({"id"}),
    ),
    "trex_jsonl": Reader(
        trex_jsonl.Options,
        _always("subject", "relation", "object", "template"),
        trex_jsonl.read,
        companion_files=trex_jsonl.companion_files,
        check_options=trex_jsonl.check_options,
        optional_keys=frozenset({"paraphrases"}),
    ),
    "webnlg_xml": Reader(
        webnlg_xml.Options,
        _always("source", "references"),
        webnlg_xml.read,
        check_options=webnlg_xml.check_options,
        optional_keys=frozenset({"subset"}),
    ),
    "woz_json": Reader(
        woz_json.Options,
        _always("system", "user", "labels"),
        woz_json.read,
        check_options=woz_json.check_options,
        optional_keys=frozenset({"id", "title"}),
    ),
}

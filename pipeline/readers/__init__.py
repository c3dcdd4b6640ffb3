"""From a corpus's own files to rows: one module per format, listed here by the name that recipes use."""

from collections.abc import Callable, Iterator
from typing import Any, Literal, NamedTuple

from pipeline.errors import Problems
from pipeline.readers import conll2012_props, conll_columns, jsonl, qa_jsonl, squad_json, superglue
from pipeline.readers.base import Row
from pipeline.readers.hub import ToRow


class Reader(NamedTuple):
    """A format: the frozen dataclass of its options, and `read(path, options, problems)`, a generator of rows.

    Every row has `keys(options)`. `read` does not stop at what is wrong: it adds a problem, leaves that row out and goes on. A
    format whose records may also come from the hub has `row`, which makes the row of one. A file may be `cut` between lines, or
    at blank lines, where its stretches give the same rows as the whole; then `read` takes a Slice too.
    """

    options: type
    keys: Callable[[Any], frozenset[str]]
    read: Callable[[Any, Any, Problems], Iterator[Row]]
    row: ToRow | None = None
    cut: Literal["lines", "blank lines"] | None = None


def _always(*keys: str) -> Callable[[Any], frozenset[str]]:
    return lambda options: frozenset(keys)


READERS: dict[str, Reader] = {
    "conll_columns": Reader(conll_columns.Options, _always("tokens", "tags"), conll_columns.read, cut="blank lines"),
    "conll2012_props": Reader(conll2012_props.Options, _always("tokens", "predicate", "tags"), conll2012_props.read,
                              cut="blank lines"),
    "jsonl": Reader(jsonl.Options, jsonl.keys, jsonl.read, jsonl.row, "lines"),
    "qa_jsonl": Reader(qa_jsonl.Options, _always("question", "context", "answers"), qa_jsonl.read, cut="lines"),
    "squad_json": Reader(squad_json.Options, _always("question", "context", "answers"), squad_json.read),
    "superglue": Reader(superglue.Options, superglue.keys, superglue.read, superglue.row, "lines"),
}

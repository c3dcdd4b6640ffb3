"""From a corpus's own files to rows: one module per format, listed here by the name that recipes use."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import Problems
from pipeline.readers import conll2012_props, conll_columns, qa_jsonl, squad_json
from pipeline.readers.base import Row


class Reader(NamedTuple):
    """A format: the frozen dataclass of its options, and `read(path, options, problems)`, a generator of rows.

    `read` does not stop at what is wrong: it adds a problem, leaves that row out and goes on.
    """

    options: type
    read: Callable[[Path, Any, Problems], Iterator[Row]]


READERS: dict[str, Reader] = {
    "conll_columns": Reader(conll_columns.Options, conll_columns.read),
    "conll2012_props": Reader(conll2012_props.Options, conll2012_props.read),
    "qa_jsonl": Reader(qa_jsonl.Options, qa_jsonl.read),
    "squad_json": Reader(squad_json.Options, squad_json.read),
}

"""The E2E challenge: CSV with a meaning representation (`mr`) and one reference (`ref`) per row.

All references of a meaning representation make one row, wherever they are in the file.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.data.readers.base import Source
from pipeline.data.readers.tables import Dialect, records
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row

_DIALECT = Dialect(delimiter=None, columns=(), quote="double")


@dataclass(frozen=True)
class Options:
    """The names of the two columns."""

    mr: str = "mr"
    ref: str = "ref"


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `source` and `references`, in the order of the first reference of each source.

    The rows of a file are in memory at once.
    """
    rows: dict[str, Row] = {}
    columns = (options.mr, options.ref)
    for where, record in records(Path(str(source)), "csv", columns, _DIALECT, problems):
        text, reference = record[options.mr], record[options.ref]
        row = rows.setdefault(text, {"where": where, "source": text, "references": []})
        row["references"].append(reference)
    yield from rows.values()

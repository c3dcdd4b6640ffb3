"""A feature table without some of its examples, for example without leaked training rows."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.features.table import Table
from pipeline.seeding import Ints


class FeatureSubset:
    """The `Table` of the rows of `table` whose example indices are not in `excluded`.

    The rows are numbered from 0.
    """

    def __init__(self, table: Table, excluded: Sequence[int] | Ints) -> None:
        self.path = table.path
        self._table = table
        self._rows = np.flatnonzero(~np.isin(table.examples, np.asarray(excluded, dtype=np.int64)))
        self.lengths, self.label_counts, self.examples = (
            column[self._rows] for column in (table.lengths, table.label_counts, table.examples)
        )
        self.tokens, self.longest = int(self.lengths.sum()), int(self.lengths.max(initial=0))

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str, row: int) -> NDArray[Any]:
        """The list column `name` of one row, without a copy."""
        return self._table.column(name, int(self._rows[row]))

"""Some rows of a feature table, as if they were all: what a mixture trains on, without the rows that leak."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.features.table import FeatureTable
from pipeline.seeding import Ints


class Subset(FeatureTable):
    """The windows of all examples but those with the numbers `without`; they are numbered anew, from 0."""

    def __init__(self, table: FeatureTable, without: Sequence[int] | Ints) -> None:
        self.path = table.path
        self._whole = table
        self._rows = np.flatnonzero(~np.isin(table.examples, np.asarray(without, dtype=np.int64)))
        self.lengths, self.label_counts, self.examples = (
            column[self._rows] for column in (table.lengths, table.label_counts, table.examples)
        )
        self.tokens, self.longest = int(self.lengths.sum()), int(self.lengths.max(initial=0))

    def __len__(self) -> int:
        return len(self._rows)

    def column(self, name: str, row: int) -> NDArray[Any]:
        """One list column of one row, without a copy."""
        return self._whole.column(name, int(self._rows[row]))

"""Checks of a feature table: the score of a perfect model, and the share of unknown tokens."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.features.table import LIST_COLUMNS, FeatureTable, rows_of_examples
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.examples import read_examples
from pipeline.tasks.base.feature_checks import FeatureChecks, FeatureReport
from pipeline.tasks.base.features import Feature
from pipeline.tasks.base.task import Task

MAX_CHECKED_ROWS = 2000  # of a split, at equal distances
ROWS_PER_BLOCK = 256


def check_table(
    examples: Path,
    table: FeatureTable,
    task: Task[Any, Any, Any],
    classes: Sequence[str],
    primary: str,
    tokenizer: Tokenizer,
) -> FeatureReport:
    """Check the features of a split, of at most `MAX_CHECKED_ROWS` examples at equal distances.

    `examples` is the Parquet file of the split.
    """
    total = int(table.examples[-1]) + 1 if len(table) else 0
    sample = np.arange(0, total, max(1, -(-total // MAX_CHECKED_ROWS)))
    rows_of_sample = rows_of_examples(table, sample)
    checks = FeatureChecks(task, classes, primary, tokenizer)
    rows = read_examples(examples, task, sample)
    for first in range(0, len(sample), ROWS_PER_BLOCK):
        block = rows_of_sample[first : first + ROWS_PER_BLOCK]
        windows = [[_feature(table, row) for row in rows_of_example] for rows_of_example in block]
        checks.add(list(islice(rows, len(block))), windows)
    return checks.report()


def _feature(table: FeatureTable, row: int) -> Feature:
    columns: dict[str, Any] = {name: table.column(name, row) for name in LIST_COLUMNS}
    return Feature(int(table.examples[row]), label_count=int(table.label_counts[row]), **columns)

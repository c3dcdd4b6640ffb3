"""Splits of a task on disk: examples and their features."""

from functools import partial
from pathlib import Path
from typing import Any

from pipeline.evaluation.evaluate import EvalSet, sample_eval_set
from pipeline.features.table import FeatureTable
from pipeline.tasks import task_of_summary
from pipeline.tasks.base.examples import read_examples

SUBSET_SEED = 7  # independent of the run's seed: all runs are scored on the same examples


def load_eval_set(
    features: Path, examples: Path, summary: dict[str, Any], split: str, limit: int | None
) -> EvalSet:
    """Load at most `limit` examples of a split (None: all) with their features.

    `features` and `examples` are the folders of the task; `summary` is the content of the
    summary.json of `features`.
    """
    task = task_of_summary(summary)
    read = partial(read_examples, examples / f"{split}.parquet", task)
    return sample_eval_set(
        read, FeatureTable(features / split), task, tuple(summary["classes"]), limit, SUBSET_SEED
    )

"""A split of a task as it lies on disk: its examples and their features."""

from functools import partial
from pathlib import Path
from typing import Any

from pipeline.evaluate import Split, choose
from pipeline.examples import read_examples
from pipeline.features import FeatureTable
from pipeline.tasks import task_named

SUBSET_SEED = 7  # not the run's seed: runs with other seeds are scored on the same examples


def load_split(features: Path, examples: Path, summary: dict[str, Any], split: str, limit: int | None) -> Split:
    """Some (or all) examples of a split with their features."""
    task = task_named(summary["task"])
    read = partial(read_examples, examples / f"{split}.parquet", task)
    return choose(read, FeatureTable(features / split), task, tuple(summary["classes"]), limit, SUBSET_SEED)

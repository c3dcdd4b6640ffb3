"""A sample of predictions as texts, beside their annotations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.evaluation.evaluate import EvalSet
from pipeline.tasks.base.capabilities import Sample, ShowsSamples


def prediction_samples(split: EvalSet, predictions: Sequence[Any]) -> pd.DataFrame | None:
    """The samples of examples at equal distances, each with its `id`.

    The examples are the same for all models. None if the task has no samples.
    """
    task = split.task
    if not isinstance(task, ShowsSamples):
        return None
    count = len(split.examples)
    rows = np.linspace(0, count, min(task.num_samples, count), endpoint=False).astype(int)
    return pd.DataFrame(
        [
            (f"{split.examples[row].id}/{part}", *sample)
            for row in rows.tolist()
            for part, sample in enumerate(task.samples(split.examples[row], predictions[row]))
        ],
        columns=["id", *Sample._fields],
    )

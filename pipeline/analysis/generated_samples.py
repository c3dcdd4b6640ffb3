"""A sample of generated texts, with their sources and references."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from pipeline.evaluation.evaluate import EvalSet
from pipeline.tasks.base.capabilities import GeneratesText

NUM_SAMPLES = 10
MAX_REFERENCES = 3  # of a text
COLUMNS = ("id", "source", "references", "text")


def generated_samples(split: EvalSet, texts: Sequence[str]) -> pd.DataFrame | None:
    """`NUM_SAMPLES` texts at equal distances; None if the task does not generate text.

    The examples are the same for all models. `references` has the first of them, with " / "
    between them.
    """
    task = split.task
    if not isinstance(task, GeneratesText):
        return None
    count = len(split.examples)
    rows = np.linspace(0, count, min(NUM_SAMPLES, count), endpoint=False).astype(int)
    return pd.DataFrame(
        [
            (
                split.examples[row].id,
                task.source(split.examples[row]),
                " / ".join(task.references(split.examples[row])[:MAX_REFERENCES]),
                texts[row],
            )
            for row in rows.tolist()
        ],
        columns=list(COLUMNS),
    )

"""A split's final predictions taken apart: which decisions they took, how sure of each, and what
they claim, right or wrong.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.analysis.calibration import Decisions, gather
from pipeline.evaluation.evaluate import EvalSet
from pipeline.tasks.base.capabilities import HasConfidence
from pipeline.tasks.base.claims import Claim, Floats

RAW, CALIBRATED = "raw", "calibrated"


def in_order(examples: Sequence[Any], predictions: Any) -> Iterator[Any]:
    """Each example's prediction, out of what a task's `predictions` returns: a mapping of ids, or a
    list.
    """
    yield from (
        (predictions[example.id] for example in examples)
        if isinstance(predictions, Mapping)
        else predictions
    )


def collect_decisions(
    task: HasConfidence[Any],
    split: EvalSet,
    predictions: Any,
    options: Sequence[Floats],
    thresholds: Mapping[str, float],
) -> Decisions:
    """The decisions of all examples, in order, under the thresholds that the predictions were made
    with.
    """
    taken, right = list[int](), list[bool]()
    for example, prediction in zip(
        split.examples, in_order(split.examples, predictions), strict=True
    ):
        found = task.decisions(example, prediction, split.classes)
        taken += found[0]
        right += found[1]
    return gather([task.apply_thresholds(one, thresholds) for one in options], taken, right)


def confidence_tables(
    task: HasConfidence[Any],
    split: EvalSet,
    predictions: Any,
    decisions: Decisions,
    thresholds: Mapping[str, float],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """How sure the model was, before and after calibration, and its claims.

    First a table of `kind` (as the task names claims and decisions), `raw`, `calibrated`, `right`:
    a claim is as sure as its least sure decision. Then a table of claims, what was left out among
    them (`calibrated` is NaN).
    """
    names, decision_name = task.claim_and_decision_names
    sure = {
        RAW: decisions.confidence(),
        CALIBRATED: decisions.confidence(thresholds.get("temperature", 1.0)),
    }
    claims = pd.DataFrame(
        _claims(task, split, predictions, sure),
        columns=["id", "text", *Claim._fields[1:], RAW, CALIBRATED],
    )
    claims = claims.astype(
        {"right": bool, RAW: float, CALIBRATED: float}
    )  # also where there is none
    said = claims[claims[CALIBRATED].notna()]
    tables = [
        pd.DataFrame({"kind": names, **{name: said[name] for name in (RAW, CALIBRATED, "right")}})
    ]
    if decision_name != names:
        tables.append(pd.DataFrame({"kind": decision_name, **sure, "right": decisions.right}))
    return pd.concat(tables, ignore_index=True), claims.drop(columns=RAW)


def _claims(
    task: HasConfidence[Any], split: EvalSet, predictions: Any, sure: Mapping[str, Floats]
) -> Iterator[tuple[Any, ...]]:
    first = 0
    for example, prediction in zip(
        split.examples, in_order(split.examples, predictions), strict=True
    ):
        for claim in task.claims(example, prediction):
            place = [first + number for number in claim.decisions]
            least = [
                float(np.min(values[place], initial=1.0)) if claim.predicted else np.nan
                for values in sure.values()
            ]
            yield (example.id, _shown(example, split.task.inputs), *claim[1:], *least)
        first += len(task.decisions(example, prediction, split.classes)[0])


def _shown(example: Any, inputs: Sequence[str]) -> str:
    """What the model was shown, on a line."""
    found = []
    for name in inputs:
        value = getattr(example, name)
        if isinstance(value, int):
            found.append(f"{name} {value}")
        elif isinstance(value, str):
            found.append(value)
        elif all(isinstance(word, str) for word in value):
            found.append(" ".join(value))
    return " · ".join(filter(None, found))

"""Tables of the decisions and claims in final predictions, with confidence and correctness."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from pipeline.analysis.calibration import Decisions, gather
from pipeline.evaluation.evaluate import EvalSet
from pipeline.tasks.base.capabilities import HasConfidence
from pipeline.tasks.base.claims import CharacterSpans, Claim, Floats, temperature_of
from pipeline.tasks.base.task import in_order

RAW, CALIBRATED = "raw", "calibrated"


def collect_decisions(
    task: HasConfidence[Any],
    split: EvalSet,
    predictions: Any,
    decision_logits: Sequence[Floats],
    thresholds: Mapping[str, float],
) -> Decisions:
    """The decisions of all examples, in order.

    `decision_logits` has one array per example. `thresholds` are those of `predictions`.
    """
    taken, right = list[int](), list[bool]()
    for example, prediction in zip(
        split.examples, in_order(split.examples, predictions), strict=True
    ):
        example_taken, example_right = task.decisions(example, prediction, split.classes)
        taken += example_taken
        right += example_right
    logits = [task.apply_thresholds(values, thresholds) for values in decision_logits]
    return gather(logits, taken, right)


def confidence_tables(
    task: HasConfidence[Any],
    split: EvalSet,
    predictions: Any,
    decisions: Decisions,
    thresholds: Mapping[str, float],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The confidence before and after calibration, and the claims.

    The first table has the columns `kind` (the task's name for claims or decisions), `raw`,
    `calibrated` and `right`. The confidence of a claim is the lowest among its decisions. The
    second table has the claims, including missed ones (`calibrated` is NaN). Its `gold_spans` and
    `predicted_spans` are characters of its `text`.
    """
    claim_name, decision_name = task.claim_and_decision_names
    confidences = {
        RAW: decisions.confidence(),
        CALIBRATED: decisions.confidence(temperature_of(thresholds)),
    }
    claims = pd.DataFrame(
        _claims(task, split, predictions, confidences),
        columns=["id", "text", *Claim._fields[1:], RAW, CALIBRATED],
    )
    # An empty table needs these types, too.
    claims = claims.astype({"right": bool, RAW: float, CALIBRATED: float})
    predicted = claims.loc[claims[CALIBRATED].notna(), [RAW, CALIBRATED, "right"]]
    tables = [pd.DataFrame({"kind": claim_name, **predicted})]
    if decision_name != claim_name:
        tables.append(
            pd.DataFrame({"kind": decision_name, **confidences, "right": decisions.right})
        )
    return pd.concat(tables, ignore_index=True), claims.drop(columns=RAW)


def _claims(
    task: HasConfidence[Any], split: EvalSet, predictions: Any, confidences: Mapping[str, Floats]
) -> Iterator[tuple[Any, ...]]:
    first = 0
    for example, prediction in zip(
        split.examples, in_order(split.examples, predictions), strict=True
    ):
        for claim in task.claims(example, prediction):
            indices = [first + number for number in claim.decisions]
            lowest = [
                float(np.min(values[indices], initial=1.0)) if claim.predicted else np.nan
                for values in confidences.values()
            ]
            text, shift = _input_text(task, example)
            placed = (_shifted(spans, shift) for spans in (claim.gold_spans, claim.predicted_spans))
            yield (example.id, text, *claim[1:-2], *placed, *lowest)
        first += len(task.decisions(example, prediction, split.classes)[0])


def _shifted(spans: CharacterSpans, shift: int) -> list[list[int]]:
    return [[start + shift, end + shift] for start, end in spans]


def _input_text(task: HasConfidence[Any], example: Any) -> tuple[str, int]:
    """The texts of an example on one line, and the offset of the task's `claim_input` in it."""
    line, shift = "", 0
    for name, text in task.input_texts(example):
        if text:
            line += " · " if line else ""
            shift = len(line) if name == task.claim_input else shift
            line += text
    return line, shift

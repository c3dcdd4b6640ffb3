"""Markdown: the calibration and accuracy of each method, with intervals."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks.confidence import methods
from benchmarks.confidence.answers import Answers, Record, answers_of, read_records
from benchmarks.confidence.methods import Method, cross_validated
from benchmarks.confidence.variants import merge_variants
from pipeline.analysis.bootstrap import difference, interval, resample_rows
from pipeline.analysis.calibration import brier, calibration_error, risk_area
from pipeline.seeding import Ints
from pipeline.tasks.base.claims import Floats


class Row(NamedTuple):
    """A way to get answers and their confidence.

    `model` is the key "model" of the records, and `change` changes each record.
    """

    title: str
    method: Method
    model: str = "plain"
    change: Callable[[Record], Record] = dict


REFERENCE = "temperature"
ROWS = (
    Row("base rate of validation", methods.base_rate),
    Row("probability", methods.probability),
    Row(REFERENCE, methods.scaled_probability),
    Row("margin", methods.margin),
    Row("agreement", methods.agreement),
    Row("features, boosting", methods.boosting),
    Row("features and agreement, boosting", methods.boosting_with_agreement),
    Row("features, logistic", methods.logistic),
    Row("features and agreement, logistic", methods.logistic_with_agreement),
    Row("variants", methods.scaled_probability, change=merge_variants),
    Row("augmented input", methods.scaled_probability, "augmented"),
    Row("tuned, softmax", methods.scaled_probability, "softmax"),
    Row("tuned, margin", methods.scaled_probability, "margin"),
    Row("tuned, training loss (control)", methods.scaled_probability, "cross_entropy"),
)
MEASURES: dict[str, Callable[[Floats, Floats], float | None]] = {
    "exact": lambda confidence, right: 100 * float(right.mean()),
    "ECE": calibration_error,
    "Brier": brier,
    "AURC": risk_area,
}


def table(path: Path, task: str, seed: int) -> Iterator[str]:
    """The lines of the table. Methods are fitted on the validation answers of `task`.

    The column "validation" has the Brier score by cross-validation. An asterisk marks a difference
    from the temperature whose interval excludes 0, on the same samples of the questions.
    """
    runs = read_records(path)
    yield "| arm | test set | method | validation | exact | ECE | Brier | AURC |"
    yield f"|{'---|' * 8}"
    for arm in dict.fromkeys(arm for arm, *_ in runs):
        tests = dict.fromkeys(data for _, _, data, split in runs if split == "test")
        for data in tests:
            yield from _rows_of(runs, arm, task, data, seed)


def _rows_of(
    runs: dict[tuple[str, ...], list[Record]], arm: str, task: str, data: str, seed: int
) -> Iterator[str]:
    samples: dict[str, dict[str, Floats]] = {}
    cells: dict[str, dict[str, float]] = {}
    scores: dict[str, float] = {}
    for row in ROWS:
        if (arm, row.model, data, "test") not in runs:
            continue
        validation = _answers(runs[arm, row.model, task, "validation"], row)
        test = _answers(runs[arm, row.model, data, "test"], row)
        confidence = row.method(validation, seed)(test)
        scores[row.title] = selection_score(row.method, validation, seed)
        cells[row.title], samples[row.title] = measured(confidence, test.decisions.right)
    for title, values in cells.items():
        texts = (
            _cell(
                name,
                values[name],
                samples[title][name],
                cells[REFERENCE][name],
                samples[REFERENCE][name],
            )
            for name in MEASURES
        )
        yield f"| {arm} | {data} | {title} | {scores[title]:.3f} | {' | '.join(texts)} |"


def _answers(records: Sequence[Record], row: Row) -> Answers:
    return answers_of(row.change(record) for record in records)


def selection_score(method: Method, validation: Answers, seed: int) -> float:
    """The Brier score on validation by cross-validation."""
    return float(
        brier(cross_validated(method, validation, seed), validation.decisions.right) or 0.0
    )


def measured(confidence: Floats, right: np.ndarray) -> tuple[dict[str, float], dict[str, Floats]]:
    """Each measure, and its values in samples of the questions."""

    def values(rows: Ints) -> list[float]:
        return [
            float(measure(confidence[rows], right[rows]) or 0.0) for measure in MEASURES.values()
        ]

    whole = dict(zip(MEASURES, values(np.arange(len(right))), strict=True))
    samples = resample_rows(values, len(right))
    return whole, dict(zip(MEASURES, samples.T, strict=True))


def _cell(
    name: str, value: float, samples: Floats, reference: float, reference_samples: Floats
) -> str:
    digits = 1 if name == "exact" else 3
    low, high = interval(samples) or (value, value)
    gap = difference(value - reference, samples, reference_samples)
    star = "*" if gap.is_significant else ""
    return f"{value:.{digits}f}{star} ({low:.{digits}f} to {high:.{digits}f})"

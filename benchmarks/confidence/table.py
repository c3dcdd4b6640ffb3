"""Markdown: the calibration and accuracy of each method, with intervals."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchmarks.confidence import methods
from benchmarks.confidence.answers import Answers, Record, answers_of, read_records
from benchmarks.confidence.methods import Confidence, Method, cross_validated
from benchmarks.confidence.variants import merge_variants
from pipeline.analysis.bootstrap import SEED, difference, interval
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


NUM_SAMPLES = 1000
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
Right = NDArray[np.bool_]
Measure = Callable[[Floats, Right], float | None]
MEASURES: dict[str, Measure] = {
    "exact": lambda confidence, right: 100 * float(right.mean()),
    "ECE": calibration_error,
    "Brier": brier,
    "AURC": risk_area,
}


def table(path: Path, task: str, seed: int, num_samples: int = NUM_SAMPLES) -> Iterator[str]:
    """The lines of the table. Methods are fitted on the validation answers of `task`.

    The column "validation" has the Brier score by cross-validation, which selects a method. An
    asterisk marks a difference from the temperature whose interval excludes 0, on the same samples
    of the questions.
    """
    runs = read_records(path)
    yield f"| arm | test set | method | validation | {' | '.join(MEASURES)} |"
    yield f"|{'---|' * (4 + len(MEASURES))}"
    for arm in dict.fromkeys(arm for arm, *_ in runs):
        fitted = {
            row: _fit(row, runs[key], seed, num_samples)
            for row in ROWS
            if (key := (arm, row.model, task, "validation")) in runs
        }
        for data in dict.fromkeys(data for _, _, data, split in runs if split == "test"):
            results = {
                row.title: _on_test(row, fit, runs[key], num_samples)
                for row, fit in fitted.items()
                if (key := (arm, row.model, data, "test")) in runs
            }
            for title, result in results.items():
                cells = " | ".join(_cells(result, results[REFERENCE]))
                yield f"| {arm} | {data} | {title} | {cells} |"


class Result(NamedTuple):
    """Each measure, and its values in samples of the questions."""

    values: dict[str, float]
    samples: dict[str, Floats]


class Fit(NamedTuple):
    """A fitted method, and its Brier score on validation."""

    confidence: Confidence
    validation: Result


def _fit(row: Row, records: Sequence[Record], seed: int, num_samples: int) -> Fit:
    validation = _answers(row, records)
    other_folds = cross_validated(row.method, validation, seed)
    measures = {"validation": brier}
    result = measured(measures, other_folds, validation.decisions.right, num_samples)
    return Fit(row.method(validation, seed), result)


def _on_test(row: Row, fit: Fit, records: Sequence[Record], num_samples: int) -> Result:
    test = _answers(row, records)
    result = measured(MEASURES, fit.confidence(test), test.decisions.right, num_samples)
    return Result(fit.validation.values | result.values, fit.validation.samples | result.samples)


def _answers(row: Row, records: Sequence[Record]) -> Answers:
    return answers_of(row.change(record) for record in records)


def measured(
    measures: Mapping[str, Measure], confidence: Floats, right: Right, num_samples: int
) -> Result:
    """The measures of confidences [N], with samples of the N questions.

    The measures are not functions of sums over questions, so each sample is measured. All methods
    have the same samples.
    """

    def values(rows: Ints) -> list[float]:
        return [
            float(measure(confidence[rows], right[rows]) or 0.0) for measure in measures.values()
        ]

    size, generator = len(right), np.random.default_rng(SEED)
    whole = values(np.arange(size))
    samples = np.array(
        [values(generator.integers(0, size, size)) for _ in range(num_samples)], np.float64
    )
    return Result(
        dict(zip(measures, whole, strict=True)), dict(zip(measures, samples.T, strict=True))
    )


def _cells(result: Result, reference: Result) -> Iterator[str]:
    """Each measure with its interval."""
    for name, value in result.values.items():
        digits = 1 if name == "exact" else 3
        samples = result.samples[name]
        low, high = interval(samples) or (value, value)
        gap = difference(value - reference.values[name], samples, reference.samples[name])
        star = "*" if gap.is_significant else ""
        yield f"{value:.{digits}f}{star} ({low:.{digits}f} to {high:.{digits}f})"

"""Calibration, confusion and mistakes: tables and plots of each arm's claims on the test split."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.analysis.calibration import bins, brier, calibration_error, risk_area, risk_coverage
from pipeline.display.highlighting import excerpt
from pipeline.errors import shorten
from pipeline.report import plots
from pipeline.report.collect import MEASURES, RunResult
from pipeline.report.plots import Curve, Plot
from pipeline.report.tables import DASH, OURS, Cell, Table, arm_header, count, percent
from pipeline.tasks.base.marked_text import MarkedSpan, MarkedText

MAX_MISTAKES = 20
MAX_LABELS = 12  # of a confusion table; rarer labels are merged
RARER = "(rarer)"
MAX_TEXT_LENGTH = 300  # in characters


def displayed_run(runs: Sequence[RunResult]) -> RunResult | None:
    """The run with the displayed mistakes: multitask, or else the first run with claims."""
    candidates = [run for run in runs if run.claims is not None and len(run.claims)]
    ours = [run for run in candidates if run.arm == OURS]
    return next(iter([*ours, *candidates]), None)


def about(runs: Sequence[RunResult]) -> str:
    """A sentence on the arm of the displayed mistakes."""
    run = displayed_run(runs)
    return (
        f"The mistakes and the reliability plots are those of {run.arm} on the test split."
        if run
        else ""
    )


def _kinds(
    run: RunResult,
) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]]:
    """For each kind of claim or decision: its name, raw and calibrated confidences, and `right`."""
    if run.confidences is not None:
        for kind, frame in run.confidences.groupby("kind", sort=False):
            yield (
                str(kind),
                frame["raw"].to_numpy(np.float64),
                frame["calibrated"].to_numpy(np.float64),
                frame["right"].to_numpy(np.bool_),
            )


def calibration(runs: Sequence[RunResult]) -> Table | None:
    """The calibration errors of each arm, raw and calibrated by the temperature."""
    rows = tuple(
        (arm_header(run.arm), *map(Cell, _errors(*kind))) for run in runs for kind in _kinds(run)
    )
    names = (
        "kind",
        "number",
        "right",
        "mean confidence",
        "ECE",
        "ECE, calibrated",
        "Brier",
        "Brier, calibrated",
        "AURC",
    )
    return Table("Calibration, test", (Cell("arm"), *map(Cell, names)), rows) if rows else None


def _errors(
    kind: str, raw: NDArray[np.float64], calibrated: NDArray[np.float64], right: NDArray[np.bool_]
) -> tuple[str, ...]:
    errors = [
        _decimals(error(confidence, right))
        for error in (calibration_error, brier)
        for confidence in (raw, calibrated)
    ]
    return (
        kind,
        count(len(right)),
        percent(float(right.mean())),
        percent(float(calibrated.mean())),
        *errors,
        _decimals(risk_area(calibrated, right)),
    )


def _decimals(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def measures(runs: Sequence[RunResult]) -> Table | None:
    """The measures of confidence of each arm, on the same sample of questions."""
    rows = tuple(
        (arm_header(run.arm), Cell(name), *map(Cell, _measure_errors(*pair)))
        for run in runs
        for name, pair in _measures_by_name(run).items()
    )
    names = ("measure", "number", "right", "mean", "ECE", "Brier", "AURC")
    return (
        Table(
            "Measures of confidence compared, on a sample of the test split",
            (Cell("arm"), *map(Cell, names)),
            rows,
        )
        if rows
        else None
    )


def _measures_by_name(run: RunResult) -> dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """The confidences by each measure, with `right`."""
    if run.measures is None or not len(run.measures):
        return {}
    right = run.measures["right"].to_numpy(np.bool_)
    return {name: (run.measures[name].to_numpy(np.float64), right) for name in MEASURES}


def _measure_errors(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[str, ...]:
    errors = [error(confidence, right) for error in (calibration_error, brier, risk_area)]
    means = percent(float(right.mean())), percent(float(confidence.mean()))
    return count(len(right)), *means, *map(_decimals, errors)


def confusion(runs: Sequence[RunResult]) -> Table | None:
    """The number of claims by gold label (rows) and predicted label (columns)."""
    run = displayed_run(runs)
    if run is None or run.claims is None:
        return None
    pairs = Counter(zip(run.claims["gold_label"], run.claims["predicted_label"], strict=True))
    gold_labels, predicted_labels = _frequent_labels(pairs, 0), _frequent_labels(pairs, 1)
    merged = Counter[tuple[str, str]]()
    for (gold, predicted), number in pairs.items():
        row = gold if gold in gold_labels else RARER
        column = predicted if predicted in predicted_labels else RARER
        merged[row, column] += number
    if RARER in {gold for gold, _ in merged} - {*gold_labels}:
        gold_labels.append(RARER)
    if RARER in {predicted for _, predicted in merged} - {*predicted_labels}:
        predicted_labels.append(RARER)
    body = tuple(
        (Cell(gold), *(_confusion_cell(merged, gold, predicted) for predicted in predicted_labels))
        for gold in gold_labels
    )
    header = (Cell("gold"), *map(Cell, predicted_labels))
    return Table(f"Confusion of {run.arm}, test", header, body)


def _frequent_labels(pairs: Counter[tuple[str, str]], side: int) -> list[str]:
    """The most frequent labels of a side, 0 (gold) or 1 (predicted), in alphabetical order.

    Names in brackets, such as "(none)", are not labels and come last.
    """
    totals = Counter[str]()
    for pair, number in pairs.items():
        totals[pair[side]] += number
    frequent = sorted(totals, key=lambda label: (-totals[label], label))[:MAX_LABELS]
    return sorted(frequent, key=lambda label: (label.startswith("("), label))


def _confusion_cell(merged: Counter[tuple[str, str]], gold: str, predicted: str) -> Cell:
    is_correct = gold == predicted and not gold.startswith("(")
    return Cell(count(merged[gold, predicted]), best=is_correct)


def mistakes(runs: Sequence[RunResult]) -> Table | None:
    """The most confident wrong claims."""
    run = displayed_run(runs)
    if run is None or run.claims is None:
        return None
    wrong = run.claims[~run.claims["right"].to_numpy(np.bool_) & run.claims["calibrated"].notna()]
    worst = wrong.sort_values(["calibrated", "id"], ascending=[False, True], kind="stable").head(
        MAX_MISTAKES
    )
    rows = tuple(
        (
            Cell(f"{row['calibrated']:.2f}"),
            *(
                Cell(shorten(str(row[name]), MAX_TEXT_LENGTH))
                for name in ("id", "gold", "predicted")
            ),
            _text_cell(row),
        )
        for _, row in worst.iterrows()
    )
    columns = tuple(map(Cell, ("confidence", "id", "gold", "predicted", "text")))
    return (
        Table(f"The most confident mistakes of {run.arm}, test", columns, rows, prose=True)
        if rows
        else None
    )


def _text_cell(row: "pd.Series[Any]") -> Cell:
    """The text of a claim with its predicted and its gold spans, cut around the first span."""
    text, marks = str(row["text"]), list[MarkedSpan]()
    for name in ("predicted", "gold"):
        marks += (MarkedSpan(int(a), int(b), name) for a, b in row[f"{name}_spans"])
    shown = excerpt(MarkedText(text, tuple(marks)), MAX_TEXT_LENGTH)
    return Cell(shown.text, marked=shown if shown.spans else None)


def plots_of(task: str, runs: Sequence[RunResult]) -> Iterator[Plot]:
    """Reliability of the displayed run by kind, and risk by coverage.

    Risk by coverage is plotted for every arm, and for the displayed run by each measure.
    """
    run = displayed_run(runs)
    if run is None:
        return
    for kind, raw, calibrated, right in _kinds(run):
        curves = {
            "raw": Curve(_reliability(raw, right), plots.OTHER_COLOR, "--"),
            "calibrated": Curve(_reliability(calibrated, right), plots.arm_color(run.arm)),
        }
        yield plots.percent_curves(
            f"{task}: reliability of {kind}",
            "confidence, %",
            f"right {kind}, %",
            curves,
            diagonal=True,
        )
    claims = {arm_run.arm: next(_kinds(arm_run), None) for arm_run in runs}
    risks = {
        arm: Curve(_risk(*kind[2:]), plots.arm_color(arm), plots.DASHES[plots.arm_order(arm)])
        for arm, kind in claims.items()
        if kind
    }
    if risks:
        yield plots.percent_curves(f"{task}: risk by coverage", "coverage, %", "wrong, %", risks)
    measures = {
        name: Curve(_risk(*pair), plots.TASK_COLORS[index], plots.DASHES[index])
        for index, (name, pair) in enumerate(_measures_by_name(run).items())
    }
    if measures:
        yield plots.percent_curves(
            f"{task}: risk by coverage, by measure of confidence",
            "coverage, %",
            "wrong, %",
            measures,
        )


def _reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> "pd.Series[float]":
    non_empty = bins(confidence, right)
    return pd.Series(
        [100 * item.right for item in non_empty], [100 * item.confidence for item in non_empty]
    )


def _risk(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> "pd.Series[float]":
    coverage, risk = risk_coverage(confidence, right)
    shown = np.unique(np.linspace(0, len(risk) - 1, min(plots.MAX_POINTS, len(risk))).astype(int))
    return pd.Series(100 * risk[shown], 100 * coverage[shown])

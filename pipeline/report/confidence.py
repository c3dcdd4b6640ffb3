"""Whether confidences can be trusted, and the mistakes: tables and plots of what each arm claimed on test."""

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pipeline.analysis.calibration import bins, brier, calibration_error, risk_area, risk_coverage
from pipeline.report import plots
from pipeline.report.collect import MEASURES, RunResult
from pipeline.report.plots import Curve, Plot
from pipeline.report.tables import DASH, OURS, Cell, Table, arm_header, count, percent

MISTAKES = 20
LABELS = 12  # of a confusion table; rarer ones come together
REST = "(rarer)"
LONGEST = 300  # characters of a text that is shown


def shown_run(runs: Sequence[RunResult]) -> RunResult | None:
    """The run whose mistakes are shown: ours, or else the first that has claims."""
    known = [run for run in runs if run.claims is not None and len(run.claims)]
    return next((run for run in known if run.arm == OURS), known[0] if known else None)


def about(runs: Sequence[RunResult]) -> str:
    """Whose mistakes they are."""
    run = shown_run(runs)
    return f"The mistakes and the reliability are those of {run.arm}, on test." if run else ""


def _kinds(
    run: RunResult,
) -> Iterator[tuple[str, NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]]:
    """Each kind of things said, with confidences, raw and calibrated, and whether right."""
    if run.confidences is not None:
        for kind, frame in run.confidences.groupby("kind", sort=False):
            yield (
                str(kind),
                frame["raw"].to_numpy(np.float64),
                frame["calibrated"].to_numpy(np.float64),
                frame["right"].to_numpy(np.bool_),
            )


def calibration(runs: Sequence[RunResult]) -> Table | None:
    """Calibration errors of each arm, before and after the temperature."""
    rows = tuple(
        (arm_header(run.arm), *map(Cell, _errors(*kind))) for run in runs for kind in _kinds(run)
    )
    names = (
        "of",
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
    pairs = [
        _decimals(measure(sure, right))
        for measure in (calibration_error, brier)
        for sure in (raw, calibrated)
    ]
    return (
        kind,
        count(len(right)),
        percent(float(right.mean())),
        percent(float(calibrated.mean())),
        *pairs,
        _decimals(risk_area(calibrated, right)),
    )


def _decimals(value: float | None) -> str:
    return DASH if value is None else f"{value:.3f}"


def measures(runs: Sequence[RunResult]) -> Table | None:
    """Measures of confidence side by side, of each arm, on the same sample of questions."""
    rows = tuple(
        (arm_header(run.arm), Cell(name), *(Cell(text) for text in _measure(*pair)))
        for run in runs
        for name, pair in _measured(run).items()
    )
    names = ("confidence by", "number", "right", "mean", "ECE", "Brier", "AURC")
    return (
        Table(
            "Measures of confidence compared, on a sample of test",
            (Cell("arm"), *map(Cell, names)),
            rows,
        )
        if rows
        else None
    )


def _measured(run: RunResult) -> dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]:
    """By measure, the confidences and whether right."""
    if run.measures is None or not len(run.measures):
        return {}
    right = run.measures["right"].to_numpy(np.bool_)
    return {name: (run.measures[name].to_numpy(np.float64), right) for name in MEASURES}


def _measure(sure: NDArray[np.float64], right: NDArray[np.bool_]) -> tuple[str, ...]:
    errors = (_decimals(measure(sure, right)) for measure in (calibration_error, brier, risk_area))
    return count(len(right)), percent(float(right.mean())), percent(float(sure.mean())), *errors


def confusion(runs: Sequence[RunResult]) -> Table | None:
    """Gold label by predicted label."""
    run = shown_run(runs)
    if run is None or run.claims is None:
        return None
    pairs = Counter(zip(run.claims["gold_label"], run.claims["predicted_label"], strict=True))
    frequent = [Counter[str](), Counter[str]()]
    for pair, number in pairs.items():
        for side, label in zip(frequent, pair, strict=True):
            side[label] += number
    kept = [_kept(side) for side in frequent]
    merged = Counter[tuple[str, str]]()
    for (gold, predicted), number in pairs.items():
        merged[gold if gold in kept[0] else REST, predicted if predicted in kept[1] else REST] += (
            number
        )
    rows, columns = (
        list(dict.fromkeys([*side, *(pair[place] for pair in merged if pair[place] == REST)]))
        for place, side in enumerate(kept)
    )
    body = tuple(
        (
            Cell(gold),
            *(
                Cell(
                    count(merged[gold, predicted]),
                    best=gold == predicted and not gold.startswith("("),
                )
                for predicted in columns
            ),
        )
        for gold in rows
    )
    return Table(f"Confusion of {run.arm}, test", (Cell("gold"), *map(Cell, columns)), body)


def _kept(labels: Counter[str]) -> list[str]:
    """The most frequent labels in the alphabet's order; what is in brackets is no label, and comes last."""
    most = sorted(labels, key=lambda label: (-labels[label], label))[:LABELS]
    return sorted(most, key=lambda label: (label.startswith("("), label))


def mistakes(runs: Sequence[RunResult]) -> Table | None:
    """What was said with the most confidence and is wrong."""
    run = shown_run(runs)
    if run is None or run.claims is None:
        return None
    wrong = run.claims[~run.claims["right"].to_numpy(np.bool_) & run.claims["calibrated"].notna()]
    worst = wrong.sort_values(["calibrated", "id"], ascending=[False, True], kind="stable").head(
        MISTAKES
    )
    rows = tuple(
        (
            Cell(f"{row['calibrated']:.2f}"),
            *(Cell(_cut(str(row[name]))) for name in ("id", "gold", "predicted", "text")),
        )
        for _, row in worst.iterrows()
    )
    columns = tuple(map(Cell, ("confidence", "id", "gold", "predicted", "text")))
    return (
        Table(f"The most confident mistakes of {run.arm}, test", columns, rows, prose=True)
        if rows
        else None
    )


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def plots_of(task: str, runs: Sequence[RunResult]) -> Iterator[Plot]:
    """Reliability of each kind of what the shown run says, every arm's risk by coverage, and the shown run's by each measure."""
    run = shown_run(runs)
    if run is None:
        return
    for kind, raw, calibrated, right in _kinds(run):
        curves = {
            "raw": Curve(_reliability(raw, right), plots.OTHER_COLOR, "--"),
            "calibrated": Curve(_reliability(calibrated, right), plots.arm_color(run.arm)),
        }
        yield plots.against(
            f"{task}: reliability of {kind}",
            "confidence, %",
            f"{kind} that are right, %",
            curves,
            diagonal=True,
        )
    claims = {one.arm: next(_kinds(one), None) for one in runs}
    risks = {
        arm: Curve(_risk(*found[2:]), plots.arm_color(arm), plots.DASHES[plots.arm_order(arm)])
        for arm, found in claims.items()
        if found
    }
    if risks:
        yield plots.against(f"{task}: risk by coverage", "coverage, %", "wrong, %", risks)
    measures = {
        name: Curve(_risk(*pair), plots.TASK_COLORS[place], plots.DASHES[place])
        for place, (name, pair) in enumerate(_measured(run).items())
    }
    if measures:
        yield plots.against(
            f"{task}: risk by coverage, by measure of confidence",
            "coverage, %",
            "wrong, %",
            measures,
        )


def _reliability(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> "pd.Series[float]":
    found = bins(confidence, right)
    return pd.Series([100 * one.right for one in found], [100 * one.confidence for one in found])


def _risk(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> "pd.Series[float]":
    coverage, risk = risk_coverage(confidence, right)
    keep = np.unique(np.linspace(0, len(risk) - 1, min(plots.POINTS, len(risk))).astype(int))
    return pd.Series(100 * risk[keep], 100 * coverage[keep])

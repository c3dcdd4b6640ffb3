"""Confidence intervals of runs, and differences between the arms of a task."""

from collections.abc import Sequence
from statistics import fmean

from pipeline.analysis.bootstrap import Difference, difference, interval
from pipeline.report.collect import RunResult


def interval_of(run: RunResult, metric: str) -> tuple[float, float] | None:
    """The 95 % interval of a test metric; None if the run has no samples of it."""
    return interval(run.mean_samples[metric]) if metric in run.mean_samples else None


def gap(run: RunResult, other: RunResult) -> Difference | None:
    """The difference of two arms of a task in its primary metric: `run` minus `other`.

    It is the difference of the means over seeds if both arms have repeats, and otherwise that of
    their first runs, which does not cover seed variance. None if their test units differ or either
    arm has no score.
    """
    if (
        not (run.metrics and other.metrics and run.counts and other.counts)
        or run.counts.units != other.counts.units
    ):
        return None
    name = run.metrics.primary
    values, other_values = run.values(name), other.values(name)
    if not values or not other_values or name not in run.samples or name not in other.samples:
        return None
    if not (run.repeats and other.repeats):
        return difference(values[0] - other_values[0], run.samples[name], other.samples[name])
    return difference(
        fmean(values) - fmean(other_values), run.mean_samples[name], other.mean_samples[name]
    )


def tied_for_best(runs: Sequence[RunResult], best: Sequence[str]) -> list[str]:
    """The `best` arms, and the arms without a significant difference from at least one of them."""
    top = [run for run in runs if run.arm in best]
    others = [run for run in runs if run.arm not in best]
    return [*best, *(run.arm for run in others if _is_tied(run, top))]


def _is_tied(run: RunResult, top: Sequence[RunResult]) -> bool:
    gaps = [gap(top_run, run) for top_run in top]
    return any(top_gap is not None and not top_gap.is_significant for top_gap in gaps)

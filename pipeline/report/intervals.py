"""How sure the report's scores are: intervals of runs, differences between the arms of a task, and what may be said of them."""

from collections.abc import Sequence
from statistics import fmean

from pipeline.analysis.bootstrap import Difference, difference, interval
from pipeline.report.collect import RunResult


def interval_of(run: RunResult, figure: str) -> tuple[float, float] | None:
    """The 95 % interval of a test figure; None where it has none."""
    return interval(run.mean_samples[figure]) if figure in run.mean_samples else None


def gap(one: RunResult, other: RunResult) -> Difference | None:
    """By how much one arm of a task is above another in what they are compared by; None where their units are not the same.

    Of means over seeds, where both have repeats; else of their own runs alone: one run shows nothing of its luck.
    """
    if (
        not (one.metrics and other.metrics and one.counts and other.counts)
        or one.counts.units != other.counts.units
    ):
        return None
    name = one.metrics.primary
    values = one.values(name), other.values(name)
    if not all(values) or name not in one.samples or name not in other.samples:
        return None
    if not (one.repeats and other.repeats):
        return difference(values[0][0] - values[1][0], one.samples[name], other.samples[name])
    return difference(
        fmean(values[0]) - fmean(values[1]), one.mean_samples[name], other.mean_samples[name]
    )


def level(runs: Sequence[RunResult], best: Sequence[str]) -> list[str]:
    """The arms `best`, and those of the task that do not really differ from one of them."""
    top = [run for run in runs if run.arm in best]
    gaps = {run.arm: [gap(one, run) for one in top] for run in runs if run.arm not in best}
    return [
        *best,
        *(
            arm
            for arm, found in gaps.items()
            if any(one is not None and not one.real for one in found)
        ),
    ]

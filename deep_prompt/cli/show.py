"""deep-prompt show: print the test scores, the resource usage and the summary of the report."""

from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from pipeline.arms import ArmName
from pipeline.config import load_json
from pipeline.params import Params
from stages.runtime.entry import log
from stages.runtime.params import load_params
from stages.runtime.paths import REPORT, RESULTS, RUNS, run_folder
from stages.training.resource_usage import load_resource_usage

if TYPE_CHECKING:
    from rich.table import Table

# The functions import rich: see deep_prompt.cli.main.
# ruff: noqa: PLC0415


def add_arguments(parser: ArgumentParser) -> None:
    """Add nothing: the command takes no arguments."""


def show(_: Namespace) -> None:
    """Print the test scores by arm and task, the resource usage of each run, and the summary.

    The resource usage is the seconds, the peak memory and the number of ranks of a training run.
    It varies between runs, so the report does not contain it.
    """
    from rich.console import Console

    params = load_params()
    report = REPORT / "report.md"
    console = Console(highlight=False)
    console.print(_scores(params))
    console.print(_resource_usage(params))
    if not report.exists():
        log(f"{report} does not exist yet: `dvc repro` makes it")
        return
    console.print(report.read_text(encoding="utf-8").split("\n\n")[1], markup=False)
    log(f"full report: {report.with_suffix('.html')}")


def _scores(params: Params) -> "Table":
    from rich.table import Table

    table = Table("arm", *params.tasks, "trained", title="test, percent")
    for arm in filter(params.tasks_of, params.compared_arms):
        metrics = [_metrics(params, arm, task) for task in params.tasks]
        fractions = [_trained_fraction(run) for runs in metrics for run in runs]
        trained = f"{100 * max(fractions):.2f} %" if fractions else "-"
        table.add_row(arm, *map(_mean_score, metrics), trained)
    return table


def _mean_score(runs: list[Any]) -> str:
    return f"{fmean(run['test'][run['primary']] for run in runs):.1f}" if runs else "-"


def _trained_fraction(run: Any) -> float:
    parameters = run["parameters"]
    return float(parameters["trained"] / parameters["backbone"])


def _metrics(params: Params, arm: ArmName, task: str) -> list[Any]:
    """The metrics of a planned run and of its repetitions with other seeds."""
    if task not in params.tasks_of(arm):
        return []
    seeds = params.repeat.seeds if arm in params.repeat.arms and task in params.repeat.tasks else ()
    paths = [
        RESULTS / run_folder(arm, task, seed) / "metrics.json" for seed in ("", *map(str, seeds))
    ]
    return [load_json(path) for path in paths if path.exists()]


def _resource_usage(params: Params) -> "Table":
    """One row per training run. A run that DVC restored from its cache has dashes."""
    from rich.table import Table

    columns = ("seconds", "peak memory", "ranks")
    table = Table("training run", *columns, title="resource usage on this machine")
    for folder in _runs(params):
        usage = load_resource_usage(folder)
        cells = (
            (f"{usage.seconds:,.0f}", f"{usage.peak_memory_mb:,.0f} MB", str(usage.ranks))
            if usage
            else ["-"] * len(columns)
        )
        table.add_row(str(folder), *cells)
    return table


def _runs(params: Params) -> Iterator[Path]:
    """The folders of the finished training runs of params.yaml."""
    folders = [
        *(Path("pretrain", mixture) for mixture in params.mixtures),
        *(run_folder(arm, task) for arm in params.compared_arms for task in params.tasks_of(arm)),
        *(
            run_folder(arm, task, str(seed))
            for arm, task, seed in product(
                params.repeat.arms, params.repeat.tasks, params.repeat.seeds
            )
        ),
    ]
    return (folder for folder in folders if (RUNS / folder / "train.tsv").exists())

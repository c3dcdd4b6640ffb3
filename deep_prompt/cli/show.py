"""Print the report's summary, the test scores by arm and task, and the resource usage of each run, on the terminal."""

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

# rich is imported inside the functions, as in deep_prompt.cli.main.
# ruff: noqa: PLC0415


def add_arguments(parser: ArgumentParser) -> None:
    """It takes none."""


def show(_: Namespace) -> None:
    """Print what `report` wrote, in short: test scores by arm and task, and the summary. Print the seconds, the peak memory and
    the number of ranks of each run, too: they differ from run to run, so the report does not have them.
    """
    from rich.console import Console

    params = load_params()
    report = REPORT / "report.md"
    console = Console(highlight=False)
    console.print(_scores(params))
    console.print(_resource_usage(params))
    console.print(report.read_text(encoding="utf-8").split("\n\n")[1], markup=False)
    log(f"all of it: {report.with_suffix('.html')}")


def _scores(params: Params) -> "Table":
    from rich.table import Table

    table = Table("arm", *params.tasks, "trained", title="test, percent")
    for arm in params.compared_arms:
        metrics = [_metrics(params, arm, task) for task in params.tasks]
        scores = [
            f"{fmean(one['test'][one['primary']] for one in found):.1f}" if found else "-"
            for found in metrics
        ]
        shares = [
            one["parameters"]["trained"] / one["parameters"]["backbone"]
            for found in metrics
            for one in found
        ]
        table.add_row(arm, *scores, f"{100 * max(shares):.2f} %" if shares else "-")
    return table


def _metrics(params: Params, arm: ArmName, task: str) -> list[Any]:
    """Those of the run, and of the ones that repeat it with other seeds."""
    repeated = (
        params.repeat.seeds if arm in params.repeat.arms and task in params.repeat.tasks else ()
    )
    paths = [
        RESULTS / run_folder(arm, task, seed) / "metrics.json" for seed in ("", *map(str, repeated))
    ]
    return [load_json(path) for path in paths if path.exists()]


def _resource_usage(params: Params) -> "Table":
    """A row per training run; dashes for a run that DVC restored from its cache."""
    from rich.table import Table

    columns = ("seconds", "peak memory", "ranks")
    table = Table("training run", *columns, title="resource usage on this machine")
    for folder in _runs(params):
        used = load_resource_usage(folder)
        cells = (
            (f"{used.seconds:,.0f}", f"{used.peak_memory_mb:,.0f} MB", str(used.ranks))
            if used
            else ["-"] * len(columns)
        )
        table.add_row(str(folder), *cells)
    return table


def _runs(params: Params) -> Iterator[Path]:
    """The folder of each training run that params.yaml asks for and that has been trained."""
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

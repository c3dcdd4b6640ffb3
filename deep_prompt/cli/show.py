"""Print the report's summary, and the test scores by arm and task, on the terminal."""

from argparse import ArgumentParser, Namespace
from statistics import fmean
from typing import Any

from pipeline.config import load_json
from pipeline.params import Arm, Params
from stages.runtime.entry import log
from stages.runtime.params import load_params
from stages.runtime.paths import REPORT, RESULTS, run_folder


def add_arguments(parser: ArgumentParser) -> None:
    """It takes none."""


def show(_: Namespace) -> None:
    """Print what `report` wrote, in short: test scores by arm and task, and the summary."""
    from rich.console import Console  # noqa: PLC0415  (as in deep_prompt.cli.main)
    from rich.table import Table  # noqa: PLC0415

    params = load_params()
    table = Table("arm", *params.tasks, "trained", title="test, percent")
    arms: tuple[Arm, ...] = ("multitask", *params.compare.arms)
    for arm in arms:
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
    report = REPORT / "report.md"
    console = Console(highlight=False)
    console.print(table)
    console.print(report.read_text(encoding="utf-8").split("\n\n")[1], markup=False)
    log(f"all of it: {report.with_suffix('.html')}")


def _metrics(params: Params, arm: Arm, task: str) -> list[Any]:
    """Those of the run, and of the ones that repeat it with other seeds."""
    repeated = (
        params.repeat.seeds if arm in params.repeat.arms and task in params.repeat.tasks else ()
    )
    paths = [
        RESULTS / run_folder(arm, task, seed) / "metrics.json" for seed in ("", *map(str, repeated))
    ]
    return [load_json(path) for path in paths if path.exists()]

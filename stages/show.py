"""Print the report's summary, and the test scores by arm and task, on the terminal."""

from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.config import load_json
from stages.command import run, say
from stages.params import load_params


def show() -> None:
    """Print what `report` wrote, in short."""
    params = load_params()
    table = Table("arm", *params.tasks, "trained", title="test, percent")
    for arm in ("multitask", *params.compare.arms):
        metrics = [_metrics(Path("results") / arm / task / "metrics.json") for task in params.tasks]
        scores = [f"{found['test'][found['primary']]:.1f}" if found else "-" for found in metrics]
        shares = [found["parameters"]["trained"] / found["parameters"]["backbone"] for found in metrics if found]
        table.add_row(arm, *scores, f"{100 * max(shares):.2f} %" if shares else "-")
    report = Path("report/report.md")
    console = Console(highlight=False)
    console.print(table)
    console.print(report.read_text(encoding="utf-8").split("\n\n")[1], markup=False)
    say(f"all of it: {report.with_suffix('.html')}")


def _metrics(path: Path) -> Any:
    return load_json(path) if path.exists() else None


if __name__ == "__main__":
    run(show)

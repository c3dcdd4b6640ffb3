"""report: every metric and curve -> one comparison, as Markdown and as a self-contained HTML file."""

from pathlib import Path

from pipeline.report import write_report
from stages.command import run, say_wrote
from stages.params import load_params


def report() -> None:
    """Write report/report.md and report/report.html."""
    params = load_params()
    arms = ("multitask", *params.compare.arms)
    output = Path("report")
    write_report(Path("results"), Path("runs"), Path("data/mixtures"), tuple(params.tasks), arms, output)
    say_wrote(output / "report.md", output / "report.html")


if __name__ == "__main__":
    run(report)

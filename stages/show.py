"""Print the report's summary and comparison table on the terminal."""

from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown

from stages.command import run, say


def show() -> None:
    """Print report/report.md up to its second section."""
    path = Path("report/report.md")
    top = path.read_text(encoding="utf-8").split("\n## ")[:2]
    Console().print(Markdown("\n## ".join(top)))
    say(f"all of it: {path.with_suffix('.html')}")


if __name__ == "__main__":
    run(show)

"""A progress bar on a terminal, plain lines elsewhere; and a run's curve, to be read while it runs."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

if TYPE_CHECKING:
    from pipeline.trainer import Run

LINE_SECONDS = 15.0


class Progress:
    """Shows a training run: step, loss by task, rows and tokens per second, time left. Silent where not `visible`.

    It also writes each step into `curve`, tab-separated as train.tsv is in the end: whole after a resume, with no step twice.
    """

    def __init__(self, title: str, visible: bool, curve: Path, names: Sequence[str]) -> None:
        self._visible, self._curve = visible, curve
        self._names = [f"loss_{name}" for name in names] if len(names) > 1 else []
        self._columns: list[str] = []
        self._losses: dict[str, float] = {}
        self._started = self._last = time.monotonic()
        self._rows = self._tokens = self._steps = 0
        self._bar: Bar | None = None
        if visible and sys.stdout.isatty():
            columns = (TextColumn(f"  {title}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"),
                       TimeRemainingColumn())
            self._bar = Bar(*columns, transient=True)
            self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def step(self, run: "Run", rows: int, tokens: int) -> None:
        """A step is done, the last of `run.train`; it held so many rows and tokens."""
        if not self._visible:
            return
        self._write(run.train)
        row, now = run.train[-1], time.monotonic()
        step = int(row["step"])
        self._rows, self._tokens, self._steps = self._rows + rows, self._tokens + tokens, self._steps + 1
        self._losses |= {name: row[name] for name in self._names if name in row}  # a step need not have rows of every task
        seconds = max(now - self._started, 1e-9)
        text = (f"loss {row['loss']:.3f}{self._by_task()}  {self._rows / seconds:.0f} rows/s  "
                f"{self._tokens / seconds:.0f} tokens/s")
        if self._bar:
            self._bar.update(self._task, completed=step, total=run.steps, description=text)
        elif now - self._last > LINE_SECONDS or step == run.steps:
            left = (run.steps - step) * seconds / self._steps
            print(f"  step {step}/{run.steps}  {text}  {left:.0f} s left", flush=True)
            self._last = now

    def _by_task(self) -> str:
        told = ", ".join(f"{name.removeprefix('loss_')} {self._losses[name]:.2f}" for name in self._names if name in self._losses)
        return f" ({told})" if told else ""

    def _write(self, rows: Sequence[Mapping[str, float]]) -> None:
        """Add the last row; the first time, those before it too, over whatever an interrupted run left."""
        new = rows[-1:]
        if not self._columns:
            self._columns = [*(name for name in rows[-1] if name not in self._names), *self._names]
            self._curve.parent.mkdir(parents=True, exist_ok=True)
            self._curve.write_text("\t".join(self._columns) + "\n", encoding="utf-8")
            new = rows
        with self._curve.open("a", encoding="utf-8") as file:
            for row in new:
                file.write("\t".join(f"{row[name]:.6g}" if name in row else "" for name in self._columns) + "\n")

    def say(self, line: str) -> None:
        """A line of its own."""
        if self._bar:
            self._bar.console.print(f"  {line}", highlight=False)
        elif self._visible:
            print(f"  {line}", flush=True)

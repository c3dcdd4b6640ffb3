"""A progress bar on a terminal, plain lines elsewhere; and a run's curves, to be read while it runs."""

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from stages.runtime.entry import log
from stages.training.tracking import Tracker

if TYPE_CHECKING:
    from pipeline.training.trainer import TrainingRun

LINE_SECONDS = 15.0


class Progress:
    """Shows a training run: step, loss by task, rows and tokens per second, time left. Silent where not `visible`.

    It also writes each step into `curve`, tab-separated: the columns of train.tsv, then seconds and peak memory; whole after a
    resume, with no step twice. It hands each step to the tracker, if there is one. `then` is called after each validation.
    """

    def __init__(
        self,
        title: str,
        visible: bool,
        curve: Path,
        names: Sequence[str],
        tracker: Tracker | None = None,
        then: Callable[["TrainingRun"], None] = lambda run: None,
    ) -> None:
        self._visible, self._curve, self._tracker, self._then = visible, curve, tracker, then
        self._names = names if len(names) > 1 else []
        self._columns: list[str] = []
        self._losses: dict[str, float] = {}
        self._started = self._last = time.monotonic()
        self._rows = self._tokens = self._steps = 0
        self._bar: Bar | None = None
        if visible and sys.stdout.isatty():
            columns = (
                TextColumn(f"  {title}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}"),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, transient=True)
            self._task = self._bar.add_task("", total=None)

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        self._track(lambda tracker: tracker.close())

    def step(self, run: "TrainingRun", rows: int, tokens: int) -> None:
        """A step is done, the last of `run.train`; it held so many rows and tokens."""
        if not self._visible:
            return
        self._write(run)
        self._track(lambda tracker: tracker.log(run.train[-1] | run.resource_usage[-1]))
        row, now = run.train[-1], time.monotonic()
        step = int(row["step"])
        self._rows, self._tokens, self._steps = (
            self._rows + rows,
            self._tokens + tokens,
            self._steps + 1,
        )
        # A step need not have rows of every task.
        self._losses |= {name: row[f"loss_{name}"] for name in self._names if f"loss_{name}" in row}
        seconds = max(now - self._started, 1e-9)
        text = (
            f"loss {row['loss']:.3f}{self._by_task()}  {self._rows / seconds:.0f} rows/s  "
            f"{self._tokens / seconds:.0f} tokens/s"
        )
        if self._bar:
            self._bar.update(self._task, completed=step, total=run.steps, description=text)
        elif now - self._last > LINE_SECONDS or step == run.steps:
            left = (run.steps - step) * seconds / self._steps
            log(f"step {step}/{run.steps}  {text}  {left:.0f} s left")
            self._last = now

    def _by_task(self) -> str:
        told = ", ".join(
            f"{name} {self._losses[name]:.2f}" for name in self._names if name in self._losses
        )
        return f" ({told})" if told else ""

    def _write(self, run: "TrainingRun") -> None:
        """Add the last row; the first time, those before it too, over whatever an interrupted run left."""
        first = len(run.train) - 1
        if not self._columns:
            by_task = [f"{what}_{name}" for name in self._names for what in ("loss", "share")]
            shared = [name for name in run.train[-1] if name not in by_task]
            self._columns = [*shared, *by_task, *run.resource_usage[-1]]
            self._curve.parent.mkdir(parents=True, exist_ok=True)
            self._curve.write_text("\t".join(self._columns) + "\n", encoding="utf-8")
            first = 0
        with self._curve.open("a", encoding="utf-8") as file:
            for step in range(first, len(run.train)):
                row = run.train[step] | run.resource_usage[step]
                file.write(
                    "\t".join(f"{row[name]:.6g}" if name in row else "" for name in self._columns)
                    + "\n"
                )

    def validated(self, run: "TrainingRun") -> None:
        """A validation is done, the last of `run.validation`."""
        row = run.validation[-1]
        each = [f"{name} {row[f'score_{name}']:.2f}" for name in self._names]
        self.log(
            f"step {row['step']:.0f}: validation {row['score']:.2f}"
            + (f" ({', '.join(each)})" if each else "")
        )
        self._track(lambda tracker: tracker.log(row))
        self._then(run)

    def _track(self, tell: Callable[[Tracker], None]) -> None:
        """A tool that fails, a server that is away, costs its curves and not the training."""
        if self._tracker:
            try:
                tell(self._tracker)
            except Exception as error:
                self._tracker = None
                self.log(
                    f"tracking has ended: {(str(error) or type(error).__name__).splitlines()[0]}"
                )

    def log(self, line: str) -> None:
        """A line of its own."""
        if self._bar:
            self._bar.console.print(f"  {line}", highlight=False)
        elif self._visible:
            log(line)

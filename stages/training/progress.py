"""Show the progress of training: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Sequence
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from pipeline.training.callbacks import TrainingCallback, TrainingRun
from stages.runtime.entry import log

SECONDS_BETWEEN_LINES = 15.0


class Progress(TrainingCallback):
    """Shows step, loss by task, rows and tokens per second, and the remaining time.

    It is a context manager around the training.
    """

    def __init__(self, title: str, names: Sequence[str]) -> None:
        """`names` are the tasks."""
        self._names = names if len(names) > 1 else []
        self._losses: dict[str, float] = {}
        self._started = self._last = time.monotonic()
        self._rows = self._tokens = self._steps = 0
        self._bar: Bar | None = None
        if sys.stdout.isatty():
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

    def step(self, run: TrainingRun, rows: int, tokens: int) -> None:
        """Update the bar, or write a line every `SECONDS_BETWEEN_LINES` and at the end."""
        row, now = run.train[-1], time.monotonic()
        step = int(row["step"])
        self._rows, self._tokens, self._steps = (
            self._rows + rows,
            self._tokens + tokens,
            self._steps + 1,
        )
        # A step may have no rows of some tasks.
        self._losses |= {name: row[f"loss_{name}"] for name in self._names if f"loss_{name}" in row}
        seconds = max(now - self._started, 1e-9)
        text = (
            f"loss {row['loss']:.3f}{self._by_task()}  {self._rows / seconds:.0f} rows/s  "
            f"{self._tokens / seconds:.0f} tokens/s"
        )
        if self._bar:
            self._bar.update(self._task, completed=step, total=run.steps, description=text)
        elif now - self._last > SECONDS_BETWEEN_LINES or step == run.steps:
            left = (run.steps - step) * seconds / self._steps
            log(f"step {step}/{run.steps}  {text}  {left:.0f} s left")
            self._last = now

    def _by_task(self) -> str:
        losses = [
            f"{name} {self._losses[name]:.2f}" for name in self._names if name in self._losses
        ]
        return f" ({', '.join(losses)})" if losses else ""

    def validated(self, run: TrainingRun) -> None:
        """Write a line with the validation scores."""
        row = run.validation[-1]
        scores = [f"{name} {row[f'score_{name}']:.2f}" for name in self._names]
        self.log(
            f"step {row['step']:.0f}: validation {row['score']:.2f}"
            + (f" ({', '.join(scores)})" if scores else "")
        )

    def log(self, line: str) -> None:
        """Write a line, above the bar if there is one."""
        if self._bar:
            self._bar.console.print(f"  {line}", highlight=False)
        else:
            log(line)

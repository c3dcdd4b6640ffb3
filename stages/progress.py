"""A progress bar on a terminal, plain lines elsewhere."""

import sys
import time
from types import TracebackType

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_SECONDS = 15.0


class Progress:
    """Shows a training run: step, loss, rows per second, time left. Silent where not `visible`."""

    def __init__(self, title: str, visible: bool) -> None:
        self._visible = visible
        self._started = self._last = time.monotonic()
        self._rows = self._steps = 0
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

    def step(self, step: int, steps: int, rows: int, loss: float) -> None:
        """Step `step` of `steps` is done; it held `rows` rows."""
        self._rows += rows
        self._steps += 1
        now = time.monotonic()
        rate = self._rows / max(now - self._started, 1e-9)
        if self._bar:
            self._bar.update(self._task, completed=step, total=steps, description=f"loss {loss:.3f}  {rate:.0f} rows/s")
        elif self._visible and (now - self._last > LINE_SECONDS or step == steps):
            left = (steps - step) * (now - self._started) / self._steps
            print(f"  step {step}/{steps}  loss {loss:.3f}  {rate:.0f} rows/s  {left:.0f} s left", flush=True)
            self._last = now

    def say(self, line: str) -> None:
        """A line of its own."""
        if self._bar:
            self._bar.console.print(f"  {line}", highlight=False)
        elif self._visible:
            print(f"  {line}", flush=True)

"""What every stage does around its work: quiet the libraries, show errors without a traceback, say what was read and written."""

import inspect
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import UserError

SHOWN_PROBLEMS = 20


def run(stage: Callable[..., None]) -> None:
    """Call a stage with the command line's words as its arguments; exit with 1 and a message on a user's mistake."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    started = time.monotonic()
    with errors_shown():
        _check_words(stage)
        stage(*sys.argv[1:])
    say(f"done in {time.monotonic() - started:.1f} s")


@contextmanager
def errors_shown() -> Iterator[None]:
    """Exit with 1 and a line a problem, without a traceback, on a user's mistake."""
    try:
        yield
    except UserError as error:
        for problem in error.problems[:SHOWN_PROBLEMS]:
            print(f"error: {problem}", file=sys.stderr)
        if len(error.problems) > SHOWN_PROBLEMS:
            print(f"error: and {len(error.problems) - SHOWN_PROBLEMS} more problems", file=sys.stderr)
        raise SystemExit(1) from None


def _check_words(stage: Callable[..., None]) -> None:
    try:
        inspect.signature(stage).bind(*sys.argv[1:])
    except TypeError:
        usage = " ".join([f"python -m stages.{stage.__name__}", *map(str.upper, inspect.signature(stage).parameters)])
        raise UserError(f"found {' '.join(sys.argv[1:]) or 'no word'!r} after the module's name; write {usage}") from None


def say(line: str) -> None:
    """One line for a person."""
    print(f"  {line}", flush=True)


def say_read(*paths: Path) -> None:
    """Log what a stage read."""
    say("read " + ", ".join(map(str, paths)))


def say_wrote(*paths: Path) -> None:
    """Log what a stage wrote, with sizes."""
    say("wrote " + ", ".join(f"{path} ({size_of(path)})" for path in paths))


def size_of(path: Path) -> str:
    """The size of a file, or of all files in a folder, in words."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = float(sum(file.stat().st_size for file in files))
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"

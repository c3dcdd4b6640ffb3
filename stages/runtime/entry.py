"""What every stage does around its work: quiet the libraries, show errors without a traceback, say
what was read and written.
"""

import contextlib
import errno
import inspect
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.errors import Stopped, UserError
from pipeline.files import atomic_write
from stages.runtime.parent_process import end_with_dvc
from stages.runtime.paths import STOPPED

SHOWN_PROBLEMS = 20
STOPS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
)  # the last: a scheduler's notice before it preempts


def run(stage: Callable[..., None], who: str = "") -> None:
    """Call a stage with the command line's words as its arguments; exit with 1 and a message on a
    user's mistake.

    `who` says in messages which of several processes this is.
    """
    end_with_dvc()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    started = time.monotonic()
    with report_errors(who):
        check_arguments(stage)
        stage(*sys.argv[1:])
    log(f"done in {time.monotonic() - started:.1f} s")


@contextmanager
def report_errors(who: str = "") -> Iterator[None]:
    """Exit with 1 and a line a problem, without a traceback, on a user's mistake or a full disk;
    with 143 when asked to stop.
    """
    try:
        yield
    except UserError as error:
        for problem in error.problems[:SHOWN_PROBLEMS]:
            print(f"error: {who}{problem}", file=sys.stderr)
        if len(error.problems) > SHOWN_PROBLEMS:
            print(
                f"error: {who}and {len(error.problems) - SHOWN_PROBLEMS} more problems",
                file=sys.stderr,
            )
        raise SystemExit(1) from None
    except Stopped as stopped:
        atomic_write(STOPPED, f"{stopped}\n")
        log(f"{stopped}; run it again, and it goes on from there")
        raise SystemExit(128 + signal.SIGTERM) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"error: {who}{error.filename or 'writing'}: {error.strerror}; make room and run it "
            "again: what was there "
            "before is whole",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except Exception:
        if who:
            print(f"error: {who}a bug of ours, with this traceback:", file=sys.stderr)
        raise


@contextmanager
def stops() -> Iterator[list[int]]:
    """A list that holds the signals which asked this process to stop in the block. Ctrl-C a second
    time stops it at once.
    """
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        asked.append(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    before = {number: signal.getsignal(number) for number in STOPS}
    for number in STOPS:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def check_arguments(stage: Callable[..., None]) -> None:
    """Raise UserError with the usage unless the command line's words are the stage's."""
    try:
        inspect.signature(stage).bind(*sys.argv[1:])
    except TypeError:
        words = inspect.signature(stage).parameters.values()
        shown = [
            word.name.upper() if word.default is word.empty else f"[{word.name.upper()}]"
            for word in words
        ]
        usage = " ".join([f"python -m stages.{stage.__name__}", *shown])
        raise UserError(
            f"found {' '.join(sys.argv[1:]) or 'no word'!r} after the module's name; write {usage}"
        ) from None


def log(line: str) -> None:
    """One line for a person. That nobody reads them any more ends nothing."""
    with contextlib.suppress(BrokenPipeError):
        print(f"  {line}", flush=True)


def log_read(*paths: Path) -> None:
    """Log what a stage read."""
    log("read " + ", ".join(map(str, paths)))


def log_wrote(*paths: Path) -> None:
    """Log what a stage wrote, with sizes."""
    log("wrote " + ", ".join(f"{path} ({size_of(path)})" for path in paths))


def size_of(path: Path) -> str:
    """The size of a file, or of all files in a folder, in words."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = float(sum(file.stat().st_size for file in files))
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"

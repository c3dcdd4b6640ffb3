"""The entry point of the stages: arguments, error messages without a traceback, and log lines."""

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

MAX_SHOWN_PROBLEMS = 20
STOP_SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,  # a scheduler sends it before it preempts a job
)


def run(stage: Callable[..., None], prefix: str = "") -> None:
    """Call a stage with the command-line arguments.

    Exits with status 1 and a message on a user error. `prefix` starts each error message; with
    several processes it names this one.
    """
    end_with_dvc()
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    started = time.monotonic()
    with report_errors(prefix):
        check_arguments(stage)
        stage(*sys.argv[1:])
    log(f"done in {time.monotonic() - started:.1f} s")


@contextmanager
def report_errors(prefix: str = "") -> Iterator[None]:
    """Report errors of the block on stderr, each after `prefix`, and exit.

    - A user error: exit with status 1 and one line per problem, without a traceback.
    - A full disk or an exceeded disk quota: exit with status 1 and one line.
    - A stop signal (`Stopped`): exit with status 143.

    Any other exception is raised again, because it is a bug.
    """
    try:
        yield
    except UserError as error:
        for problem in error.problems[:MAX_SHOWN_PROBLEMS]:
            print(f"error: {prefix}{problem}", file=sys.stderr)
        if len(error.problems) > MAX_SHOWN_PROBLEMS:
            print(
                f"error: {prefix}and {len(error.problems) - MAX_SHOWN_PROBLEMS} more problems",
                file=sys.stderr,
            )
        raise SystemExit(1) from None
    except Stopped as stopped:
        atomic_write(STOPPED, f"{stopped}\n")
        log(f"{stopped}; run it again to resume")
        raise SystemExit(128 + signal.SIGTERM) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        print(
            f"error: {prefix}{error.filename or 'writing'}: {error.strerror}; free some disk space "
            "and run it again: all existing files are intact",
            file=sys.stderr,
        )
        raise SystemExit(1) from None
    except Exception:
        if prefix:
            print(
                f"error: {prefix}this is a bug in deep-prompt; the traceback follows:",
                file=sys.stderr,
            )
        raise


class StopSignals(list[int]):
    """The stop signals received so far.

    A signal must not interrupt the code of a library: an exception out of a signal handler may end
    the process with SIGABRT. So the code asks for signals where it can end.
    """

    _waiting = False

    def receive(self, number: int) -> None:
        """Add a signal. Raises SystemExit in a block of `waiting`."""
        self.append(number)
        if self._waiting:
            self.exit_if_any()

    def exit_if_any(self) -> None:
        """Raise SystemExit with status 128 + N if signal N was received first."""
        if self:
            raise SystemExit(128 + self[0])

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Raise SystemExit in the block as soon as there is a signal, for code that may block."""
        self._waiting = True
        try:
            self.exit_if_any()
            yield
        finally:
            self._waiting = False


@contextmanager
def stops() -> Iterator[StopSignals]:
    """Collect stop signals in the block instead of ending the process.

    Yields the signals received so far. A second Ctrl-C ends the process at once. Under `nohup`,
    SIGHUP stays ignored.
    """
    received = StopSignals()

    def receive(number: int, _: object) -> None:
        received.receive(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.default_int_handler)

    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    if previous[signal.SIGHUP] is signal.SIG_IGN:
        del previous[signal.SIGHUP]
    for number in previous:
        signal.signal(number, receive)
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def check_arguments(stage: Callable[..., None]) -> None:
    """Raise UserError with the usage if the command-line arguments do not fit the stage."""
    try:
        inspect.signature(stage).bind(*sys.argv[1:])
    except TypeError:
        parameters = inspect.signature(stage).parameters.values()
        names = [
            parameter.name.upper()
            if parameter.default is parameter.empty
            else f"[{parameter.name.upper()}]"
            for parameter in parameters
        ]
        usage = " ".join([f"python -m stages.{stage.__name__}", *names])
        arguments = " ".join(sys.argv[1:])
        raise UserError(
            f"stages.{stage.__name__}: found "
            f"{f'the arguments {arguments!r}' if arguments else 'no arguments'}; run {usage}"
        ) from None


def discard_stdout() -> None:
    """Send what this process still writes to stdout to the null device."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def log(line: str) -> None:
    """Print a line for the user. Does nothing if the reader of stdout has closed it."""
    with contextlib.suppress(BrokenPipeError):
        print(f"  {line}", flush=True)


def log_read(*paths: Path) -> None:
    """Log the files or folders that a stage has read."""
    log("read " + ", ".join(map(str, paths)))


def log_wrote(*paths: Path) -> None:
    """Log the files or folders that a stage has written, with their sizes."""
    log("wrote " + ", ".join(f"{path} ({size_of(path)})" for path in paths))


def size_of(path: Path) -> str:
    """The size of a file, or of all files in a folder, with its unit."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = float(sum(file.stat().st_size for file in files))
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            break
        size /= 1000
    return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"

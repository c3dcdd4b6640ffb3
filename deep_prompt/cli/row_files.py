"""Files of rows: read lines of JSON from a file or stdin, and write lines to a file or stdout.

Messages name the options --input and --output.
"""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from deep_prompt.cli.arguments import output_errors
from pipeline.errors import UserError
from pipeline.files import atomic_stream
from stages.runtime.entry import StopSignals, discard_stdout

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from pipeline.tasks.base.row import Row


@contextmanager
def open_input(name: str) -> Iterator[tuple[BinaryIO, str]]:
    """Open a file or stdin. Yields the stream, and its name for messages."""
    if name == "-":
        yield sys.stdin.buffer, "stdin"
        return
    from pipeline.data.readers.base import READ_ERRORS, damaged_message, open_file

    path = Path(name)
    try:
        # A pipe is read once only, so its first bytes cannot tell whether it is compressed.
        stream = open_file(path) if path.is_file() else path.open("rb")
    except OSError as error:
        raise UserError(
            f"--input: {name} cannot be read: {error.strerror}; give a file of JSON lines"
        ) from None
    except READ_ERRORS as error:
        raise UserError(f"--input: {name}: {damaged_message(error)}") from None
    with stream:
        yield stream, name


def read_lines(stream: BinaryIO, name: str, stop_signals: StopSignals) -> Iterator[bytes]:
    """Yield the lines of a stream. Raises SystemExit on a stop signal, also while it waits."""
    from pipeline.data.readers.base import READ_ERRORS, damaged_message

    while True:
        try:
            with stop_signals.waiting():
                line = stream.readline()
        except READ_ERRORS as error:
            raise UserError(f"--input: {name}: {damaged_message(error)}") from None
        if not line:
            return
        yield line


def parse_rows(lines: Iterable[bytes], name: str, default: "Row") -> "Iterator[Row | UserError]":
    """Yield the row of each line of JSON, or the error of a malformed line. Skip blank lines.

    `default` has values for the keys that a row lacks.
    """
    from pipeline.data.readers.base import compression_of, foreign_content, not_utf8_message
    from pipeline.data.readers.json_values import decode

    for line, raw in enumerate(lines, start=1):
        where = f"{name}:{line}"
        if line == 1 and (kind := compression_of(raw)):
            raise UserError(f"--input: {name} is compressed with {kind}; unpack it")
        if line == 1 and (content := foreign_content(raw[:1024])):
            raise UserError(f"--input: {name} is {content}")
        try:
            text = raw.decode("utf-8-sig" if line == 1 else "utf-8").strip()
            value = decode(text) if text else None
        except UnicodeDecodeError as error:
            yield UserError(f"{where}: {not_utf8_message(error)}")
        except ValueError as error:
            yield UserError(f"{where}: {error}; write one JSON object per line")
        else:
            if isinstance(value, dict):
                yield {**default, **value, "where": where}
            elif text:
                yield UserError(
                    f"{where}: found {text[:40]!r}, expected a mapping; "
                    "write one JSON object per line"
                )


@contextmanager
def open_output(name: str) -> Iterator[Callable[[str], object]]:
    """Yield a function that writes a line.

    It writes to stdout or a device at once. A file appears only when it is complete.
    """
    if name == "-":
        try:
            yield partial(_write, sys.stdout.buffer)
        except (SystemExit, KeyboardInterrupt):  # a stop signal
            # Python flushes stdout again at exit, and would wait for a reader that does not read.
            discard_stdout()
            raise
        return
    path = Path(name)
    with ExitStack() as stack:
        write: Callable[[str], object]
        with output_errors("--output", name):
            if path.is_file() or not path.exists():
                # `resolve`: replace the target of a link, not the link.
                write = stack.enter_context(atomic_stream(path.resolve())).write
            else:
                device = path.open("wb")
                stack.callback(_close, device)
                write = partial(_write, device)

        def write_line(line: str) -> None:
            with output_errors("--output", name):
                write(line)

        yield write_line
        with output_errors("--output", name):
            stack.close()


def _close(device: BinaryIO) -> None:
    with suppress(OSError):  # of a line that could not be written, which was reported
        device.close()


def _write(stream: BinaryIO, line: str) -> None:
    stream.write(line.encode())
    stream.flush()

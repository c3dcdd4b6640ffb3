"""Files of rows: read them from a file or stdin, and write lines to a file or stdout.

Messages name the options --input and --output.
"""

import csv
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from deep_prompt.cli.arguments import output_errors
from pipeline.errors import UserError, abbreviate, quantity
from pipeline.files import atomic_stream
from stages.runtime.entry import StopSignals, discard_stdout

# Other imports are inside the functions: see deep_prompt.cli.main.
# ruff: noqa: PLC0415
if TYPE_CHECKING:
    from pipeline.tasks.base.row import Row

_DELIMITERS = {".csv": ",", ".tsv": "\t"}


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
            f"--input: {name} cannot be read: {error.strerror}; give a file of rows"
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


def parse_rows(
    lines: Iterable[bytes],
    name: str,
    default: "Row",
    check_columns: "Callable[[Row], None] | None" = None,
) -> "Iterator[Row | UserError]":
    """Yield the rows of a file, or the errors of malformed lines. Skip blank lines.

    The extension of `name` selects the format: .csv and .tsv have a header with the keys of the
    rows, .txt has a text per line, and all others are lines of JSON. `default` has values for the
    keys that a row lacks. `check_columns` is called with the header of a table as a row with empty
    values.
    """
    from pipeline.data.readers.base import uncompressed

    kind, texts = uncompressed(Path(name)).suffix.lower(), _decode_lines(lines, name)
    if kind in _DELIMITERS:
        rows = _table_rows(
            texts, kind, lambda row: check_columns and check_columns({**default, **row})
        )
    else:
        rows = _line_rows(texts, _text_row if kind == ".txt" else _json_row)
    for row in rows:
        yield row if isinstance(row, UserError) else {**default, **row}


class _Line(NamedTuple):
    where: str
    text: str


def _decode_lines(lines: Iterable[bytes], name: str) -> Iterator[_Line | UserError]:
    """The lines in UTF-8, or the errors of the others. Raises UserError if it is no text file."""
    from pipeline.data.readers.base import compression_of, foreign_content, not_utf8_message

    for number, raw in enumerate(lines, start=1):
        where = f"{name}:{number}"
        if number == 1 and (kind := compression_of(raw)):
            raise UserError(f"--input: {name} is compressed with {kind}; unpack it")
        if number == 1 and (content := foreign_content(raw[:1024])):
            raise UserError(f"--input: {name} is {content}")
        try:
            yield _Line(where, raw.decode("utf-8-sig" if number == 1 else "utf-8"))
        except UnicodeDecodeError as error:
            yield UserError(f"{where}: {not_utf8_message(error)}")


def _line_rows(
    lines: Iterable[_Line | UserError], parse: "Callable[[_Line], Row | UserError]"
) -> "Iterator[Row | UserError]":
    for line in lines:
        if isinstance(line, UserError):
            yield line
        elif line.text.strip():
            yield parse(line)


def _text_row(line: _Line) -> "Row":
    return {"text": line.text.strip(), "where": line.where}


def _json_row(line: _Line) -> "Row | UserError":
    from pipeline.data.readers.json_values import decode

    text = line.text.strip()
    try:
        value = decode(text)
    except ValueError as error:
        remedy = "write one JSON object per line"
        if text.startswith("["):
            remedy += ", for example with jq -c '.[]'"
        return UserError(f"{line.where}: {error}; {remedy}")
    if isinstance(value, dict):
        return {**value, "where": line.where}
    return UserError(
        f"{line.where}: found {text[:40]!r}, expected a mapping; write one JSON object per line"
    )


def _table_rows(
    texts: Iterable[_Line | UserError], kind: str, check_header: "Callable[[Row], object]"
) -> "Iterator[Row | UserError]":
    """The rows of CSV, or of TSV, whose cells have no quotes. Empty cells are absent keys.

    `check_header` is called with a row that has an empty value for each key of the first line.
    Raises UserError with the line of an error after which the next row cannot be found.
    """
    from pipeline.data.readers.tables import MAX_CELL_CHARACTERS

    where = ""

    def line_texts() -> Iterator[str]:
        nonlocal where
        for line in texts:
            if isinstance(line, UserError):
                raise line
            where = line.where
            yield line.text

    csv.field_size_limit(MAX_CELL_CHARACTERS)
    reader = csv.reader(
        line_texts(),
        delimiter=_DELIMITERS[kind],
        strict=True,
        quoting=csv.QUOTE_MINIMAL if kind == ".csv" else csv.QUOTE_NONE,
    )
    try:
        keys = next(reader, [])
        if repeated := sorted({key for key in keys if keys.count(key) > 1}):
            raise UserError(f"{where}: names the key {repeated[0]!r} twice; rename one")
        if keys:
            check_header({**dict.fromkeys(keys, ""), "where": where})
        for cells in filter(None, reader):
            yield _table_row(keys, cells, kind, where)
    except csv.Error as error:
        raise UserError(
            f"{where}: not valid {kind[1:].upper()}: {error}; put cells with quotes, delimiters or "
            "line endings into double quotes, and double the quotes in them"
        ) from None


def _table_row(
    keys: Sequence[str], cells: Sequence[str], kind: str, where: str
) -> "Row | UserError":
    from pipeline.data.readers.tables import is_quoted

    if len(cells) != len(keys):
        return UserError(
            f"{where}: has {quantity(len(cells), 'cell')}, but the first line names "
            f"{quantity(len(keys), 'key')}; correct the line"
        )
    if kind == ".tsv" and (quoted := next(filter(is_quoted, cells), None)):
        return UserError(
            f"{where}: cell {abbreviate(quoted, 40)} is in quotes, which a TSV does not have; "
            "remove them, or give a CSV or lines of JSON"
        )
    row = {key: cell for key, cell in zip(keys, cells, strict=True) if cell}
    return {**row, "where": where}


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

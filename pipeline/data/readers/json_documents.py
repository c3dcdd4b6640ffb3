"""Records in one JSON value: a list, or a mapping with a list under `data`, read as a stream."""

from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from pipeline.data.readers.base import READ_ERRORS, damaged_message, open_text
from pipeline.data.readers.json_stream import JsonStream, NotJsonError
from pipeline.data.readers.json_values import check
from pipeline.errors import Problems

DATA = "data"  # the key of the records in a mapping


def is_document(path: Path, columns: Collection[str]) -> bool:
    """Whether the file is one list, or one mapping with a list of mappings under `data`.

    It is JSON lines if its first mapping has one of the records' `columns` before `data`.
    """
    try:
        with open_text(path) as file:
            stream = JsonStream(file)
            if stream.peek() != "{":
                return stream.peek() == "["
            for key in stream.members():
                if key in columns:
                    return False
                if key == DATA and stream.peek() == "[":
                    return next((stream.peek() == "{" for _ in stream.items()), True)
                stream.value()
    except (NotJsonError, *READ_ERRORS):
        pass
    return False


def items(path: Path, problems: Problems) -> Iterator[tuple[str, dict[str, Any]]]:
    """The position and the mapping of each item of the list.

    The position is "file:line", and the item's index if it begins on the line of another item. An
    item without a mapping adds a problem.
    """
    try:
        with open_text(path) as file:
            stream = JsonStream(file)
            previous_line = 0
            for index in _list_items(stream):
                where = f"{path}:{stream.line}"
                if stream.line == previous_line:
                    where += f": [{index}]"
                previous_line = stream.line
                value = stream.value()
                if check(value, where, {}, problems):
                    yield where, value
            stream.end()
    except NotJsonError as error:
        problems.add(f"{path}:{error.line}", str(error), error.kind, hides=True)
    except READ_ERRORS as error:
        problems.add(str(path), damaged_message(error), "damaged-file", hides=True)


def _list_items(stream: JsonStream) -> Iterator[int]:
    if stream.peek() == "[":
        yield from stream.items()
        return
    for key in stream.members():
        if key == DATA and stream.peek() == "[":
            yield from stream.items()
        else:
            stream.value()

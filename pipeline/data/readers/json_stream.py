"""A JSON text parsed as a stream: memory holds only the largest value that the caller reads."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipeline.data.readers.base import not_utf8_message
from pipeline.data.readers.json_values import (
    LONE_SURROGATE,
    RepeatedKeyError,
    has_lone_surrogate,
    unique_keys,
)
from pipeline.errors import UNDECODABLE

BUFFER_BYTES = 1 << 16


class NotJsonError(ValueError):
    """The text is not valid JSON in `line` (counted from 1). `kind` is the kind of problem."""

    def __init__(self, line: int, message: str, kind: str = "not-json") -> None:
        super().__init__(message)
        self.line, self.kind = line, kind


class JsonStream:
    """A cursor in a JSON text. All methods raise NotJsonError, and the read errors of `file`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._decode = json.JSONDecoder(object_pairs_hook=unique_keys).raw_decode
        self._num_bytes = 0  # read so far
        self._text, self._at = "", 0  # the buffer, and the position of the next character in it
        self._line, self._column = 1, 1  # of the first character in the buffer

    @property
    def line(self) -> int:
        """The line of the next value."""
        self.peek()
        self._discard()
        return self._line

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._read_more():
                return ""

    def value(self) -> Any:
        """Read one value of any type."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Near the end of the buffer, or in an unterminated text, the rest may be unread.
                near_end = error.pos > len(self._text) - 12
                if (near_end or error.msg.startswith("Unterminated")) and self._read_more():
                    continue
                raise self._error(error.pos, error.msg) from None
            except RepeatedKeyError as error:
                raise self._repeated_key(self._at, error) from None
            except (ValueError, RecursionError) as error:
                raise self._error(self._at, str(error)) from None
            rest = self._text[end : end + 3]
            if len(rest) < 3 and not rest.strip(".eE+-") and self._read_more():
                continue  # the value may be a number with more digits
            if has_lone_surrogate(self._text[self._at : end], value):
                raise self._error(self._at, LONE_SURROGATE)
            self._at = end
            return value

    def items(self) -> Iterator[int]:
        """Iterate over a list: the number of each item. Read the item before the next one."""
        self._take("[")
        number = 0
        while self.peek() != "]":
            if number:
                self._take(",")
            yield number
            number += 1
        self._take("]")

    def members(self) -> Iterator[str]:
        """Iterate over a mapping: each key. Read its value before the next key."""
        self._take("{")
        keys = set[str]()
        while self.peek() != "}":
            if keys:
                self._take(",")
            if self.peek() != '"':
                raise self._error(self._at, "Expecting property name enclosed in double quotes")
            start = self._at
            key = self.value()
            if key in keys:
                raise self._repeated_key(start, RepeatedKeyError(key))
            keys.add(key)
            self._take(":")
            yield key
        self._take("}")

    def end(self) -> None:
        """Check that the text ends here."""
        if self.peek():
            raise self._error(self._at, "Extra data")

    def _take(self, char: str) -> None:
        if self.peek() != char:
            raise self._error(self._at, f"Expecting {char!r}{' delimiter' if char in ',:' else ''}")
        self._at += 1

    def _read_more(self) -> bool:
        """Discard the text before the cursor and double the buffer; False at the end of file."""
        raw = self._file.read(max(BUFFER_BYTES, len(self._text) - self._at))
        self._discard()
        try:
            self._text += self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            line = self._position(len(self._text))[0] + error.object[: error.start].count(b"\n")
            offset = self._num_bytes + len(raw) - len(error.object)
            raise NotJsonError(line, not_utf8_message(error, offset), UNDECODABLE) from None
        self._num_bytes += len(raw)
        return bool(raw)

    def _discard(self) -> None:
        """Discard the text before the cursor."""
        self._line, self._column = self._position(self._at)
        self._text, self._at = self._text[self._at :], 0

    def _position(self, index: int) -> tuple[int, int]:
        """Line and column of a character in the buffer."""
        newlines = self._text.count("\n", 0, index)
        column = index - self._text.rfind("\n", 0, index) if newlines else self._column + index
        return self._line + newlines, column

    def _error(self, index: int, message: str) -> NotJsonError:
        line, column = self._position(index)
        return NotJsonError(
            line, f"not valid JSON at column {column}: {message}; download the file again"
        )

    def _repeated_key(self, index: int, error: RepeatedKeyError) -> NotJsonError:
        line, column = self._position(index)
        return NotJsonError(line, f"column {column}: {error}")

"""A JSON text walked through as it is read: a file of any size takes the memory of the largest value that is asked for."""

import codecs
import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from pipeline.data.readers.base import not_utf8
from pipeline.data.readers.json_values import HALF, has_half_character
from pipeline.errors import UNDECODABLE

CHUNK = 1 << 16  # bytes


class NotJsonError(ValueError):
    """The text is no JSON from `line` on (counted from 1). `kind` is that of the problem."""

    def __init__(self, line: int, message: str, kind: str = "not-json") -> None:
        super().__init__(message)
        self.line, self.kind = line, kind


class JsonStream:
    """What comes next in a JSON text. All methods raise NotJsonError, and what reading `file` raises."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._decode = json.JSONDecoder().raw_decode
        self._bytes = 0  # read so far
        self._text, self._at = "", 0  # what is held, and where in it the next character is
        self._line, self._column = 1, 1  # of the first character held

    @property
    def line(self) -> int:
        """The line of what comes next."""
        self.peek()
        self._let_go()
        return self._line

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def value(self) -> Any:
        """Read one value, whatever it is."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Near the end of what is held, or in a text without end, the rest may be missing only because it is not read yet.
                if (
                    error.pos > len(self._text) - 12 or error.msg.startswith("Unterminated")
                ) and self._more():
                    continue
                raise self._wrong(error.pos, error.msg) from None
            except (ValueError, RecursionError) as error:
                raise self._wrong(self._at, str(error)) from None
            if (
                len(self._text) - end < 3 and not self._text[end:].strip(".eE+-") and self._more()
            ):  # a number may go on
                continue
            if has_half_character(self._text[self._at : end], value):
                raise self._wrong(self._at, HALF)
            self._at = end
            return value

    def items(self) -> Iterator[int]:
        """Walk through a list: the number of each item, which is to be read before the next."""
        self._take("[")
        number = 0
        while self.peek() != "]":
            if number:
                self._take(",")
            yield number
            number += 1
        self._take("]")

    def members(self) -> Iterator[str]:
        """Walk through a mapping: each key, whose value is to be read before the next."""
        self._take("{")
        first = True
        while self.peek() != "}":
            if not first:
                self._take(",")
            first = False
            if self.peek() != '"':
                raise self._wrong(self._at, "Expecting property name enclosed in double quotes")
            key = self.value()
            self._take(":")
            yield key
        self._take("}")

    def end(self) -> None:
        """Make sure that nothing follows."""
        if self.peek():
            raise self._wrong(self._at, "Extra data")

    def _take(self, char: str) -> None:
        if self.peek() != char:
            raise self._wrong(self._at, f"Expecting {char!r}{' delimiter' if char in ',:' else ''}")
        self._at += 1

    def _more(self) -> bool:
        """Read on, as much again as is held, and let go of what was read; False at the end of the file."""
        raw = self._file.read(max(CHUNK, len(self._text) - self._at))
        self._let_go()
        try:
            self._text += self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            line = self._place(len(self._text))[0] + error.object[: error.start].count(b"\n")
            before = self._bytes + len(raw) - len(error.object)
            raise NotJsonError(line, not_utf8(error, before), UNDECODABLE) from None
        self._bytes += len(raw)
        return bool(raw)

    def _let_go(self) -> None:
        """Hold no longer what was read."""
        self._line, self._column = self._place(self._at)
        self._text, self._at = self._text[self._at :], 0

    def _place(self, position: int) -> tuple[int, int]:
        """Line and column of a character that is held."""
        newlines = self._text.count("\n", 0, position)
        column = (
            position - self._text.rfind("\n", 0, position) if newlines else self._column + position
        )
        return self._line + newlines, column

    def _wrong(self, position: int, message: str) -> NotJsonError:
        line, column = self._place(position)
        return NotJsonError(
            line, f"not valid JSON at column {column}: {message}; download the file again?"
        )

"""Offsets of spans in a text: units other than characters, and spans that cut a word."""

import re
from collections.abc import Iterator
from typing import Literal, get_args
from unicodedata import category

from pipeline.errors import Problems
from pipeline.metrics.base import UNSPACED_OR_RARE

OffsetUnit = Literal["characters", "utf16", "bytes"]
"""The unit of a corpus's offsets: characters (code points), UTF-16 code units (JavaScript, Java,
C#), or bytes of UTF-8 (Go, Rust, C)."""

_ENCODINGS = {"utf16": ("utf-16-le", 2), "bytes": ("utf-8", 1)}
_UNIT_NAMES: dict[OffsetUnit, str] = {"utf16": "UTF-16", "bytes": "byte"}

# Also Hangul, whose particles have no space before them.
_match_unspaced = re.compile(f"{UNSPACED_OR_RARE.pattern}|[\uac00-\ud7af]").match


def to_characters(text: str, offset: int, unit: OffsetUnit) -> int | None:
    """The offset in characters of an offset in `unit`; None if it is inside a character.

    An offset outside the text stays outside.
    """
    if unit == "characters" or offset < 0 or text.isascii():
        return offset
    encoding, width = _ENCODINGS[unit]
    try:
        encoded = text.encode(encoding)
    except UnicodeEncodeError:  # half a surrogate pair, which the task reports
        return offset
    try:
        characters = len(encoded[: offset * width].decode(encoding))
    except UnicodeDecodeError:
        return None
    return characters + max(0, offset - len(encoded) // width)


def text_mismatch_hint(context: str, text: str, start: int) -> str:
    """The cause, if `text` is at `start` in another way of counting, and the remedy.

    The ways are UTF-16, bytes, other line endings, an offset of one, and another case of letters.
    "" if none of them fits.
    """
    for unit in _other_units(context):
        position = to_characters(context, start, unit)
        if position is not None and position >= 0 and context.startswith(text, position):
            return f"consistent with {_UNIT_NAMES[unit]} offsets: {_remedy(unit)}"
    if start < 0:
        return ""
    for endings, (old, new) in {"\\r\\n": ("\n", "\r\n"), "\\n": ("\r\n", "\n")}.items():
        other = context.replace("\r\n", "\n").replace(old, new)
        if other != context and other.startswith(text.replace(old, new), start):
            return (
                f"consistent with offsets in a text with the line endings {endings}: "
                "recompute the offsets, or give the text with these line endings"
            )
    if any(
        context.startswith(text, position) for position in (start - 1, start + 1) if position >= 0
    ):
        return "off by one: count characters from 0, and correct the offsets"
    actual = context[start : start + len(text)]
    if actual.casefold() == text.casefold():
        return f"the two differ only in case: write {actual!r}"
    return ""


def span_hint(text: str, start: int, end: int) -> str:
    """The remedy if [start, end) is a span of whole words in another unit; "" if not."""
    for unit in _other_units(text):
        first, last = to_characters(text, start, unit), to_characters(text, end, unit)
        if first is None or last is None or not 0 <= first < last <= len(text):
            continue
        words = text[first:last]
        if words == words.strip() and not any(_cuts_word(text, at) for at in (first, last)):
            return (
                f"; the span is {words!r}, consistent with {_UNIT_NAMES[unit]} offsets: "
                f"{_remedy(unit)}"
            )
    return ""


def check_whole_words(
    name: str, text: str, start: int, end: int, where: str, problems: Problems
) -> None:
    """Warn if characters [start, end) of `text` begin or end inside a word.

    `name` is the name of the span in the message.
    """
    cut = [
        f"{verb} inside the word {_word_at(text, position)!r}"
        for verb, position in (("begins", start), ("ends", end))
        if _cuts_word(text, position)
    ]
    if cut:
        hint = span_hint(text, start, end) or "; correct its offsets, if it should be whole words"
        problems.add(
            where,
            f"{name} {text[start:end][:40]!r} at {start} to {end} {' and '.join(cut)}{hint}",
            "partial-word",
        )


def _other_units(text: str) -> Iterator[OffsetUnit]:
    if not text.isascii():
        yield from (unit for unit in get_args(OffsetUnit) if unit != "characters")


def _remedy(unit: OffsetUnit) -> str:
    return f"set offsets: {unit} in the recipe's options"


def _cuts_word(text: str, position: int) -> bool:
    """Whether letters, or digits, are on both sides of a position; or it separates a mark."""
    if not 0 < position < len(text):
        return False
    before, after = text[position - 1], text[position]
    if _match_unspaced(before) or _match_unspaced(after):
        return False
    kinds = {_character_kind(before), _character_kind(after)}
    return kinds in ({"letter"}, {"digit"}, {"letter", "mark"}, {"mark"})


def _character_kind(character: str) -> str:
    if character.isalpha():
        return "letter"
    if character.isdigit():
        return "digit"
    return "mark" if category(character)[0] == "M" else ""


def _word_at(text: str, position: int) -> str:
    """The text around a position, up to white space, limited in length."""
    before = re.search(r"\S*$", text[max(0, position - 40) : position])
    after = re.match(r"\S*", text[position : position + 40])
    assert before is not None
    assert after is not None
    return before[0] + after[0]

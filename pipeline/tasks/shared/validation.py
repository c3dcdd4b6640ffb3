"""Checks of a row's words and texts that tasks share. Each problem has its own kind; some are warnings (`errors.WARNINGS`)."""

import re
from collections.abc import Sequence
from typing import Any
from unicodedata import is_normalized

from pipeline.errors import Problems

# C0 and C1: left by a wrong decoding, a copy out of a PDF or a binary file. In a text, tab and line ends are none.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_HALF = re.compile(
    r"[\ud800-\udfff]"
)  # JSON can write one half of a pair of surrogates, UTF-8 cannot
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def check_words(tokens: Sequence[str], where: str, problems: Problems) -> bool:
    """Whether no word is empty or has a control character; a word that nobody can see is a warning."""
    joined = " ".join(tokens)
    if joined.isprintable() and all(map(str.strip, tokens)):
        return True
    before = len(problems)
    for position, token in enumerate(tokens):
        if not token.strip():
            problems.add(
                where,
                f"token {position} of {len(tokens)} is empty: {token!r}; remove it with its tag, or fill it in",
                "empty-token",
            )
        elif not check_whole(f"token {position}", token, where, problems):
            continue
        elif found := _CONTROL.search(token):
            problems.add(
                where,
                f"token {position} {token!r} has the control character U+{ord(found[0]):04X}; remove it from the "
                "token, or look how the file was converted",
                "control-character",
            )
        elif not any(character.isprintable() for character in token):
            problems.add(
                where,
                f"token {position} {token!r} has no visible character; a model sees it as unknown",
                "invisible-token",
            )
    return len(problems) == before


def check_text(key: str, value: Any, where: str, problems: Problems) -> bool:
    """Whether a row's value is text that is not empty; control characters in it are a warning."""
    if not isinstance(value, str):
        problems.add(
            where,
            f"{key}: found {type(value).__name__} {str(value)[:40]!r}, expected text",
            "wrong-type",
        )
        return False
    if not value.strip():
        problems.add(
            where,
            f"{key} is empty: {value[:40]!r}; fill it in, or remove the row",
            f"empty-{key.replace('_', '-')}",
        )
        return False
    if not check_whole(key, value, where, problems):
        return False
    found = _CONTROL_IN_TEXT.search(value)
    if found:
        problems.add(
            where,
            f"{key} has the control character U+{ord(found[0]):04X} at {found.start()}: "
            f"{value[max(0, found.start() - 10) : found.start() + 10]!r}; look how the file was converted",
            "control-character-in-text",
        )
    return True


def check_whole(key: str, text: str, where: str, problems: Problems) -> bool:
    """Whether a text has no half of a surrogate pair, which is no character and cannot be written."""
    found = None if text.isascii() else _HALF.search(text)
    if found:
        problems.add(
            where,
            f"{key} has half a surrogate pair, U+{ord(found[0]):04X}, at {found.start()}, which is no character; "
            "correct what wrote the file",
            "half-character",
        )
    return found is None


def check_nfc(key: str, text: str, where: str, problems: Problems) -> None:
    """Warn of a text with offsets into it that is not in Unicode's normal form C: a tool that normalizes it moves them."""
    if not text.isascii() and not is_normalized("NFC", text):
        problems.add(
            where,
            f"{key} is not in Unicode's normal form C, and offsets count its characters as they are; normalize "
            "the text, and count again, before another tool does",
            "not-nfc",
        )

"""Checks of tokens and texts, shared by the tasks.

Each check adds problems of its own kinds. Some kinds are warnings (`errors.WARNINGS`).
"""

import re
from collections.abc import Sequence
from typing import Any
from unicodedata import is_normalized

from pipeline.errors import Problems

# C0 and C1 control characters come from a wrong decoding, a PDF or a binary file. In a text, tabs
# and line ends are allowed.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# JSON can contain half of a surrogate pair, UTF-8 cannot.
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def check_words(tokens: Sequence[str], where: str, problems: Problems) -> bool:
    """Whether no token is empty or has a control character.

    A token without a visible character adds a warning.
    """
    joined = " ".join(tokens)
    if joined.isprintable() and all(map(str.strip, tokens)):
        return True
    before = len(problems)
    for position, token in enumerate(tokens):
        if not token.strip():
            problems.add(
                where,
                f"token {position} of {len(tokens)} is empty: {token!r}; remove it with its tag, "
                "or fill it in",
                "empty-token",
            )
        elif not check_surrogates(f"token {position}", token, where, problems):
            continue
        elif match := _CONTROL.search(token):
            problems.add(
                where,
                f"token {position} {token!r} has the control character U+{ord(match[0]):04X}; "
                "remove it from the token, or check the conversion of the file",
                "control-character",
            )
        elif not any(character.isprintable() for character in token):
            problems.add(
                where,
                f"token {position} {token!r} has no visible character, so a model reads it as "
                "an unknown token; remove it with its tag, or fill it in",
                "invisible-token",
            )
    return len(problems) == before


def check_text(key: str, value: Any, where: str, problems: Problems) -> bool:
    """Whether the value of `key` is a non-empty text. Control characters add a warning."""
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
    if not check_surrogates(key, value, where, problems):
        return False
    match = _CONTROL_IN_TEXT.search(value)
    if match:
        start = match.start()
        problems.add(
            where,
            f"{key} has the control character U+{ord(match[0]):04X} at {start}: "
            f"{value[max(0, start - 10) : start + 10]!r}; check the conversion of the file",
            "control-character-in-text",
        )
    return True


def check_name(key: str, value: Any, where: str, problems: Problems) -> None:
    """Add a problem if the value of `key` is neither text nor an integer."""
    if isinstance(value, bool) or not isinstance(value, str | int):
        problems.add(
            where,
            f"{key}: found {type(value).__name__} {str(value)[:40]!r}, expected text or an "
            "integer; correct it",
            "wrong-type",
        )


def check_surrogates(key: str, text: str, where: str, problems: Problems) -> bool:
    """Whether a text has no half of a surrogate pair. UTF-8 cannot encode such a half."""
    match = None if text.isascii() else _SURROGATE.search(text)
    if match:
        problems.add(
            where,
            f"{key} has half a surrogate pair, U+{ord(match[0]):04X}, at {match.start()}; "
            "correct the program that wrote the file",
            "half-character",
        )
    return match is None


def check_nfc(key: str, text: str, where: str, problems: Problems) -> None:
    """Warn of an annotated text that is not in Unicode normal form C (NFC).

    A tool that normalizes the text shifts the offsets of its annotation.
    """
    if not text.isascii() and not is_normalized("NFC", text):
        problems.add(
            where,
            f"{key} is not in Unicode normal form C (NFC), so a tool that normalizes it shifts the "
            "offsets; normalize the text and recompute its offsets",
            "not-nfc",
        )

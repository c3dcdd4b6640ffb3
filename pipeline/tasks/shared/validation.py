"""Checks of tokens and texts, shared by the tasks.

Each check adds problems of its own kinds. Some kinds are warnings (`errors.WARNINGS`).
"""

import re
from collections.abc import Sequence
from typing import Any
from unicodedata import is_normalized, normalize

from pipeline.errors import Problems, closest, describe, quantity

# C0 and C1 control characters come from a wrong decoding, a PDF or a binary file. In a text, tabs
# and line ends are allowed.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# JSON can contain half of a surrogate pair, UTF-8 cannot.
_SURROGATE = re.compile(r"[\ud800-\udfff]")
# Characters without width. The joiners U+200C and U+200D are part of words in Persian and Hindi and
# of emoji, but not next to ASCII or at the end of a token.
_INVISIBLE = re.compile(
    "[\u00ad\u180e\u200b\u200e\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]"
    "|(?<![^\x00-\x7f])[\u200c\u200d]|[\u200c\u200d](?![^\x00-\x7f])"
)
PLACEHOLDER = "[WORD]"  # of corpora that are distributed without their words
MAX_SENTENCE_WORDS = 200  # a longer sentence adds a warning
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")


def check_words(tokens: Sequence[str], where: str, problems: Problems) -> bool:
    """Whether no token is empty or has a control character, and not all are placeholders.

    A token with an invisible character, or without a visible one, adds a warning.
    """
    if not _check_placeholders(tokens, where, problems):
        return False
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
        elif match := _INVISIBLE.search(token):
            problems.add(
                where,
                f"token {position} {token!r} has the invisible character U+{ord(match[0]):04X}, so "
                "a model reads it as another word than the same token without it; remove it",
                "invisible-character",
            )
    return len(problems) == before


def _check_placeholders(tokens: Sequence[str], where: str, problems: Problems) -> bool:
    """Whether a sentence has words. Placeholders between words add a warning."""
    count = tokens.count(PLACEHOLDER)
    if not count:
        return True
    message = (
        f"{count} of {quantity(len(tokens), 'token')} {'is' if count == 1 else 'are'} "
        f"{PLACEHOLDER}, which stands for a word that is distributed separately; add the words "
        "with the tool of the corpus"
    )
    if count == len(tokens):
        problems.add(where, message, "missing-words")
        return False
    problems.add(where, message, "placeholder-token")
    return True


def check_sentence_length(tokens: Sequence[str], where: str, problems: Problems) -> None:
    """Warn of a sentence that is so long that its file may lack boundaries of sentences."""
    if len(tokens) > MAX_SENTENCE_WORDS:
        problems.add(
            where,
            f"the sentence has {len(tokens)} words; if these are several sentences, separate them, "
            "e.g. by blank lines",
            "long-sentence",
        )


def check_text(key: str, value: Any, where: str, problems: Problems) -> bool:
    """Whether the value of `key` is a non-empty text. Control characters add a warning."""
    if not isinstance(value, str):
        problems.add(
            where,
            f"{key}: found {describe(value)}, expected text; correct it, or remove the row",
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
            f"{key}: found {describe(value)}, expected text or an integer; correct it",
            "wrong-type",
        )


def label_hint(label: str, labels: Sequence[str]) -> str:
    """How to correct a label that is not among `labels`: what it may be meant to be."""
    if not label.strip():
        return "it is empty: fill it in, or remove the row"
    for other in labels:
        if normalize("NFC", label) == normalize("NFC", other):
            return (
                f"it equals {other!r} of the recipe in Unicode normal form C (NFC); write both in "
                "the same form"
            )
        if label.strip() == other:
            return f"remove the spaces around {other!r}"
    names = {name.casefold(): name for name in labels}
    match = closest(label.strip().casefold(), names)
    hint = f" (did you mean {names[match]!r}?)" if match else ""
    return f"correct it{hint}, or add it there"


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

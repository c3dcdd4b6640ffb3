"""Rules that split a text into words, each with its position in the text.

All rules first split at white space (`str.isspace`), and nothing but white space is outside the
words. No rule separates a character from its combining marks, zero-width characters, variation
selector or skin tone, or the parts of an emoji. The text is not normalized.

A rule is a pattern of a word in the *shape* of a text without white space. A shape has one ASCII
character per character with its marks: an ASCII character is itself, others are a class below.
"""

import re
from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple
from unicodedata import category

from pipeline.metrics.base import UNSPACED_OR_RARE

RuleName = Literal["spaces", "punctuation", "treebank", "characters"]
"""The name of a rule in recipes and artifacts."""


class Word(NamedTuple):
    """A word: the characters [start, end) of a text."""

    text: str
    start: int
    end: int


# Classes of characters in a shape: letters and the like, unspaced scripts, punctuation and symbols.
# These control characters never stand for themselves.
_LETTER, _UNSPACED, _MARK = "\x01", "\x02", "\x03"
_ASCII_EQUIVALENTS = {"\u2019": "'", "\u2010": "-", "\u2011": "-"}

_ALPHA = f"[A-Za-z{_LETTER}]"
_WORD = f"[0-9A-Za-z{_LETTER}]"  # a character of a word
_END = f"(?!{_WORD})"
_SUFFIX = rf"(?i:s|m|d|re|ve|ll){_END}"  # after an apostrophe
_STEM = rf"(?:(?!(?i:n't){_END}){_WORD})+"  # without the contraction n't
_ABBREVIATIONS = (
    "Mr|Mrs|Ms|Dr|Prof|St|Sen|Rep|Gov|Gen|Lt|Col|Sgt|Capt|Rev|Hon|Jr|Sr|Inc|Corp|Co|Ltd|Bros|vs|etc"
    "|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|Ave|Blvd|Rd|Vol|Ph\\.D"
)
_TREEBANK = "|".join(
    (
        rf"(?i:https?://|www\.)[^{_UNSPACED}{_MARK}]*(?:{_WORD}|/)",  # web addresses
        rf"(?:{_WORD}|[._+-]){{1,64}}@{_WORD}+(?:[.-]{_WORD}+)+",  # e-mail addresses
        rf"(?:@|\#(?={_ALPHA}))(?:{_WORD}|_)+",  # user names, hashtags
        rf"(?:{_ABBREVIATIONS})\.{_END}",
        rf"(?:{_ALPHA}\.){{2,}}(?:-{_WORD}+)*{_END}",  # U.S., U.S.-based
        rf"[A-HJ-Z]\.{_END}",  # initials
        rf"(?i:can(?=not{_END})|(?:gon|wan)(?=na{_END})|got(?=ta{_END}))",
        rf"(?i:n't){_END}|'{_SUFFIX}|'[0-9]{{2}}s?{_END}",  # also '90s
        rf"(?:[-+]?\.?(?=[0-9]))?{_STEM}"
        rf"(?:(?:[-/&_.]|'(?!{_SUFFIX})|(?<=[0-9])[,:](?=[0-9])){_STEM})*",
        r"\.{2,}|-{2,}|``|''",
        r".",
    )
)

RULES: dict[RuleName, re.Pattern[str]] = {
    "spaces": re.compile(".+", re.DOTALL),
    "punctuation": re.compile(f"{_WORD}+|.", re.DOTALL),
    "treebank": re.compile(_TREEBANK, re.DOTALL),
    "characters": re.compile(".", re.DOTALL),
}
"""The pattern of a word for each rule.

- `spaces`: words between white space.
- `punctuation`: also, each punctuation mark, symbol and character of an unspaced script is a word;
  BERT's basic tokenizer does the same, except that it keeps symbols such as emoji with their word.
- `treebank`: as the Penn Treebank for English: n't and 's are words; hyphens, decimals,
  abbreviations and addresses stay whole. Each character of an unspaced script is a word.
- `characters`: each character with its marks is a word.
"""


def split_words(text: str, rule: RuleName) -> list[Word]:
    """The words of a text in order, by a rule of RULES. They do not overlap."""
    pattern = RULES[rule]
    return [word for piece in _find_pieces(text) for word in _words(piece, pattern)]


_find_pieces = re.compile(r"\S+").finditer


def _words(piece: re.Match[str], pattern: re.Pattern[str]) -> Iterator[Word]:
    """The words of a piece of text without white space."""
    start, text = piece.start(), piece[0]
    if text.isascii() and text.isprintable():  # fast, and equal: it is its own shape
        for match in pattern.finditer(text):
            yield Word(match[0], start + match.start(), start + match.end())
        return
    bounds, shape = _characters(text)
    for match in pattern.finditer(shape):
        first, last = bounds[match.start()], bounds[match.end()]
        yield Word(text[first:last], start + first, start + last)


def _characters(text: str) -> tuple[list[int], str]:
    """The bounds of the characters with their marks, one more than characters; and the shape."""
    starts, shape, previous, flags = list[int](), list[str](), "", 0
    for position, character in enumerate(text):
        flags = flags + 1 if _is_flag_letter(character) else 0
        if not position or not (_extends(character, previous) or flags == 2):
            starts.append(position)
            shape.append(_shape(character))
        flags, previous = flags % 2, character
    return [*starts, len(text)], "".join(shape)


def _extends(character: str, previous: str) -> bool:
    """Whether a character belongs to the one before it.

    Marks, invisible characters, skin tones and the jamo after the first of a Hangul syllable do;
    so does a symbol after a zero-width joiner.
    """
    if previous == "\u200d" and _shape(character) == _MARK:
        return True
    return _is_extender(character)


@cache
def _is_extender(character: str) -> bool:
    if "\U0001f3fb" <= character <= "\U0001f3ff" or "\u1160" <= character <= "\u11ff":
        return True
    return category(character) in ("Mn", "Mc", "Me", "Cf") or "\ud7b0" <= character <= "\ud7ff"


def _is_flag_letter(character: str) -> bool:
    """Whether it is a regional indicator; two of them are a flag."""
    return "\U0001f1e6" <= character <= "\U0001f1ff"


@cache
def _shape(character: str) -> str:
    """The character of the shape for a character with its marks."""
    character = _ASCII_EQUIVALENTS.get(character, character)
    if character.isascii():
        return character if character.isprintable() else _LETTER
    if UNSPACED_OR_RARE.match(character) and category(character)[0] == "L":
        return _UNSPACED
    kind = category(character)
    return "0" if kind == "Nd" else _MARK if kind[0] in "PS" else _LETTER

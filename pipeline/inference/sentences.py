"""Sentences as text: their words, and the word that the offsets of a predicate name."""

from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from pipeline.errors import UserError
from pipeline.words import RuleName, Word, split_words

DEFAULT_RULE: RuleName = "treebank"  # for artifacts that record no rule


class Sentence(NamedTuple):
    """A text and its words."""

    text: str
    words: list[Word]

    @property
    def bounds(self) -> list[tuple[int, int]]:
        """The characters [start, end) of each word."""
        return [(word.start, word.end) for word in self.words]


def split_sentence(text: str, rule: str | None) -> Sentence:
    """The words of a text by a rule of `pipeline.words` (None: DEFAULT_RULE)."""
    return Sentence(text, split_words(text, cast(RuleName, rule or DEFAULT_RULE)))


def predicate_index(predicate: Any, sentence: Sentence, where: str) -> Any:
    """The index of the word that `predicate` names.

    `predicate` is the index itself, or a mapping with the characters `start` and `end` of whole
    words, of which the first is the predicate. Raises UserError if they are not whole words.
    """
    if not isinstance(predicate, Mapping):
        return predicate
    start, end = (predicate.get(key) for key in ("start", "end"))
    if type(start) is not int or type(end) is not int:
        raise UserError(
            f"{where}: predicate: found {str(dict(predicate))[:60]}, expected the index of a word, "
            "or a mapping with the integers start and end, in characters of the text"
        )
    words = sentence.words
    first = next((number for number, word in enumerate(words) if word.start == start), None)
    if first is None or not any(word.end == end > start for word in words):
        overlapped = [word for word in words if word.start < end and start < word.end]
        near = overlapped or words
        remedy = ", ".join(f"{word.text!r} is {word.start} to {word.end}" for word in near[:3])
        raise UserError(
            f"{where}: predicate: characters {start} to {end}, {sentence.text[start:end][:40]!r}, "
            f"are not whole words; {remedy}"
        )
    return first

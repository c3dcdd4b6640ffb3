"""Edits of an example's text that keep track of the annotated spans."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Edit:
    """An edit of text: `change` maps a text to its new version.

    `inside_spans` allows changes inside annotated spans, such as an answer in its context.
    """

    change: Callable[[str], str]
    inside_spans: bool = False

    def words(self, words: Sequence[str]) -> tuple[str, ...]:
        """The words, each of them changed on its own. Their number stays the same."""
        return tuple(map(self.change, words))

    def text(
        self, text: str, starts: Sequence[int] = (), ends: Sequence[int] = ()
    ) -> tuple[str, list[int], list[int]]:
        """The changed text, and the new starts and ends of its spans.

        Spans [start, end) are in characters and may overlap. The text is split at their bounds, and
        each piece is changed separately, so that every bound has a place in the new text.
        """
        bounds = sorted({0, len(text), *starts, *ends})
        new_bounds, new_text = {0: 0}, ""
        for left, right in pairwise(bounds):
            piece = text[left:right]
            in_span = any(
                start <= left and right <= end for start, end in zip(starts, ends, strict=True)
            )
            new_text += piece if in_span and not self.inside_spans else self.change(piece)
            new_bounds[right] = len(new_text)
        return (
            new_text,
            [new_bounds[start] for start in starts],
            [new_bounds[end] for end in ends],
        )

"""Changing the words of an example, and keeping hold of what its annotation points to."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise


@dataclass(frozen=True)
class Edit:
    """`change` makes other text of some text; whether it may touch what an annotation gives as text (an answer) says `inside`."""

    change: Callable[[str], str]
    inside: bool = False

    def words(self, words: Sequence[str]) -> tuple[str, ...]:
        """Each word changed by itself: their number stays."""
        return tuple(map(self.change, words))

    def text(
        self, text: str, starts: Sequence[int] = (), ends: Sequence[int] = ()
    ) -> tuple[str, list[int], list[int]]:
        """A text changed, and where its spans of characters [start, end), which may overlap, start and end in the new one.

        It is cut at their bounds and changed piece by piece, so that no bound is lost.
        """
        cuts = sorted({0, len(text), *starts, *ends})
        moved, made = {0: 0}, ""
        for left, right in pairwise(cuts):
            covered = any(
                start <= left and right <= end for start, end in zip(starts, ends, strict=True)
            )
            made += (
                text[left:right] if covered and not self.inside else self.change(text[left:right])
            )
            moved[right] = len(made)
        return made, [moved[start] for start in starts], [moved[end] for end in ends]

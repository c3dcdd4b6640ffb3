"""A text with labeled spans, for display."""

from dataclasses import dataclass
from typing import NamedTuple


class MarkedSpan(NamedTuple):
    """Characters [start, end) of a text with a label. `score` is a probability, if known."""

    start: int
    end: int
    label: str
    score: float | None = None


@dataclass(frozen=True)
class MarkedText:
    """A text with its spans in order, which may overlap. `title` is a line above it."""

    text: str
    spans: tuple[MarkedSpan, ...] = ()
    title: str = ""

"""Texts with labeled spans as HTML, for notebooks, pages and the report; and as plain text.

The HTML has inline styles only, because notebooks remove style sheets. Its colors are translucent
over the page's own colors, so it is legible on light and dark pages.
"""

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise
from typing import NamedTuple

from pipeline.tasks.base.marked_text import MarkedSpan, MarkedText

# Paul Tol's palette "bright", and four more hues. A label also has its name beside the span.
COLORS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
    "#ee7733",
    "#009988",
    "#997700",
    "#7766bb",
)
UNLABELED_COLOR = "#888888"
_BLOCK = "margin:.35em 0;line-height:1.9;white-space:pre-wrap;overflow-wrap:anywhere"
_TITLE = "font-weight:600"
_MARK = "color:inherit;background:{0}44;border-bottom:2px solid {0};padding:.1em 0"
_LABEL = (
    "font-size:.72em;font-weight:600;opacity:.85;margin:0 .1em 0 .25em;vertical-align:.15em;"
    "user-select:none"
)


class _Piece(NamedTuple):
    """A piece of a text, the spans that it is part of, and the spans that end with it."""

    text: str
    spans: list[MarkedSpan]
    ending: list[MarkedSpan]


def to_html(texts: Sequence[MarkedText], labels: Sequence[str] = ()) -> str:
    """HTML of texts, one block each. All text is escaped.

    A label has the same color in all outputs with the same `labels`; other labels get the colors
    after theirs. Continuations and references (C-X, R-X) have the color of X.
    """
    names = [*labels, *(span.label for text in texts for span in text.spans)]
    colors = label_colors(names)
    return "".join(_block(text, colors) for text in texts)


def label_colors(labels: Sequence[str]) -> dict[str, str]:
    """The color of each label in `to_html`, by the label without C- and R-."""
    bases = dict.fromkeys(_base(label) for label in labels if label)
    return {base: COLORS[number % len(COLORS)] for number, base in enumerate(bases)}


def to_plain(texts: Sequence[MarkedText]) -> str:
    """Lines of plain text with spans as "[LABEL: words]"; titles are lines of their own."""
    lines = [line for text in texts for line in (text.title, _with_brackets(text))]
    return "\n".join(filter(None, lines))


def excerpt(marked: MarkedText, max_length: int) -> MarkedText:
    """At most `max_length` characters of a text around its first span, with "…" where it is cut."""
    length = len(marked.text)
    if length <= max_length:
        return marked
    first = min((span.start for span in marked.spans), default=0)
    start = min(max(0, first - max_length // 3), length - max_length)
    end = start + max_length
    before, after = "…" * (start > 0), "…" * (end < length)
    shift = len(before) - start
    spans = (
        span._replace(start=max(span.start, start) + shift, end=min(span.end, end) + shift)
        for span in marked.spans
        if span.start < end and start < span.end
    )
    text = f"{before}{marked.text[start:end]}{after}"
    return MarkedText(text, tuple(spans), marked.title)


def _block(marked: MarkedText, colors: dict[str, str]) -> str:
    title = f'<div style="{_TITLE}">{escape(marked.title)}</div>' if marked.title else ""
    pieces = "".join(_piece_html(piece, colors) for piece in _pieces(marked))
    return f'<div style="{_BLOCK}">{title}{pieces}</div>'


def _piece_html(piece: _Piece, colors: dict[str, str]) -> str:
    html = escape(piece.text)
    for span in piece.spans:
        color = colors.get(_base(span.label), UNLABELED_COLOR)
        html = f'<mark style="{_MARK.format(color)}"{_tooltip(span)}>{html}</mark>'
    names = (f'<span style="{_LABEL}">{escape(span.label)}</span>' for span in piece.ending)
    return html + "".join(names) if any(span.label for span in piece.ending) else html


def _tooltip(span: MarkedSpan) -> str:
    return "" if span.score is None else f' title="{escape(span.label)} {span.score:.2f}"'


def _pieces(marked: MarkedText) -> Iterator[_Piece]:
    """The text split at the bounds of its spans."""
    bounds = {0, len(marked.text)}
    bounds.update(bound for span in marked.spans for bound in (span.start, span.end))
    for start, end in pairwise(sorted(bounds)):
        spans = [span for span in marked.spans if span.start <= start and end <= span.end]
        yield _Piece(marked.text[start:end], spans, [span for span in spans if span.end == end])


def _with_brackets(marked: MarkedText) -> str:
    opening, closing = dict[int, str](), dict[int, str]()
    for span in sorted(marked.spans, key=lambda span: (span.start, -span.end)):
        label = f"{span.label}: " if span.label else ""
        opening[span.start] = opening.get(span.start, "") + f"[{label}"
        closing[span.end] = closing.get(span.end, "") + "]"
    text, position = "", 0
    for bound in sorted({*opening, *closing}):
        text += marked.text[position:bound] + closing.get(bound, "") + opening.get(bound, "")
        position = bound
    return text + marked.text[position:]


def _base(label: str) -> str:
    return label.removeprefix("C-").removeprefix("R-")

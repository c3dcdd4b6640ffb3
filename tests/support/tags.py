"""Spans of a sentence written as tags, in each scheme, by rules of their own."""

from hypothesis import strategies as st

from pipeline.data.readers.tags import Scheme

Spans = tuple[int, list[tuple[int, int, str]]]
"""A sentence's number of tokens, and its spans: [start, end) and type, in order."""


@st.composite
def _spans(draw: st.DrawFn) -> Spans:
    stretch = st.tuples(st.integers(0, 3), st.sampled_from(["", "PER", "creative-work", "X"]))
    lengths = draw(st.lists(stretch, min_size=1, max_size=6))
    spans, at = [], 0
    for length, label in lengths:
        if label and length:
            spans.append((at, at + length, label))
        at += max(length, 1)
    return at, spans


SPANS = _spans()


def written(spans: Spans, scheme: Scheme) -> list[str]:
    """One tag a token."""
    length, found = spans
    tags = ["*" if scheme == "brackets" else "O"] * length
    for number, (start, end, label) in enumerate(found):
        if scheme == "brackets":
            tags[start] = f"({label}*"
            tags[end - 1] += ")"
            continue
        tags[start:end] = [f"I-{label}"] * (end - start)
        touches = number > 0 and found[number - 1][1:] == (start, label)
        if scheme != "iob1" or touches:
            tags[start] = f"B-{label}"
        if scheme in ("bioes", "bilou"):
            last, single = ("E", "S") if scheme == "bioes" else ("L", "U")
            tags[end - 1] = f"{single if end - start == 1 else last}-{label}"
    return tags

"""Convert the spans of a sentence to tags in each scheme, independently of the readers."""

from hypothesis import strategies as st

from pipeline.data.readers.tags import Scheme

Spans = tuple[int, list[tuple[int, int, str]]]
"""The number of tokens of a sentence, and its spans in order: [start, end) and type."""


@st.composite
def _spans(draw: st.DrawFn) -> Spans:
    segment = st.tuples(st.integers(0, 3), st.sampled_from(["", "PER", "creative-work", "X"]))
    segments = draw(st.lists(segment, min_size=1, max_size=6))
    spans, start = [], 0
    for length, label in segments:
        if label and length:
            spans.append((start, start + length, label))
        start += max(length, 1)
    return start, spans


SPANS = _spans()


def to_tags(sentence: Spans, scheme: Scheme) -> list[str]:
    """One tag per token."""
    length, spans = sentence
    tags = ["*" if scheme == "brackets" else "O"] * length
    for number, (start, end, label) in enumerate(spans):
        if scheme == "brackets":
            tags[start] = f"({label}*"
            tags[end - 1] += ")"
            continue
        tags[start:end] = [f"I-{label}"] * (end - start)
        touches = number > 0 and spans[number - 1][1:] == (start, label)
        if scheme != "iob1" or touches:
            tags[start] = f"B-{label}"
        if scheme in ("bioes", "bilou"):
            last, single = ("E", "S") if scheme == "bioes" else ("L", "U")
            tags[end - 1] = f"{single if end - start == 1 else last}-{label}"
    return tags

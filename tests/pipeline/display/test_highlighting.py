"""Texts with spans as HTML and as plain text."""

import re
from html import unescape

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.display.highlighting import COLORS, excerpt, to_html, to_plain
from pipeline.tasks.base.marked_text import MarkedSpan, MarkedText

TEXT = MarkedText("Ada <b> went", (MarkedSpan(0, 3, "PER", 0.987), MarkedSpan(8, 12, "V")), "Q & A")


def visible(html: str) -> str:
    """The text of HTML without labels and titles."""
    return unescape(
        re.sub(r"<span[^>]*>.*?</span>|<div[^>]*font-weight[^>]*>.*?</div>|<[^>]*>", "", html)
    )


def colors(html: str) -> list[str]:
    return re.findall(r"border-bottom:2px solid (#\w{6})", html)


def test_everything_is_escaped() -> None:
    label = '"><script>'
    html = to_html([TEXT, MarkedText("<i>", (MarkedSpan(0, 3, label, 0.5),), "<u>")])
    assert not re.search(r"<(b|i|u|script)>", html)
    assert "Q &amp; A" in html
    assert "&lt;script&gt; 0.50" in html
    assert visible(html) == "Ada <b> went<i>"


def test_plain_text_has_brackets_and_titles() -> None:
    assert to_plain([TEXT]) == "Q & A\n[PER: Ada] <b> [V: went]"
    nested = (MarkedSpan(0, 7, "ORG"), MarkedSpan(0, 3, "LOC"), MarkedSpan(3, 7, ""))
    assert to_plain([MarkedText("NewYork", nested)]) == "[ORG: [LOC: New][York]]"
    assert to_plain([MarkedText("")]) == ""


def test_label_keeps_its_color_in_all_outputs() -> None:
    labels = ("PER", "LOC", "V")
    first = to_html([MarkedText("a b", (MarkedSpan(0, 1, "LOC"), MarkedSpan(2, 3, "C-V")))], labels)
    second = to_html([MarkedText("a", (MarkedSpan(0, 1, "V"),))], labels)
    assert colors(first) == [COLORS[1], COLORS[2]]
    assert colors(second) == [COLORS[2]]
    assert len(set(COLORS)) == len(COLORS)


@settings(max_examples=50)
@given(st.data())
def test_text_is_complete_for_any_spans(data: st.DataObject) -> None:
    """Spans may nest and overlap."""
    text = data.draw(st.text(max_size=12))
    bounds = st.tuples(*[st.integers(0, len(text))] * 2).map(sorted).filter(lambda b: b[0] < b[1])
    drawn = data.draw(st.lists(bounds, max_size=4)) if text else []
    spans = tuple(MarkedSpan(start, end, "X") for start, end in drawn)
    html = to_html([MarkedText(text, spans)])
    assert visible(html) == text
    assert html.count("<mark") == html.count("</mark>") >= len(set(spans))
    plain = to_plain([MarkedText(text, spans)])
    assert plain.count("[X: ") >= len(spans)
    assert len(plain) == len(text) + 5 * len(spans)


@given(st.data())
def test_excerpt_has_its_spans_at_the_same_words(data: st.DataObject) -> None:
    text = data.draw(st.text("abcdefg ", min_size=1, max_size=90))
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    shown = excerpt(MarkedText(text, (MarkedSpan(start, end, "X"),), "t"), 30)
    ((first, last, *_),) = shown.spans
    assert len(shown.text.strip("…")) == min(len(text), 30)
    assert text[start:end].startswith(shown.text[first:last])
    assert shown.text[first:last] == text[start:end] or shown.text.endswith("…")
    assert shown.title == "t"

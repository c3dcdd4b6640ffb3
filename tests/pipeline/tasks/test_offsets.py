"""Offsets in other units than characters, and spans that cut a word."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import WARNINGS, Problems
from pipeline.tasks import task_named
from pipeline.tasks.shared.offsets import (
    OffsetUnit,
    check_whole_words,
    span_hint,
    text_mismatch_hint,
    to_characters,
)

ENCODINGS: dict[OffsetUnit, tuple[str, int]] = {"utf16": ("utf-16-le", 2), "bytes": ("utf-8", 1)}


@given(text=st.text(), more=st.integers(0, 3))
@pytest.mark.parametrize("unit", ["utf16", "bytes"])
def test_offsets_are_converted_to_characters(text: str, more: int, unit: OffsetUnit) -> None:
    encoding, width = ENCODINGS[unit]
    for position in range(len(text) + 1):
        offset = len(text[:position].encode(encoding)) // width
        assert to_characters(text, offset, unit) == position
    size = len(text.encode(encoding)) // width
    assert to_characters(text, size + more, unit) == len(text) + more
    assert to_characters(text, -1, unit) == -1


def test_offset_inside_a_character_has_no_position() -> None:
    assert to_characters("a😀b", 2, "utf16") is None
    assert to_characters("aéb", 2, "bytes") is None
    assert to_characters("\ud800é", 1, "bytes") == 1  # the task reports the half character


@pytest.mark.parametrize(
    ("context", "start", "hint"),
    [
        ("😀😀 to Oslo", 8, "consistent with UTF-16 offsets: set offsets: utf16 in the recipe's"),
        ("né à Oslo", 7, "consistent with byte offsets: set offsets: bytes in the recipe's"),
        ("a\nb\nOslo", 6, "consistent with offsets in a text with the line endings \\r\\n: "),
        ("a\r\nb\r\nOslo", 4, "consistent with offsets in a text with the line endings \\n: "),
        ("to Oslo", 4, "off by one: count characters from 0"),
        ("to Oslo", 2, "off by one: count characters from 0"),
        ("to Oslo", 0, ""),
        ("to Oslo", -4, ""),
    ],
)
def test_hint_names_the_unit_that_the_offset_fits(context: str, start: int, hint: str) -> None:
    found = text_mismatch_hint(context, "Oslo", start)
    assert found.startswith(hint)
    assert bool(found) == bool(hint)


@pytest.mark.parametrize(
    ("text", "span", "cut"),
    [
        ("to Oslo", "Oslo", ""),
        ("to Oslo", "to", ""),
        ("to Oslo", "slo", "begins inside the word 'Oslo'"),
        ("in Oslo", "Os", "ends inside the word 'Oslo'"),
        ("in the 1990s", "1990", ""),  # a unit or a plural after digits
        ("in 1990", "199", "ends inside the word '1990'"),
        ("Ada's cat", "Ada", ""),
        ("Cafe\u0301 Roma", "Cafe", "ends inside the word"),
        ("東京に行く", "東京", ""),  # no spaces between words
        ("서울에서", "서울", ""),
    ],
)
def test_span_that_cuts_a_word_is_a_warning(text: str, span: str, cut: str) -> None:
    problems, start = Problems(), text.index(span)
    check_whole_words("answer", text, start, start + len(span), "f:1", problems)
    assert dict(problems.counts) == ({"partial-word": 1} if cut else {})
    assert not cut or cut in problems.kept[0].message
    assert "partial-word" in WARNINGS


def test_hint_of_a_span_without_its_text_needs_whole_words() -> None:
    text = "😀😀 saw Oslo now"
    assert span_hint(text, 9, 13) == (
        "; the span is 'Oslo', consistent with UTF-16 offsets: "
        "set offsets: utf16 in the recipe's options"
    )
    assert span_hint(text, 8, 13) == span_hint("saw Oslo", 1, 5) == ""


def test_tasks_name_the_unit() -> None:
    context, where = "😀😀 saw Oslo now", {"id": "1", "where": "f:1"}
    problems = Problems()
    answers = [{"text": "Oslo", "answer_start": 9}]
    row = {**where, "question": "What?", "context": context, "answers": answers}
    assert task_named("span_extraction").example(row, (), problems) is None
    assert problems.kept[-1].message.endswith(
        "it starts at 7, consistent with UTF-16 offsets: set offsets: utf16 in the recipe's options"
    )
    row = {**where, "question": "What?", "context": context, "choices": ["Oslo"], "starts": [9]}
    assert task_named("multiple_choice").example_for_prediction(row, problems) is None
    assert "consistent with UTF-16 offsets" in problems.kept[-1].message
    span = {"segment": 0, "start": 14, "end": 17}
    row = {**where, "text": context, "spans": [span], "label": "a"}
    assert task_named("sequence_classification").example(row, ("a", "b"), problems) is None
    assert "the span is 'now', consistent with UTF-16 offsets" in problems.kept[-1].message

"""Problems of the tokens and texts of a row; warnings do not fail."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import WARNINGS, Problems, UserError
from pipeline.report.corpus_page import problem_counts
from pipeline.tasks import task_named
from pipeline.tasks.shared.tagging import check_tags
from pipeline.tasks.shared.validation import (
    MAX_SENTENCE_WORDS,
    check_nfc,
    check_text,
    check_words,
)


@pytest.mark.parametrize(
    ("tokens", "kinds"),
    [
        (["Ada", "ran"], []),
        (["a\u00a0b", "5\u00a0000", "日本"], []),  # a no-break space is part of a word
        (["a", ""], ["empty-token"]),
        (["a", " \u3000"], ["empty-token"]),
        (["a\x00b", "\x80"], ["control-character", "control-character"]),
        (["\u200b", "a\u200bb"], ["invisible-token", "invisible-character"]),
        (["a\ufeffb", "\u00adb", "a\u200c", "a\u200db"], ["invisible-character"] * 4),
        (["می\u200cخواهم", "क\u094d\u200dष", "👩\u200d🚀"], []),  # joiners that join
        (["[WORD]", "ran"], ["placeholder-token"]),
        (["[WORD]", "[WORD]"], ["missing-words"]),
    ],
)
def test_problems_of_tokens(tokens: list[str], kinds: list[str]) -> None:
    problems = Problems()
    assert check_words(tokens, "f:1", problems) == (not set(kinds) - WARNINGS)
    assert [problem.kind for problem in problems.kept] == kinds


@given(tokens=st.lists(st.text(), max_size=6))
def test_tokens_are_valid_if_each_token_is_valid(tokens: list[str]) -> None:
    """The fast path for printable rows has the result of the slow path."""
    assert check_words(tokens, "f:1", Problems()) == all(
        check_words([token], "f:1", Problems()) for token in tokens
    )


@pytest.mark.parametrize(
    ("size", "warnings"), [(MAX_SENTENCE_WORDS, 0), (MAX_SENTENCE_WORDS + 1, 1)]
)
def test_a_sentence_of_hundreds_of_words_adds_a_warning(size: int, warnings: int) -> None:
    problems, words = Problems(), ["a"] * size
    row = {"id": "1", "where": "f:1", "tokens": words, "tags": ["O"] * size}
    assert task_named("token_classification").example(row, ["X"], problems) is not None
    assert problems.counts.get("long-sentence", 0) == warnings
    assert not len(problems)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("a\tb\r\nc", None),
        ("a\x99b", "control-character-in-text"),
        (" \n", "empty-text-pair"),
        (7, "wrong-type"),
    ],
)
def test_problems_of_texts(value: object, kind: str | None) -> None:
    problems = Problems()
    assert check_text("text_pair", value, "f:1", problems) == (kind is None or kind in WARNINGS)
    assert list(problems.counts) == ([kind] if kind else [])


def test_all_problems_of_tokens_and_tags_are_reported() -> None:
    problems = Problems()
    row = {"where": "f:1", "tokens": ["a", "", "c"], "tags": ["X", "Y-Z", "B-Q"]}
    assert not check_tags(row, ("P",), problems)
    assert problems.counts == {"empty-token": 1, "ill-formed-tag": 2, "unknown-label": 1}
    problems = Problems()
    assert not check_tags(row | {"tokens": "a"}, ("P",), problems)
    assert problems.counts == {"wrong-type": 1, "ill-formed-tag": 2}


def test_all_problems_of_a_question_are_reported() -> None:
    problems = Problems()
    answers = [{"text": "Ada", "answer_start": 1}, {"text": "ran", "answer_start": 9}]
    row = {"id": "1", "where": "f:1", "question": "", "context": "Ada ran.", "answers": answers}
    assert task_named("span_extraction").example(row, (), problems) is None
    assert problems.counts == {"empty-question": 1, "answer-offset": 2}
    problems = Problems()
    assert task_named("span_extraction").example(row | {"answers": 0}, (), problems) is None
    assert problems.counts == {"empty-question": 1, "missing-answers": 1}


def test_a_text_that_is_not_nfc_adds_a_warning() -> None:
    problems = Problems()
    check_nfc("context", "é", "f:1", problems)
    assert not problems.counts
    check_nfc("context", "e\u0301", "f:1", problems)
    assert (len(problems), dict(problems.counts)) == (0, {"not-nfc": 1})


def test_warnings_are_counted_and_shown_but_do_not_fail() -> None:
    problems = Problems(max_shown=2)
    for line in range(5):
        problems.add(f"f:{line}", "looks odd", "not-nfc")
    problems.raise_if_any()
    problems.add("f:9", "is wrong", "answer-offset")
    assert (len(problems), problems.counts.total()) == (1, 6)
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert str(caught.value) == "f:9: is wrong"
    assert problems.summary() == [
        "answer-offset: 1",
        "  f:9: is wrong",
        "not-nfc: 5 (warning)",
        "  f:0: looks odd",
        "  f:1: looks odd",
        "  f:2: looks odd",
    ]


def test_problems_that_the_recipe_allows_are_said_to_be_allowed() -> None:
    problems = Problems(allowed=("shared-row", "unseen-label"))
    for kind in ("not-nfc", "shared-row", "shared-row", "empty-text"):
        problems.add("f:1", "x", kind)
    assert problems.summary() == [
        "empty-text: 1",
        "  f:1: x",
        "shared-row: 2 (allowed by the recipe)",
        "not-nfc: 1 (warning)",
        "  f:1: x",
    ]
    assert problem_counts(problems) == "Errors: 1; allowed by the recipe: 2; warnings: 1."


def test_problems_of_a_rare_kind_are_kept_among_many_of_another() -> None:
    problems = Problems(max_shown=5)
    for line in range(100):
        problems.add(f"f:{line}", "is wrong", "one")
    problems.add("f:100", "is wrong too", "two")
    assert [problem.kind for problem in problems.kept] == ["one"] * 5 + ["two"]

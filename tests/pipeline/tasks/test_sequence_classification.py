"""Sequence classification: input ids, markers, truncation, checks of rows, and scores."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import Problems, UserError
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.sequence_classification import Example, Label, Mark
from tests.support.encoding import ids

TASK = task_named("sequence_classification")
CLASSES = ("no", "yes")
CLS, SEP = 101, 102
TOKENIZERS = ["tokenizer", "one_type_tokenizer", "numbering_tokenizer"]


def text(
    text: str, pair: str = "", *spans: Mark, label: str = "yes", question: str = ""
) -> Example:
    return Example("a", text, pair, spans, label, question)


def featurize(
    tokenizer: Tokenizer, *examples: Example, max_length: int = 64
) -> tuple[list[Feature], Counter[str]]:
    counts: Counter[str] = Counter()
    features = list(TASK.featurize(examples, 0, tokenizer, CLASSES, max_length, 8, counts))
    for feature in features:
        assert len(feature.input_ids) == len(feature.token_types) <= max_length
        assert (len(feature.positions), len(feature.labels), feature.label_count) == (1, 1, 1)
    return features, +counts


@pytest.mark.parametrize("name", TOKENIZERS)
def test_single_text_is_one_segment(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    (feature,), counts = featurize(tokenizer, text("the cat sat"))
    assert feature.input_ids == [
        *tokenizer.prefix,
        *ids(tokenizer, "the cat sat"),
        *tokenizer.suffix,
    ]
    assert feature.positions == [len(feature.input_ids) - 1 if tokenizer.causal else 0]
    assert feature.labels == [1]
    assert not any(feature.token_types)
    assert not counts


@pytest.mark.parametrize("name", TOKENIZERS)
def test_two_texts_are_two_segments(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    (feature, other), _ = featurize(
        tokenizer, text("the cat", "a dog", label="no"), text("the cat")
    )
    first, second = ids(tokenizer, "the cat"), ids(tokenizer, "a dog")
    head = [*tokenizer.prefix, *first, *tokenizer.middle]
    assert feature.input_ids == [*head, *second, *tokenizer.suffix]
    assert list(feature.token_types) == [0] * len(head) + [tokenizer.second_type] * (
        len(second) + len(tokenizer.suffix)
    )
    assert (feature.labels, feature.example, other.example) == ([0], 0, 1)


def test_marked_words_are_between_markers(tokenizer: Tokenizer) -> None:
    """WiC has a span in each text, WSC has both in one text. Spans extend to whole sub-words."""
    star, sign = tokenizer.marker, tokenizer.second_marker
    assert star != sign
    first, second = "the cat sat", "a cat ran"
    (feature,), _ = featurize(tokenizer, text(first, second, Mark(0, 4, 7), Mark(1, 2, 5)))
    words = {word: ids(tokenizer, word) for word in ("the", "cat", "sat", "a", "ran")}
    assert feature.input_ids == [
        CLS,
        *words["the"],
        *star,
        *words["cat"],
        *star,
        *words["sat"],
        SEP,
        *words["a"],
        *sign,
        *words["cat"],
        *sign,
        *words["ran"],
        SEP,
    ]
    (feature,), _ = featurize(tokenizer, text(first, "", Mark(0, 8, 11), Mark(0, 0, 7)))
    assert feature.input_ids == [
        CLS,
        *sign,
        *words["the"],
        *words["cat"],
        *sign,
        *star,
        *words["sat"],
        *star,
        SEP,
    ]
    (feature,), _ = featurize(tokenizer, text(first, "", Mark(0, 0, 11), Mark(0, 4, 6)))
    assert feature.input_ids == [
        CLS,
        *star,
        *words["the"],
        *sign,
        *words["cat"],
        *sign,
        *words["sat"],
        *star,
        SEP,
    ]


@settings(max_examples=80, deadline=None)
@given(length=st.integers(1, 60), pair_length=st.integers(0, 60), max_length=st.integers(8, 40))
def test_longer_text_is_truncated_first(
    tokenizer: Tokenizer, length: int, pair_length: int, max_length: int
) -> None:
    lengths = (length, pair_length)
    words = [" ".join("abcdefghij"[at % 10] for at in range(count)) for count in lengths]
    (feature,), counts = featurize(tokenizer, text(words[0], words[1]), max_length=max_length)
    first, second = (ids(tokenizer, word) for word in words)
    room = max_length - (3 if pair_length else 2)
    at = feature.input_ids.index(SEP)
    kept = feature.input_ids[1:at], feature.input_ids[at + 1 : -1] if pair_length else []
    assert kept == (first[: len(kept[0])], second[: len(kept[1])])
    assert sum(map(len, kept)) == min(room, sum(lengths))
    if sum(lengths) <= room:
        assert not counts
    else:
        assert counts == {"texts cut": 1}
        for index, original in enumerate(lengths):
            if len(kept[index]) < original:
                assert len(kept[index]) >= len(kept[1 - index]) - 1, (
                    "the truncated text must be the longer text, or both are equally long"
                )


def test_truncated_marked_words_are_counted(tokenizer: Tokenizer) -> None:
    long = " ".join("abcdefghij" * 3)
    _, counts = featurize(tokenizer, text(long, "", Mark(0, 2, 3)), max_length=16)
    assert counts == {"texts cut": 1}
    _, counts = featurize(tokenizer, text(long, "", Mark(0, 50, 51)), max_length=16)
    assert counts == {"texts cut": 1, "marked words cut": 1}


# Rows


def check_row(row: dict[str, Any], task: str = "example") -> tuple[Any, list[str]]:
    problems = Problems()
    row = {"id": "1", "where": "f:1"} | row
    example = (
        TASK.example(row, CLASSES, problems)
        if task == "example"
        else TASK.example_for_prediction(row, problems)
    )
    try:
        problems.raise_if_any()
    except UserError as error:
        assert example is None
        return None, list(error.problems)
    return example, []


def test_example_of_a_row_round_trips_through_its_record() -> None:
    row = {
        "text": "a cat",
        "text_pair": "b",
        "spans": [{"segment": 0, "start": 2, "end": 5}],
        "label": "no",
        "question": "7",
    }
    example, messages = check_row(row)
    assert not messages
    assert example == Example("1", "a cat", "b", (Mark(0, 2, 5),), "no", "7")
    assert TASK.from_record(TASK.record(example)) == example
    plain, _ = check_row({"text": "a", "label": "yes"})
    assert plain == Example("1", "a", "", (), "yes", "")
    unlabeled, _ = check_row({"text": "a", "text_pair": "b"}, "query")
    assert unlabeled == Example("1", "a", "b", (), "", "")


def test_split_group_ignores_spacing_and_case() -> None:
    """WSC repeats sentences with other spacing: copies in different splits would be a leak."""
    assert TASK.split_group({"text": "The captain , who"}) == TASK.split_group(
        {"text": "the captain, who"}
    )
    assert TASK.split_group({"text": "The captain"}) != TASK.split_group({"text": "The captains"})


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        (
            {"text": "a", "label": "maybe"},
            ["f:1: label 'maybe' is not in the recipe's labels (no, yes)", "add it"],
        ),
        ({"text": "a", "label": "\uff4eo"}, ["correct it, or add it there"]),
        ({"text": "a", "label": ""}, ["it is empty: fill it in, or remove the row"]),
        ({"text": "a", "label": "YES"}, ["correct it (did you mean 'yes'?), or add it there"]),
        ({"text": "a", "label": "yess"}, ["correct it (did you mean 'yes'?), or add"]),
        ({"text": " ", "label": "no"}, ["text is empty: ' '", "fill it in"]),
        ({"text": 3, "label": "no"}, ["text: found an integer 3, expected text"]),
        (
            {"text": "a", "text_pair": ["b"], "label": "no"},
            ["text_pair: found a list", "expected text"],
        ),
        (
            {"text": "a", "spans": "b", "label": "no"},
            ["spans: found 'b', expected a list of at most two"],
        ),
        (
            {"text": "a", "spans": [{"segment": 0, "start": 0}], "label": "no"},
            ["spans: found", "segment, start and end"],
        ),
        (
            {"text": "abc", "spans": [{"segment": 0, "start": 1, "end": 9}], "label": "no"},
            ["characters 1 to 9", "'abc'", "correct"],
        ),
        (
            {"text": "abc", "spans": [{"segment": 2, "start": 0, "end": 1}], "label": "no"},
            ["segment 2"],
        ),
        (
            {"text": "abc", "spans": [{"segment": 0, "start": 0, "end": 1}] * 3, "label": "no"},
            ["at most two"],
        ),
        (
            {"text": "a", "text_pair": 0, "label": "no"},
            ["text_pair: found an integer 0, expected text"],
        ),
        ({"text": "a", "text_pair": "", "label": "no"}, ["text_pair is empty: ''; fill it in"]),
        ({"text": "a", "label": " no"}, ["remove the spaces around 'no'"]),
        ({"text": "a", "text_pair": False, "label": "no"}, ["text_pair: found false"]),
        ({"text": "a", "spans": 0, "label": "no"}, ["spans: found '0', expected a list"]),
        ({"text": "a", "spans": "", "label": "no"}, ["spans: found '', expected a list"]),
        ({"text": "a", "question": False, "label": "no"}, ["question: found false"]),
        ({"text": "a", "question": 0.5, "label": "no"}, ["question: found a number 0.5"]),
        ({"text": "a", "label": "2"}, ["'2' is not in", "name class numbers with names in"]),
    ],
)
def test_invalid_row_is_reported(row: dict[str, Any], parts: list[str]) -> None:
    _, messages = check_row(row)
    assert any(all(part in problem for part in parts) for problem in messages), messages


@pytest.mark.parametrize(("question", "expected"), [(0, "0"), ("", ""), (None, ""), ("q", "q")])
def test_question_is_what_it_is(question: object, expected: str) -> None:
    row = {"text": "a", "label": "no", "question": question, "text_pair": None, "spans": None}
    example, messages = check_row(row)
    assert messages == []
    assert (example.question, example.text_pair, example.spans) == (expected, "", ())


def test_at_least_two_labels_are_required() -> None:
    assert TASK.check_labels(("no", "yes")) == []
    assert "needs at least two labels" in TASK.check_labels(("no",))[0]
    assert "'no' occurs twice" in TASK.check_labels(("no", "no"))[0]


# Decoding


def window_of(*logits: float) -> list[WindowLogits]:
    return [WindowLogits(np.array([0]), np.array([1]), np.array([logits], dtype=np.float32))]


def test_most_probable_label_is_predicted() -> None:
    assert TASK.decode(text("a"), window_of(0.5, -1.0), CLASSES) == "no"
    result = TASK.result(text("a", label=""), window_of(0.0, np.log(3.0)), CLASSES, {})
    assert isinstance(result, Label)
    assert result.label == "yes"
    assert result.probabilities == pytest.approx({"no": 0.25, "yes": 0.75})


def test_scores_with_questions_have_f1a_and_exact_match() -> None:
    gold = ["yes", "no", "yes", "no"]
    plain = [text("a", label=label) for label in gold]
    assert TASK.score(plain, ["yes", "no", "no", "no"], CLASSES).overall == pytest.approx(
        {"accuracy": 75.0, "f1_macro": (200 / 3 + 80) / 2, "total": 4}
    )
    asked = [
        text("a", label=label, question=question)
        for label, question in zip(gold, "aabb", strict=True)
    ]
    scored = TASK.score(asked, ["yes", "no", "no", "no"], CLASSES).overall
    assert (scored["f1_answers"], scored["exact_match"]) == pytest.approx((200 / 3, 50.0))
    assert set(TASK.metric_names) == set(scored) - {"total"}


def test_a_label_in_another_unicode_form_is_named() -> None:
    problems = Problems()
    row = {"id": "1", "where": "f:1", "text": "a", "label": "E\u0301"}
    assert TASK.example(row, ("\u00c9", "no"), problems) is None
    assert "it equals '\u00c9' of the recipe in Unicode normal form C" in problems.kept[0].message

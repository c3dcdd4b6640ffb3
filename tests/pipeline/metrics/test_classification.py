"""Accuracy and F1 equal scikit-learn's, which SuperGLUE's script calls, and what is counted by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

from pipeline.metrics.classification import score

LABELS = ("false", "maybe", "true")
PAIRS = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from(LABELS)), min_size=1, max_size=40
)
ANSWERS = st.lists(
    st.tuples(st.sampled_from("abc"), st.booleans(), st.booleans()), min_size=1, max_size=40
)


def test_by_hand() -> None:
    metrics = score(["a", "a", "b", "c"], ["a", "b", "b", "b"], ("a", "b", "c", "never"))
    # a: 1 of 1 predicted, 1 of 2 gold; b: 1 of 3, 1 of 1; c: none predicted
    assert metrics.overall == {
        "accuracy": 50.0,
        "f1_macro": pytest.approx((200 / 3 + 50 + 0) / 3),
        "total": 4,
    }
    assert metrics.labels == {
        "a": {
            "precision": 100.0,
            "recall": 50.0,
            "f1": pytest.approx(200 / 3),
            "correct": 1,
            "predicted": 1,
            "gold": 2,
        },
        "b": {
            "precision": pytest.approx(100 / 3),
            "recall": 100.0,
            "f1": 50.0,
            "correct": 1,
            "predicted": 3,
            "gold": 1,
        },
        "c": {"precision": 0.0, "recall": 0.0, "f1": 0.0, "correct": 0, "predicted": 0, "gold": 1},
    }


def test_questions_by_hand() -> None:
    gold, guess = ["true", "false", "true", "false"], ["true", "false", "false", "true"]
    overall = score(gold, guess, ("false", "true"), ["1", "1", "2", "1"]).overall
    assert overall == {
        "accuracy": 50.0,
        "f1_macro": 50.0,
        "total": 4,
        "f1_answers": 50.0,
        "exact_match": 0.0,
    }
    assert score(gold, guess, ("false", "true"), ["1", "1", "2", "3"]).overall[
        "exact_match"
    ] == pytest.approx(100 / 3)


def test_the_last_label_is_the_right_answers() -> None:
    gold, guess = ["no", "no", "yes"], ["no", "yes", "no"]
    assert score(gold, guess, ("no", "yes"), ["1", "2", "3"]).overall["f1_answers"] == 0.0
    assert score(gold, guess, ("yes", "no"), ["1", "2", "3"]).overall["f1_answers"] == 50.0


def test_no_right_answer_at_all() -> None:
    overall = score(["false"], ["false"], ("false", "true"), ["1"]).overall
    assert (overall["f1_answers"], overall["exact_match"], overall["f1_macro"]) == (
        0.0,
        100.0,
        100.0,
    )


def test_no_examples() -> None:
    metrics = score([], [], ("a", "b"), [])
    assert metrics.overall == {
        "accuracy": 0.0,
        "f1_macro": 0.0,
        "total": 0,
        "f1_answers": 0.0,
        "exact_match": 0.0,
    }
    assert metrics.labels == {}


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="c: not among the labels a, b"):
        score(["a"], ["c"], ("a", "b"))
    with pytest.raises(ValueError, match="zip"):
        score(["a"], [], ("a", "b"))
    with pytest.raises(ValueError, match="zip"):
        score(["a"], ["a"], ("a", "b"), [])


@given(PAIRS)
def test_as_scikit_learn(pairs: list[tuple[str, str]]) -> None:
    gold, guess = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    metrics = score(gold, guess, LABELS)
    assert metrics.overall["accuracy"] == pytest.approx(100 * accuracy_score(gold, guess))
    assert metrics.overall["f1_macro"] == pytest.approx(
        100 * f1_score(gold, guess, average="macro", zero_division=0)
    )
    names = sorted({*gold, *guess})
    expected = precision_recall_fscore_support(gold, guess, labels=names, zero_division=0)
    assert list(metrics.labels) == names
    for name, precision, recall, f1, support in zip(names, *expected, strict=True):
        found = metrics.labels[name]
        assert (found["precision"], found["recall"], found["f1"]) == pytest.approx(
            (100 * precision, 100 * recall, 100 * f1)
        )
        assert found["gold"] == support


@given(ANSWERS)
def test_questions_as_superglue(answers: list[tuple[str, bool, bool]]) -> None:
    questions = [question for question, _, _ in answers]
    gold, guess = ([str(answer[n]).lower() for answer in answers] for n in (1, 2))
    overall = score(gold, guess, ("false", "true"), questions).overall
    assert overall["f1_answers"] == pytest.approx(
        100 * f1_score(gold, guess, pos_label="true", zero_division=0)
    )
    right = {
        question: all(a == b for q, a, b in answers if q == question) for question in questions
    }
    assert overall["exact_match"] == pytest.approx(100 * sum(right.values()) / len(right))


@given(PAIRS, st.randoms())
def test_order_does_not_matter_and_all_right_is_100(
    pairs: list[tuple[str, str]], random: object
) -> None:
    shuffled = sorted(pairs, key=lambda _: random.random())  # type: ignore[attr-defined]
    one, two = (
        score([pair[0] for pair in found], [pair[1] for pair in found], LABELS)
        for found in (pairs, shuffled)
    )
    assert one.labels == two.labels
    assert one.overall == pytest.approx(two.overall)
    perfect = score([pair[0] for pair in pairs], [pair[0] for pair in pairs], LABELS).overall
    assert (perfect["accuracy"], perfect["f1_macro"]) == (100.0, 100.0)

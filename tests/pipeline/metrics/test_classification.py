"""Accuracy and F1 equal counts by hand, and scikit-learn's, which SuperGLUE's script calls."""

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


def test_score_equals_counts_by_hand() -> None:
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


def test_metrics_of_questions_equal_counts_by_hand() -> None:
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


def test_last_label_marks_right_answers() -> None:
    gold, guess = ["no", "no", "yes"], ["no", "yes", "no"]
    assert score(gold, guess, ("no", "yes"), ["1", "2", "3"]).overall["f1_answers"] == 0.0
    assert score(gold, guess, ("yes", "no"), ["1", "2", "3"]).overall["f1_answers"] == 50.0


def test_f1_of_answers_is_0_without_right_answers() -> None:
    overall = score(["false"], ["false"], ("false", "true"), ["1"]).overall
    assert (overall["f1_answers"], overall["exact_match"], overall["f1_macro"]) == (
        0.0,
        100.0,
        100.0,
    )


def test_scores_without_examples_are_0() -> None:
    metrics = score([], [], ("a", "b"), [])
    assert metrics.overall == {
        "accuracy": 0.0,
        "f1_macro": 0.0,
        "total": 0,
        "f1_answers": 0.0,
        "exact_match": 0.0,
    }
    assert metrics.labels == {}


def test_unknown_labels_and_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="c: not among the labels a, b"):
        score(["a"], ["c"], ("a", "b"))
    with pytest.raises(ValueError, match="zip"):
        score(["a"], [], ("a", "b"))
    with pytest.raises(ValueError, match="zip"):
        score(["a"], ["a"], ("a", "b"), [])


@given(PAIRS)
def test_scores_equal_scikit_learn(pairs: list[tuple[str, str]]) -> None:
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
        scores = metrics.labels[name]
        assert (scores["precision"], scores["recall"], scores["f1"]) == pytest.approx(
            (100 * precision, 100 * recall, 100 * f1)
        )
        assert scores["gold"] == support


@given(ANSWERS)
def test_metrics_of_questions_equal_superglue(answers: list[tuple[str, bool, bool]]) -> None:
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
def test_score_ignores_order_and_is_100_if_all_are_right(
    pairs: list[tuple[str, str]], random: object
) -> None:
    shuffled = sorted(pairs, key=lambda _: random.random())  # type: ignore[attr-defined]
    first, second = (
        score([gold for gold, _ in order], [guess for _, guess in order], LABELS)
        for order in (pairs, shuffled)
    )
    assert first.labels == second.labels
    assert first.overall == pytest.approx(second.overall)
    perfect = score([pair[0] for pair in pairs], [pair[0] for pair in pairs], LABELS).overall
    assert (perfect["accuracy"], perfect["f1_macro"]) == (100.0, 100.0)

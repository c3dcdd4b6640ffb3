"""Scores of intents and slots, against figures computed by hand."""

import pytest

from pipeline.metrics.frames import Frame, counts, score

GOLD = [
    Frame(("O", "B-city", "I-city"), "intent:flight"),
    Frame(("B-city", "O", "B-day"), "intent:flight"),
    Frame(("O", "O", "O"), "intent:fare"),
    Frame(("B-day", "B-day", "O"), "intent:fare"),
]
PREDICTED = [
    Frame(("O", "B-city", "I-city"), "intent:flight"),  # all right
    Frame(("B-city", "O", "B-city"), "intent:flight"),  # one wrong slot
    Frame(("O", "O", "O"), "intent:flight"),  # a wrong intent
    Frame(("B-day", "I-day", "O"), "intent:fare"),  # one slot in place of two
]


def test_scores_of_four_sentences() -> None:
    metrics = score(GOLD, PREDICTED)
    assert metrics.overall["intent_accuracy"] == 75
    assert metrics.overall["sentence_accuracy"] == 25
    assert metrics.overall["sentences"] == 4
    # 2 of 4 predicted slots are right, of 5 annotated ones.
    assert metrics.overall["precision"] == 50
    assert metrics.overall["recall"] == 40
    assert metrics.overall["f1"] == pytest.approx(2 * 2 / (4 + 5) * 100)
    assert metrics.labels["city"]["f1"] == pytest.approx(2 * 2 / (3 + 2) * 100)
    assert metrics.labels["intent:fare"]["recall"] == 50
    assert metrics.labels["intent:flight"]["precision"] == pytest.approx(200 / 3)


def test_an_orphan_tag_is_read_as_conlleval_reads_it() -> None:
    """I- without B- begins a slot, so the sentence is right."""
    gold, predicted = Frame(("O", "B-day"), "intent:a"), Frame(("O", "I-day"), "intent:a")
    assert score([gold], [predicted]).overall["sentence_accuracy"] == 100


def test_no_sentence_scores_zero() -> None:
    overall = score([], []).overall
    assert (overall["f1"], overall["intent_accuracy"], overall["sentence_accuracy"]) == (0, 0, 0)


def test_counts_are_those_of_each_sentence() -> None:
    columns = counts(list("abcd"), GOLD, PREDICTED).columns
    assert columns["right intents"].tolist() == [1, 1, 0, 1]
    assert columns["right sentences"].tolist() == [1, 0, 0, 0]
    assert columns["sentences"].tolist() == [1, 1, 1, 1]


def test_lengths_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        score(GOLD, PREDICTED[:3])

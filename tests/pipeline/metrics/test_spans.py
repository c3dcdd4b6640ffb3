"""The F1 of spans equals conlleval's, seqeval's on the same spans, and counts by hand."""

import json
import random

import pytest
from seqeval.metrics import f1_score, precision_score, recall_score

from pipeline.metrics.spans import score, spans
from tests.support.paths import DATA

OFFICIAL = DATA / "scores" / "ner" / "wnut17_test.conlleval.json"


def test_spans_begin_at_b_tags() -> None:
    assert spans(["B-A", "I-A", "I-A", "O", "B-A", "B-A"]) == [
        ("A", 0, 3),
        ("A", 4, 5),
        ("A", 5, 6),
    ]
    assert spans(["B-creative-work", "I-creative-work"]) == [("creative-work", 0, 2)]


def test_orphan_inside_tags_are_spans() -> None:
    assert spans(["I-A", "I-A", "O", "I-B"]) == [("A", 0, 2), ("B", 3, 4)]
    assert spans(["B-A", "I-B", "I-B", "I-A"]) == [("A", 0, 1), ("B", 1, 3), ("A", 3, 4)]


def test_score_equals_counts_by_hand() -> None:
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-ORG", "O"]]
    guess = [["B-PER", "I-PER", "O", "O"], ["B-LOC", "I-LOC"]]
    metrics = score(gold, guess)
    assert metrics.overall == {
        "precision": 50.0,
        "recall": pytest.approx(100 / 3),
        "f1": 40.0,
        "correct": 1,
        "predicted": 2,
        "gold": 3,
        "token_accuracy": 50.0,
        "tokens": 6,
    }
    assert metrics.labels["PER"]["f1"] == 100.0
    assert metrics.labels["LOC"] == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "correct": 0,
        "predicted": 1,
        "gold": 1,
    }
    assert list(metrics.labels) == ["LOC", "ORG", "PER"]


def test_scores_without_spans_or_tokens_are_0() -> None:
    assert score([["O"]], [["O"]]).overall["f1"] == 0.0
    assert score([], []).overall["token_accuracy"] == 0.0


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="shorter"):
        score([["O", "O"]], [["O"]])
    with pytest.raises(ValueError, match="shorter"):
        score([["O"], ["O"]], [["O"]])


def test_scores_equal_seqeval() -> None:
    draw = random.Random(0)
    tags = ["O", "O", "B-A", "I-A", "B-B", "I-B"]
    gold, guess = ([draw.choices(tags, k=12) for _ in range(200)] for _ in range(2))
    ours = score(gold, guess).overall
    for name, theirs in (
        ("precision", precision_score),
        ("recall", recall_score),
        ("f1", f1_score),
    ):
        assert ours[name] == pytest.approx(100 * theirs(gold, guess), abs=1e-9)


@pytest.mark.skipif(not OFFICIAL.exists(), reason=f"{OFFICIAL} is absent")
def test_scores_equal_conlleval() -> None:
    official = json.loads(OFFICIAL.read_text(encoding="utf-8"))
    rows = [
        json.loads(line)
        for line in (OFFICIAL.parent / "wnut17_test.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    metrics = score([row["gold"] for row in rows], [row["predicted"] for row in rows])
    expected = official.pop("overall") | official.pop("counts")
    assert {name: round(metrics.overall[name], 2) for name in expected} == expected
    assert metrics.labels.keys() == official.keys()
    for label, scores in official.items():
        assert {name: round(metrics.labels[label][name], 2) for name in scores} == scores

"""The F1 of roles equals srl-eval's and counts by hand."""

import json

import pytest

from pipeline.metrics.roles import arguments, score
from tests.support.paths import DATA

OFFICIAL = DATA / "scores" / "srl" / "ewt_dev.srl-eval.json"


def test_continuation_joins_the_last_argument_of_its_role() -> None:
    tags = ["B-ARG1", "B-V", "B-C-ARG1", "I-C-ARG1", "B-ARG1", "O", "B-C-ARG1"]
    assert arguments(tags) == [
        ("ARG1", ((0, 1), (2, 4))),
        ("V", ((1, 2),)),
        ("ARG1", ((4, 5), (6, 7))),
    ]


def test_continuation_without_an_argument_before_it_is_an_argument() -> None:
    assert arguments(["B-C-ARG1", "B-C-ARG1", "B-V", "B-R-ARG0"]) == [
        ("ARG1", ((0, 1), (1, 2))),
        ("V", ((2, 3),)),
        ("R-ARG0", ((3, 4),)),
    ]


def test_score_equals_counts_by_hand() -> None:
    gold = [["B-ARG0", "B-V", "B-ARG1", "I-ARG1", "B-C-ARG1"], ["B-ARG0", "B-V", "O", "O", "O"]]
    guess = [["B-ARG0", "B-V", "B-ARG1", "I-ARG1", "O"], ["B-ARG0", "B-V", "B-ARG2", "O", "O"]]
    metrics = score(gold, guess)
    # Both ARG0 are right. ARG1 lacks a piece, so it is missed and in excess; ARG2 is in excess.
    # With V: 4 of 6 and 4 of 5.
    assert metrics.overall == {
        "precision": 50.0,
        "recall": pytest.approx(200 / 3),
        "f1": pytest.approx(400 / 7),
        "correct": 2,
        "excess": 2,
        "missed": 1,
        "f1_with_v": pytest.approx(800 / 11),
    }
    assert metrics.labels["ARG1"] == {
        "precision": 0.0,
        "recall": 0.0,
        "f1": 0.0,
        "correct": 0,
        "excess": 1,
        "missed": 1,
    }
    assert metrics.labels["V"]["f1"] == 100.0


def test_different_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="1 predicted tags for 2 tokens"):
        score([["B-V", "O"]], [["B-V"]])


@pytest.mark.skipif(not OFFICIAL.exists(), reason=f"{OFFICIAL} is absent")
def test_scores_equal_srl_eval() -> None:
    official = json.loads(OFFICIAL.read_text(encoding="utf-8"))
    rows = [
        json.loads(line)
        for line in (OFFICIAL.parent / "ewt_dev.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    metrics = score([row["gold"] for row in rows], [row["predicted"] for row in rows])
    ours = {
        role.replace("ARGM", "AM").replace("ARG", "A"): scores
        for role, scores in metrics.labels.items()
    }
    ours["Overall"] = metrics.overall
    assert ours.keys() == official.keys()
    for role, scores in official.items():
        assert {name: round(ours[role][name], 2) for name in scores} == scores

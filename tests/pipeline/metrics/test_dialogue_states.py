"""Scores of dialogue states, against figures counted by hand."""

import pytest

from pipeline.metrics.dialogue_states import counts, score, states

GOLD = [
    [["food=thai"], ["area=north"], ["food=any", "request=phone"], []],
    [["request=phone", "request=address"], ["area=south"]],
]
PREDICTED = [
    # The wrong area stays in the state; the request is missed.
    [["food=thai"], ["area=south"], ["food=any"], ["area=north"]],
    [["request=address", "request=phone"], ["area=south", "request=phone"]],
]


def test_a_state_has_the_last_value_of_each_slot() -> None:
    assert list(states(GOLD[0])) == [
        {"food": "thai"},
        {"food": "thai", "area": "north"},
        {"food": "any", "area": "north"},
        {"food": "any", "area": "north"},
    ]
    assert list(states(GOLD[1])) == [{}, {"area": "south"}]


def test_scores_of_two_dialogues() -> None:
    overall = score(GOLD, PREDICTED).overall
    # States are right after the turns 0 and 3 of the first dialogue, and after both of the second.
    assert overall["joint_goal_accuracy"] == pytest.approx(400 / 6)
    # New goals are wrong in the turns 1 and 3 of the first.
    assert overall["turn_goal_accuracy"] == pytest.approx(400 / 6)
    # Requests are wrong in the last turn but one of the first and in the last of the second.
    assert overall["turn_request_accuracy"] == pytest.approx(400 / 6)
    assert (overall["turns"], overall["dialogues"]) == (6, 2)


def test_a_corrected_error_counts_until_its_correction() -> None:
    gold = [[["a=1"], [], [], []]]
    late, early = [[[], [], ["a=1"], []]], [[["a=2"], ["a=1"], [], []]]
    assert score(gold, late).overall["joint_goal_accuracy"] == 50
    assert score(gold, early).overall["joint_goal_accuracy"] == 75
    assert score(gold, late).overall["turn_goal_accuracy"] == 50


def test_labels_are_scored_by_slot() -> None:
    labels = score(GOLD, PREDICTED).labels
    assert set(labels) == {"area", "food", "request"}
    assert (labels["food"]["precision"], labels["food"]["recall"]) == (100, 100)
    assert labels["area"]["precision"] == pytest.approx(100 / 3)
    assert labels["area"]["recall"] == 50
    assert (labels["request"]["correct"], labels["request"]["gold"]) == (2, 3)


def test_no_dialogue_scores_zero() -> None:
    assert score([], []).overall["joint_goal_accuracy"] == 0


def test_turns_of_a_dialogue_are_one_unit() -> None:
    unit_counts = counts(["a", "b"], GOLD, PREDICTED)
    assert unit_counts.units == ("a", "b")
    assert unit_counts.columns["joint_goal"].tolist() == [2, 2]
    assert unit_counts.columns["turns"].tolist() == [4, 2]


def test_numbers_of_turns_must_agree() -> None:
    with pytest.raises(ValueError, match="zip"):
        score([[["a=1"]]], [[["a=1"], []]])

"""Dialogue state tracking: a window per turn, a decision per slot, and states that accumulate."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Problems, UserError
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.dialogue_state_tracking import TASK, Example, SlotValue, Turn
from tests.support.encoding import features_and_counts, ids

LABELS = ("food=thai", "area=north", "food=dontcare", "request=phone", "request=address")
CLASSES = ("none", *LABELS)
EXAMPLE = Example(
    "a",
    ("", "What area?"),
    ("I want thai food.", "The north. The phone number?"),
    (("food=thai",), ("area=north", "request=phone")),
)
QUERIES = ("food", "area", "request phone", "request address")
GOLD = [("food=thai", "none", "none", "none"), ("none", "area=north", "request=phone", "none")]


def featurize(
    tokenizer: Tokenizer, *examples: Example, max_length: int = 64, first: int = 0
) -> tuple[list[Feature], Counter[str]]:
    return features_and_counts(TASK, tokenizer, examples, CLASSES, max_length, first)


def windows(*turns: list[list[float]]) -> list[WindowLogits]:
    """The logits of each turn, the last turn first."""
    found = []
    for number, logits in enumerate(turns):
        begins = np.arange(len(logits)) + number * len(logits)
        found.append(WindowLogits(begins, begins + 1, np.array(logits, np.float32)))
    return found[::-1]


# The classes are none, thai, north, dontcare, phone and address. The greatest logit of the first
# decision is at a value of another slot.
FIRST: list[list[float]] = [
    [1, 2, 9, 1, 0, 0],
    [3, 9, 1, 0, 0, 0],
    [2, 0, 0, 0, 1, 0],
    [1] + [0] * 5,
]
SECOND: list[list[float]] = [
    [4, 0, 0, 0, 0, 0],
    [0, 0, 2, 0, 0, 0],
    [0, 0, 0, 0, 1, 3],
    [1] + [0] * 5,
]


@pytest.mark.parametrize("name", ["tokenizer", "one_type_tokenizer", "numbering_tokenizer"])
def test_a_window_has_the_texts_of_a_turn_and_the_names_of_its_slots(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    features, counts = featurize(tokenizer, EXAMPLE, EXAMPLE, max_length=128, first=4)
    assert [feature.example for feature in features] == [4, 4, 5, 5]
    assert not counts
    for turn, feature in enumerate(features[:2]):
        head = [*tokenizer.prefix, *ids(tokenizer, EXAMPLE.system[turn]), *tokenizer.middle]
        expected = [*head, *ids(tokenizer, EXAMPLE.user[turn]), *tokenizer.middle]
        ends = []
        for query in QUERIES:
            expected += ids(tokenizer, query)
            ends.append(len(expected) - 1)
        assert feature.input_ids == expected + tokenizer.suffix
        assert feature.positions == ends
        assert list(feature.token_types) == [0] * len(head) + [tokenizer.second_type] * (
            len(feature.input_ids) - len(head)
        )
        assert [CLASSES[label] for label in feature.labels] == list(GOLD[turn])
        assert list(feature.begins) == [4 * turn + n for n in range(4)]
        assert feature.label_count == 4


def test_a_long_turn_keeps_its_end_of_the_system_and_its_begin_of_the_user(
    tokenizer: Tokenizer,
) -> None:
    example = Example("a", ("one " * 30, "two " * 9), ("cat " * 6, "dog " * 60), ((), ()))
    (first, second), counts = featurize(tokenizer, example, max_length=32)
    assert counts == {"turns cut": 2}
    assert (len(first.input_ids), len(second.input_ids)) == (32, 32)
    for feature, words in ((first, {"one": 16, "cat": 6}), (second, {"two": 0, "dog": 22})):
        assert {
            word: list(feature.input_ids).count(ids(tokenizer, word)[0]) for word in words
        } == words


def test_a_window_without_room_for_a_turn_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="raise it to at least 26"):
        featurize(tokenizer, EXAMPLE, max_length=25)
    featurize(tokenizer, EXAMPLE, max_length=26)


def test_each_decision_gets_a_value_of_its_slot() -> None:
    decoded = TASK.decode(EXAMPLE, windows(FIRST, SECOND), CLASSES)
    assert decoded == GOLD
    overall = TASK.score([EXAMPLE], [decoded], CLASSES).overall
    assert (overall["joint_goal_accuracy"], overall["turn_request_accuracy"]) == (100, 100)


def test_decisions_have_none_and_the_values_of_their_slot() -> None:
    logits = TASK.decision_logits(EXAMPLE, windows(FIRST, SECOND), CLASSES)
    options = [[0, 1, 3], [0, 2], [0, 4], [0, 5]]
    assert [np.flatnonzero(np.isfinite(row)).tolist() for row in logits] == options * 2
    wrong = [("food=dontcare", "none", "none", "none"), GOLD[1]]
    taken, right = TASK.decisions(EXAMPLE, wrong, CLASSES)
    assert taken == [3, 0, 0, 0, 0, 2, 4, 0]
    assert right == [False] + [True] * 7


def test_claims_are_predicted_and_missed_values() -> None:
    wrong = [("food=dontcare", "none", "none", "none"), ("none", "none", "none", "request=address")]
    claims = list(TASK.claims(EXAMPLE, wrong))
    assert [(claim.decisions, claim.gold, claim.predicted) for claim in claims] == [
        ((0,), "turn 0: food=thai", "turn 0: food=dontcare"),
        ((7,), "turn 1: none", "turn 1: request=address"),
        ((), "turn 1: area=north", ""),
        ((), "turn 1: request=phone", ""),
    ]
    assert [claim.right for claim in TASK.claims(EXAMPLE, GOLD)] == [True] * 3


def test_the_result_has_the_state_after_each_turn() -> None:
    result = TASK.result(EXAMPLE, windows(FIRST, SECOND), CLASSES, {"temperature": 2.0})
    thai = np.exp(1) / (np.exp(1) + 2 * np.exp(0.5))
    north, phone = np.exp(1) / (np.exp(1) + 1), np.exp(0.5) / (np.exp(0.5) + 1)
    assert result.turns == (
        Turn((SlotValue("food", "thai", pytest.approx(thai)),), {"food": "thai"}),
        Turn(
            (
                SlotValue("area", "north", pytest.approx(north)),
                SlotValue("request", "phone", pytest.approx(phone)),
            ),
            {"food": "thai", "area": "north"},
        ),
    )


def test_samples_are_the_turns_with_their_states_and_requests() -> None:
    wrong = [GOLD[0], ("none", "none", "none", "request=address")]
    assert list(TASK.samples(EXAMPLE, wrong)) == [
        ("I want thai food.", "food=thai", "food=thai"),
        (
            "What area? · The north. The phone number?",
            "area=north, food=thai, request=phone",
            "food=thai, request=address",
        ),
    ]


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"system": ["Hello."]}, "turn-count"),
        ({"labels": [[]]}, "turn-count"),
        ({"system": [], "user": [], "labels": []}, "turn-count"),
        ({"user": ["Yes.", " "]}, "empty-user"),
        ({"user": "Yes."}, "wrong-type"),
        ({"system": [None, ""]}, "wrong-type"),
        ({"labels": [["food=thai"], "area=north"]}, "wrong-type"),
        ({"labels": [["food=pizza"], []]}, "unknown-label"),
        ({"labels": [["food=thai", "food=dontcare"], []]}, "repeated-slot"),
    ],
)
def test_invalid_rows_are_problems(changes: dict[str, Any], kind: str) -> None:
    problems = Problems()
    assert TASK.example(row() | changes, LABELS, problems) is None
    assert problems.counts == {kind: 1}


def test_a_row_to_predict_with_missing_turns_is_told_nothing_of_labels() -> None:
    problems = Problems()
    unlabeled = {key: value for key, value in row().items() if key != "labels"}
    assert TASK.example_for_prediction(unlabeled | {"system": ["Hello."]}, problems) is None
    (problem,) = problems.kept
    assert problem.message == (
        "1 text of the system, 2 of the user; a dialogue has at least one turn, and each turn has "
        "both"
    )


def row() -> dict[str, Any]:
    labels = [list(turn) for turn in EXAMPLE.labels]
    texts = {"system": list(EXAMPLE.system), "user": list(EXAMPLE.user)}
    return {"id": "a", "where": "a:1", **texts, "labels": labels}


def test_a_row_becomes_an_example_and_a_record() -> None:
    assert TASK.example(row(), LABELS, Problems()) == EXAMPLE
    assert TASK.from_record(TASK.record(EXAMPLE)) == EXAMPLE
    assert TASK.text(EXAMPLE) == "I want thai food. What area? The north. The phone number?"
    assert list(TASK.labels(EXAMPLE)) == ["food=thai", "area=north", "request=phone"]
    query = TASK.example_for_prediction(row(), Problems())
    assert query == Example("a", EXAMPLE.system, EXAMPLE.user, ((), ()))


def test_two_requests_of_a_turn_are_no_conflict() -> None:
    labels = [[], ["request=phone", "request=address"]]
    assert TASK.example(row() | {"labels": labels}, LABELS, Problems()) is not None


def test_labels_name_a_slot_and_its_value() -> None:
    assert TASK.classes(LABELS) == CLASSES
    assert TASK.check_labels(LABELS) == []
    assert TASK.check_labels(("food", "=thai", "food=")) == [
        f"{label!r} is not a slot and its value; write slot=value"
        for label in ("food", "=thai", "food=")
    ]


def test_edits_change_the_texts_only() -> None:
    edited = TASK.apply_edit(EXAMPLE, Edit(str.upper))
    assert edited.system == ("", "WHAT AREA?")
    assert edited.labels == EXAMPLE.labels

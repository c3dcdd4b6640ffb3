"""Dialogue states as text: rows, sources and references, and the states in generated texts."""

from collections import Counter
from typing import Any

import pytest

from pipeline.errors import Problems
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.features import generated_window
from pipeline.tasks.dialogue_state_generation import TASK, Example, GeneratedState

ROW: dict[str, Any] = {
    "id": "7-2",
    "title": "7",
    "where": "a:1",
    "system": ["", "What area?"],
    "user": ["Some cheap thai food.", "The centre. What is the phone number?"],
    "labels": [["price range=cheap", "food=thai"], ["area=centre", "request=phone"]],
}
STATE = ("area=centre", "food=thai", "price range=cheap", "request=phone")
TEXT = "area = centre; food = thai; price range = cheap; request = phone"


def example(**changes: Any) -> tuple[Example | None, Problems]:
    problems = Problems()
    return TASK.example({**ROW, **changes}, (), problems), problems


def test_an_example_has_the_state_after_its_last_turn() -> None:
    made, problems = example()
    assert not problems.counts
    assert made == Example("7-2", "7", tuple(ROW["system"]), tuple(ROW["user"]), STATE)
    assert TASK.references(made) == (TEXT,)
    assert TASK.source(made) == (
        "user: Some cheap thai food. system: What area? user: The centre. What is the phone number?"
    )
    assert TASK.from_record(TASK.record(made)) == made
    changed, _ = example(labels=[["food=thai", "request=phone"], ["food=dontcare"]])
    assert changed is not None
    assert changed.labels == ("food=dontcare",), "requests are those of the last turn"
    silent, _ = example(labels=[[], []])
    assert silent is not None
    assert TASK.references(silent) == ("none",)


def test_rows_of_a_dialogue_stay_in_one_split() -> None:
    first = {**ROW, "system": [""], "user": ROW["user"][:1], "labels": [[]]}
    assert TASK.split_group(first) == TASK.split_group(ROW) == "7"
    untitled = [{key: row[key] for key in row if key != "title"} for row in (first, ROW)]
    assert TASK.split_group(untitled[0]) == TASK.split_group(untitled[1])


def test_turns_of_a_whole_dialogue_that_are_no_targets_are_said() -> None:
    made, problems = example(title=None)
    assert made is not None
    assert problems.counts == {"turns-without-target": 1}
    assert "a dialogue of 2 turns without a title" in problems.kept[0].message
    assert len(problems) == 0, "it is a warning"
    _, of_a_turn = example()
    _, of_one_turn = example(title=None, system=[""], user=["Thai."], labels=[[]])
    assert not of_a_turn.counts
    assert not of_one_turn.counts


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"labels": [["food"], []]}, "invalid-label"),
        ({"labels": [["food= thai"], []]}, "invalid-label"),
        ({"labels": [["food=thai; turkish"], []]}, "invalid-label"),
        ({"labels": [["food=thai", "food=dontcare"], []]}, "repeated-slot"),
        ({"labels": [[]]}, "turn-count"),
        ({"labels": "food=thai"}, "wrong-type"),
        ({"user": ["Thai.", " "]}, "empty-user"),
    ],
)
def test_invalid_rows_are_problems(changes: dict[str, object], kind: str) -> None:
    made, problems = example(**changes)
    assert made is None
    assert problems.counts == {kind: 1}


def test_the_newest_turns_of_a_long_dialogue_are_kept(numbering_tokenizer: Tokenizer) -> None:
    tokenizer, counts = numbering_tokenizer, Counter[str]()
    long = Example("a", "a", ("", ""), ("first " * 40, "last"), ("food=thai",))
    (feature,) = TASK.configured(max_answer_length=16).featurize(
        [long], 0, tokenizer, (), 64, 8, counts
    )
    assert counts["sources cut"] == 1
    end = feature.positions[0] + 1 - len(tokenizer.middle)
    last = tokenizer.encode_texts(["user: last"])[0][0]
    assert feature.input_ids[end - len(last) + 1 : end] == last[1:]
    assert len(feature.input_ids) <= 64


def test_states_are_compared_as_sets_turn_by_turn() -> None:
    made, _ = example()
    other = Example("8-1", "8", ("",), ("Hello.",), ())
    assert made is not None
    examples = [made, other]
    reordered = "request = phone; food = thai; area = centre; price range = cheap"
    scores = TASK.score(examples, [reordered, "none"], ())
    assert scores.overall == {
        "joint_goal_accuracy": 100.0,
        "turn_request_accuracy": 100.0,
        "turns": 2,
        "values_of_other_slots": 0,
    }
    wrong = {
        "": (50, 50),
        "food = thai": (50, 50),
        f"{TEXT}; food": (50, 100),
        TEXT.removesuffix("phone"): (100, 50),
    }
    for text, (goals, requests) in wrong.items():
        overall = TASK.score(examples, [text, "none"], ()).overall
        assert overall["joint_goal_accuracy"] == goals, text
        assert overall["turn_request_accuracy"] == requests, text
    counts = TASK.counts(examples, [TEXT, "food = thai"], ())
    assert len(counts.units) == 2
    again = TASK.counts([made, made], [TEXT, TEXT], ())
    assert len(again.units) == 1, "the turns of a dialogue are one unit"
    untitled = [example(id=id, title=None)[0] for id in ("a", "b")]
    assert len(TASK.counts([*untitled], [TEXT, TEXT], ()).units) == 2


def test_slots_without_annotation_are_counted_and_no_labels() -> None:
    made, _ = example()
    assert made is not None
    scores = TASK.score([made], [f"{TEXT}; fo\x00od = thai; fo\x00od = thai; a cheap one"], ())
    assert scores.labels.keys() == {"area", "food", "price range", "request"}
    assert scores.overall["values_of_other_slots"] == 3


def test_a_result_has_the_state_and_the_requests() -> None:
    made = TASK.example_for_prediction(ROW, Problems())
    assert made is not None
    result = TASK.result(made, [generated_window(TEXT)], (), {})
    assert result == GeneratedState(
        TEXT, {"area": "centre", "food": "thai", "price range": "cheap"}, ("phone",)
    )
    assert str(result) == TEXT
    assert TASK.result(made, [generated_window("none")], (), {}).state == {}

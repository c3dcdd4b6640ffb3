"""Annotations as results: the spans that notebooks and pages show are at their words."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.display.highlighting import to_plain
from pipeline.tasks import NAMES, task_named
from pipeline.tasks.base.capabilities import ShowsSpans
from pipeline.tasks.dialogue_state_tracking import Example as Dialogue
from pipeline.tasks.intent_and_slots import Example as Request
from pipeline.tasks.multiple_choice import Example as Choices
from pipeline.tasks.semantic_role_labeling import Example as Predicate
from pipeline.tasks.semantic_role_labeling import Structures
from pipeline.tasks.sequence_classification import Example as Text
from pipeline.tasks.sequence_classification import Mark
from pipeline.tasks.shared.tagging import token_bounds
from pipeline.tasks.span_extraction import Answer
from pipeline.tasks.span_extraction import Example as Question
from pipeline.tasks.token_classification import Example as Sentence

ROLES = ("B-A0", "B-V", "B-A1", "I-A1", "O")
NORTH = ("area=north", "request=phone")
SHOWN = {
    "token_classification": (
        Sentence("s", ("Ada", "met", "New", "York"), ("B-PER", "O", "B-LOC", "I-LOC")),
        "[PER: Ada] met [LOC: New York]",
    ),
    "dialogue_state_tracking": (
        Dialogue("d", ("", "Where?"), ("Thai.", "North, phone?"), (("food=thai",), NORTH)),
        "food=thai (1.00); state: food=thai\nThai.\n"
        "area=north (1.00), request=phone (1.00); state: area=north, food=thai\n"
        "Where? · North, phone?",
    ),
    "intent_and_slots": (
        Request("s", ("to", "New", "York"), ("O", "B-city", "I-city"), "flight"),
        "flight (1.00)\nto [city: New York]",
    ),
    "semantic_role_labeling": (
        Predicate("s", ("Ada", "met", "the", "man", "."), 1, ROLES),
        "[A0: Ada] [V: met] [A1: the man] .",
    ),
    "span_extraction": (
        Question("q", "Who?", "Bo met Ada.", (Answer("Ada", 7), Answer("Bo", 0))),
        "Who?\nBo met [answer: Ada].",
    ),
    "sequence_classification": (
        Text("t", "river bank", "a bank", (Mark(0, 6, 10), Mark(1, 2, 6)), "no", ""),
        "no (1.00)\nriver [bank]\na [bank]",
    ),
    "verbalized_classification": (Text("t", "fine", "", (), "yes", ""), "yes (1.00)\nfine"),
    "multiple_choice": (
        Choices("c", "Ada met Bo", "Who?", ("Ada", "Bo"), (0, 8), ("Bo",)),
        "Who?\nAda met [choice: Bo]",
    ),
}


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_shows_its_annotation(name: str) -> None:
    if name not in SHOWN:  # a kind added by a user need not
        return
    task, (example, expected) = task_named(name), SHOWN[name]
    assert isinstance(task, ShowsSpans)
    assert (
        to_plain(task.marked_texts(task.shown_texts(example), task.annotation(example))) == expected
    )


def test_question_without_answer_and_choices_outside_the_context() -> None:
    task: Any = task_named("span_extraction")
    question = Question("q", "Who?", "Bo.", ())
    (shown,) = task.marked_texts(task.shown_texts(question), task.annotation(question))
    assert to_plain([shown]) == "Who? no answer (1.00)\nBo."
    task = task_named("multiple_choice")
    choices = Choices("c", "It rained.", "Effect?", ("dry", "wet"), (), ("wet",))
    texts = task.marked_texts(task.shown_texts(choices), task.annotation(choices))
    assert to_plain(texts) == "Effect?\nIt rained.\ndry\n[choice: wet]"


def test_sentence_without_predicates_is_shown_once() -> None:
    task: Any = task_named("semantic_role_labeling")
    assert to_plain(task.marked_texts(("Oh.",), Structures(()))) == "Oh."


@given(st.lists(st.text(max_size=3), max_size=6))
def test_bounds_of_tokens_are_those_in_the_joined_text(tokens: list[str]) -> None:
    text = " ".join(tokens)
    assert [text[start:end] for start, end in token_bounds(tokens)] == tokens

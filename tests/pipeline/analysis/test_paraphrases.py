"""Paraphrased questions and shortened contexts, compared with manual results."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.analysis.paraphrases import rephrase, trim_context, variants
from pipeline.tasks.span_extraction import TASK, Answer
from pipeline.tasks.span_extraction import Example as Question

CONTEXT = "Ada ran. Bo sat in Ulm. Cy slept. Di ate in Ulm! Ed left."


@pytest.mark.parametrize(
    ("question", "others"),
    [
        (
            "What is the capital of France?",
            [
                "What is the capital of France",
                "the capital of France is what?",
                "What's the capital of France?",
            ],
        ),
        ("In which year did Ada run?", ["In which year did Ada run", "Which year did Ada run?"]),
        ("By whom was it won?", ["By whom was it won"]),  # "Whom was it won?" asks nothing
        ("Who was Ada Bee ?", ["Who was Ada Bee", "Ada Bee was who?"]),
        ("Who was fired by Bo?", ["Who was fired by Bo"]),
        (
            "What is the man who ran called?",
            ["What is the man who ran called", "What's the man who ran called?"],
        ),
        ("Which town did he leave", ["What town did he leave"]),
        ("Which of them ran", []),
        ("Why didn't he go", ["Why did not he go"]),
        ("Who did not go", ["Who didn't go"]),
        ("?", []),
    ],
)
def test_a_question_has_the_expected_paraphrases(question: str, others: list[str]) -> None:
    assert rephrase(question) == others


def test_a_context_is_cut_to_the_sentences_around_an_answer() -> None:
    assert trim_context(CONTEXT, "slept") == [
        "Cy slept.",
        "Bo sat in Ulm. Cy slept. Di ate in Ulm!",
    ]
    assert trim_context(CONTEXT, "Ulm") == ["Bo sat in Ulm. Di ate in Ulm!"], (
        "all sentences with the answer; with their neighbors, the context is complete"
    )
    assert trim_context(CONTEXT, "ran. Bo") == [
        "Ada ran. Bo sat in Ulm.",
        "Ada ran. Bo sat in Ulm. Cy slept.",
    ]
    assert (
        trim_context(CONTEXT, "")
        == trim_context("One sentence.", "One")
        == trim_context("", "")
        == []
    )


@given(st.text("ab.?! \n", max_size=40), st.integers(0, 39), st.integers(1, 5))
def test_an_answer_inside_a_sentence_is_kept(context: str, start: int, length: int) -> None:
    text = context[start : start + length]
    whole = text.strip() == text and not set(text) & set(".?!")
    assert not whole or all(text in one for one in trim_context(context, text))


def test_variants_are_new_examples_without_answers() -> None:
    question = Question("a", "Who sat?", CONTEXT, (Answer("Bo", 9),))
    made = list(variants(TASK, question, "Bo"))
    assert [(one.question, one.context) for one in made] == [
        ("Who sat", CONTEXT),
        ("Who sat?", "Bo sat in Ulm."),
        ("Who sat?", "Ada ran. Bo sat in Ulm. Cy slept."),
    ]
    assert [one.id for one in made] == ["a/0", "a/1", "a/2"]
    assert not any(one.answers for one in made)

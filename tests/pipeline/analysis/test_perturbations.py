"""Perturbed examples are valid, their references are preserved, and the seed determines them."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.analysis.perturbations import (
    WORD,
    add_typos,
    collect_mentions,
    map_labels,
    perturb,
    perturb_spaces,
    suites,
    swap_entities,
)
from pipeline.errors import Problems
from pipeline.metrics.spans import spans
from pipeline.tasks import multiple_choice as choice
from pipeline.tasks import semantic_role_labeling as srl
from pipeline.tasks import sequence_classification as classification
from pipeline.tasks import span_extraction as qa
from pipeline.tasks import task_named
from pipeline.tasks import token_classification as ner
from pipeline.tasks.base.edits import Edit

LABELS = ("PER", "LOC")
WORDS = st.text("abcdeABCßİΣσé\u0301.'-7字", min_size=1, max_size=9).filter(
    lambda word: word.strip("\u0301")
)
SENTENCES = st.lists(WORDS, min_size=1, max_size=8)


def tagged(data: st.DataObject, count: int) -> tuple[str, ...]:
    """Well-formed IOB2 tags."""
    tags: list[str] = []
    for _ in range(count):
        after = [f"I-{tags[-1][2:]}"] if tags and tags[-1] != "O" else []
        tags.append(data.draw(st.sampled_from(["O", *(f"B-{label}" for label in LABELS), *after])))
    return tuple(tags)


def texts(data: st.DataObject, most: int) -> tuple[str, list[tuple[int, int]]]:
    """A text and at most `most` spans of whole words, which may overlap."""
    words = data.draw(SENTENCES)
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    starts = [0, *(ends[:-1] + 1)]
    pairs = data.draw(
        st.lists(
            st.tuples(*[st.integers(0, len(words) - 1)] * 2).map(sorted),
            max_size=most,
            unique_by=tuple,
        )
    )
    return " ".join(words), [(int(starts[first]), int(ends[last])) for first, last in pairs]


def a_sentence(data: st.DataObject) -> ner.Example:
    tokens = data.draw(SENTENCES)
    return ner.Example("a", tuple(tokens), tagged(data, len(tokens)))


def a_proposition(data: st.DataObject) -> srl.Example:
    tokens = data.draw(SENTENCES)
    predicate = data.draw(st.integers(0, len(tokens) - 1))
    tags = ["O"] * len(tokens)
    tags[predicate] = "B-V"
    return srl.Example("a", tuple(tokens), predicate, tuple(tags))


def a_question(data: st.DataObject) -> qa.Example:
    context, bounds = texts(data, 3)
    return qa.Example(
        "a",
        " ".join(data.draw(SENTENCES)),
        context,
        tuple(qa.Answer(context[a:b], a) for a, b in bounds),
    )


def a_classified_text(data: st.DataObject) -> classification.Example:
    (text, bounds), (pair, more) = texts(data, 1), texts(data, 1)
    marks = [
        classification.Mark(segment, *span)
        for segment, each in enumerate((bounds, more))
        for span in each
    ]
    return classification.Example(
        "a", text, pair, tuple(marks), data.draw(st.sampled_from(LABELS)), ""
    )


def a_choice(data: st.DataObject) -> choice.Example:
    context, bounds = texts(data, 3)
    choices = tuple(context[a:b] for a, b in bounds) or ("one thing", "another thing")
    answer = data.draw(st.sampled_from(choices))
    return choice.Example(
        "a",
        context,
        " ".join(data.draw(SENTENCES)),
        choices,
        tuple(a for a, _ in bounds),
        (answer,),
    )


def row_of(task: str, example: Any) -> dict[str, Any]:
    """The row of a reader for an example."""
    row = dataclasses.asdict(example) | {"where": "here"}
    if task == "span_extraction":
        row["answers"] = [
            {"text": answer.text, "answer_start": answer.start} for answer in example.answers
        ]
    return row


EXAMPLES: dict[str, Callable[[st.DataObject], Any]] = {
    "token_classification": a_sentence,
    "semantic_role_labeling": a_proposition,
    "span_extraction": a_question,
    "sequence_classification": a_classified_text,
    "multiple_choice": a_choice,
}


@pytest.mark.parametrize("task", EXAMPLES)
@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_perturbed_examples_are_valid(task: str, data: st.DataObject, seed: int) -> None:
    example, kind = EXAMPLES[task](data), task_named(task)
    for name, suite in suites(kind, [example], 1.0).items():
        (changed,) = perturb([example], name, suite, seed)
        problems = Problems()
        assert kind.example(row_of(task, changed), LABELS, problems) == changed, name
        assert len(problems) == 0
        assert list(kind.labels(changed)) == list(kind.labels(example))


def test_only_token_classification_has_entity_swaps() -> None:
    assert {name: "entity_swaps" in suites(task_named(name), [], 0.5) for name in EXAMPLES} == {
        name: name == "token_classification" for name in EXAMPLES
    }


@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_tags_stay_with_their_tokens(data: st.DataObject, seed: int) -> None:
    example = a_sentence(data)
    for name in ("typos", "lower", "upper", "white_space"):
        (changed,) = perturb([example], name, suites(ner.TASK, [example], 1.0)[name], seed)
        assert changed.tags == example.tags
        assert len(changed.tokens) == len(example.tokens)
        if name == "white_space":
            assert changed == example, "a list of tokens has no white space"


@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_answers_change_only_in_case(data: st.DataObject, seed: int) -> None:
    example = a_question(data)
    found = {
        name: perturb([example], name, suite, seed)[0]
        for name, suite in suites(qa.TASK, [example], 1.0).items()
    }
    before = [answer.text for answer in example.answers]
    assert [answer.text for answer in found["typos"].answers] == before
    assert [answer.text for answer in found["white_space"].answers] == before
    assert [answer.text for answer in found["upper"].answers] == [text.upper() for text in before]
    for changed in found.values():
        assert all(
            changed.context.startswith(answer.text, answer.start) for answer in changed.answers
        )


@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_an_entity_is_replaced_by_another_of_its_label(data: st.DataObject, seed: int) -> None:
    examples = [dataclasses.replace(a_sentence(data), id=str(number)) for number in range(3)]
    mentions = collect_mentions(examples)
    for before, after in zip(
        examples,
        perturb(examples, "x", partial(swap_entities, ner.TASK, mentions=mentions), seed),
        strict=True,
    ):
        old, new = spans(before.tags), spans(after.tags)
        assert [label for label, _, _ in new] == [label for label, _, _ in old]
        for (label, start, end), (_, first, last) in zip(old, new, strict=True):
            put, was = after.tokens[first:last], before.tokens[start:end]
            assert put in mentions[label]
            assert (put == was) == (len(mentions[label]) == 1)
        outside = [
            [word for word, tag in zip(each.tokens, each.tags, strict=True) if tag == "O"]
            for each in (before, after)
        ]
        assert outside[0] == outside[1]


def test_a_swap_has_the_expected_tokens_and_tags() -> None:
    example = ner.Example(
        "a", ("Ada", "saw", "New", "York", "."), ("B-PER", "O", "B-LOC", "I-LOC", "O")
    )
    mentions = {"PER": [("Ada",)], "LOC": [("Bonn",), ("New", "York")]}
    after = swap_entities(ner.TASK, example, np.random.default_rng(0), mentions)
    assert after == ner.Example("a", ("Ada", "saw", "Bonn", "."), ("B-PER", "O", "B-LOC", "O"))


@settings(deadline=None)
@given(
    seed=st.integers(0, 99), ids=st.lists(st.text(max_size=5), unique=True, min_size=2, max_size=6)
)
def test_a_perturbation_depends_only_on_the_seed_and_the_id(seed: int, ids: list[str]) -> None:
    examples = [
        ner.Example(id, ("understanding", "everything", "immediately"), ("O",) * 3) for id in ids
    ]
    suite = suites(ner.TASK, examples, 0.5)["typos"]
    whole = perturb(examples, "typos", suite, seed)
    assert perturb(examples[::-1], "typos", suite, seed) == whole[::-1]
    assert perturb(examples[1:], "typos", suite, seed) == whole[1:]


def test_typos_differ_between_seeds() -> None:
    examples = [ner.Example("a", ("understanding", "everything", "immediately") * 3, ("O",) * 9)]
    suite = suites(ner.TASK, examples, 0.5)["typos"]
    assert len({perturb(examples, "typos", suite, seed)[0] for seed in range(20)}) > 15


def one_typo(word: str) -> set[str]:
    """All results of one typo at an inner letter of a word."""
    inner, letters = range(1, len(word) - 1), "abcdefghijklmnopqrstuvwxyz"
    typos = {
        word[:at] + word[at + 1] + word[at] + word[at + 2 :] for at in inner if at + 1 in inner
    }
    typos |= {word[:at] + word[at + 1 :] for at in inner}
    typos |= {
        word[:at] + letter + word[at + skip :]
        for at in inner
        for letter in letters
        for skip in (0, 1)
    }
    return typos


@settings(deadline=None)
@given(word=st.text("abcdeé", min_size=4, max_size=8), seed=st.integers(0, 10_000))
def test_a_typo_changes_one_inner_letter(word: str, seed: int) -> None:
    assert add_typos(word, 1.0, np.random.default_rng(seed)) in one_typo(word)


@pytest.mark.parametrize("word", ["the", "ab3d", "1234", "", "...."])
def test_short_words_and_numbers_have_no_typos(word: str) -> None:
    assert add_typos(word, 1.0, np.random.default_rng(0)) == word


def test_the_fraction_of_typos_equals_the_typo_rate() -> None:
    """A tenth of 4,000 words is 400. The tolerance is three standard deviations of 19.

    Some typos have no effect (for example, "ee" with its letters swap_entities).
    """
    text = " ".join(["wonderful"] * 4000)
    changed = sum(
        word != "wonderful" for word in add_typos(text, 0.1, np.random.default_rng(0)).split()
    )
    assert abs(changed - 400) < 60
    assert add_typos(text, 0.0, np.random.default_rng(0)) == text


@settings(deadline=None)
@given(text=st.text("ab  \n", max_size=40), seed=st.integers(0, 99))
def test_white_space_edits_keep_the_words(text: str, seed: int) -> None:
    assert perturb_spaces(text, np.random.default_rng(seed)).split() == text.split()


def test_white_space_is_doubled_removed_or_unusual() -> None:
    found = set(
        perturb_spaces("a " * 100 + "a", np.random.default_rng(0)).replace("a", "|").split("|")
    )
    assert found == {"", " ", "  ", "\u00a0", "\u2009", " \u00a0"}


def test_an_edit_moves_overlapping_spans() -> None:
    text = "one two three"
    doubled = Edit(lambda piece: piece * 2, inside_spans=True)
    made, starts, ends = doubled.text(text, [4, 4, 8], [7, 13, 13])
    assert [made[start:end] for start, end in zip(starts, ends, strict=True)] == [
        "twotwo",
        "twotwo  threethree",
        "threethree",
    ]
    made, starts, ends = Edit(str.upper).text(text, [4], [7])
    assert (made, starts, ends) == ("ONE two THREE", [4], [7])


@settings(deadline=None)
@given(text=st.text(min_size=1, max_size=30))
def test_an_edit_without_changes_moves_no_span(text: str) -> None:
    assert Edit(str).text(text, [0], [len(text)]) == (text, [0], [len(text)])


def test_labels_of_another_corpus_are_mapped() -> None:
    assert map_labels(
        ["B-person", "I-person", "O", "B-product", "I-product", "intent:buy"], {"person": "PER"}
    ) == (
        "B-PER",
        "I-PER",
        "O",
        "O",
        "O",
        "intent:buy",
    )


def test_only_longer_words_of_letters_match() -> None:
    assert WORD.findall("ab abcd über_alles x1234 can't") == ["abcd", "über", "alles"]

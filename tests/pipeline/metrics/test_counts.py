"""The counts of units add up to the score: for every task, both computations give equal metrics."""

import random
from typing import Any

import numpy as np
import pytest

from pipeline.metrics.base import apply_formula, sum_by_unit
from pipeline.tasks import task_named
from pipeline.tasks.dialogue_state_tracking import Example as Dialogue
from pipeline.tasks.intent_and_slots import Example as Request
from pipeline.tasks.multiple_choice import Example as Choice
from pipeline.tasks.semantic_role_labeling import Example as Proposition
from pipeline.tasks.sequence_classification import Example as Text
from pipeline.tasks.span_extraction import Answer
from pipeline.tasks.span_extraction import Example as Question
from pipeline.tasks.token_classification import Example as Sentence

Case = tuple[str, list[Any], Any, tuple[str, ...]]
SIZES = (0, 1, 3, 40)


def tags(draw: random.Random, labels: tuple[str, ...], length: int = 9) -> tuple[str, ...]:
    return tuple(
        draw.choice(["O", *(f"{prefix}-{label}" for label in labels for prefix in "BI")])
        for _ in range(length)
    )


def entities(draw: random.Random, size: int) -> Case:
    examples = [Sentence(str(number), ("w",) * 9, tags(draw, ("A", "B"))) for number in range(size)]
    return "token_classification", examples, [tags(draw, ("A", "B")) for _ in examples], ("O",)


def requests(draw: random.Random, size: int) -> Case:
    _, sentences, predicted_tags, classes = entities(draw, size)
    intents = ("buy", "sell")
    examples = [Request(s.id, s.tokens, s.tags, draw.choice(intents)) for s in sentences]
    predicted = [
        (*(example.tags if draw.random() < 0.5 else tags), f"intent:{draw.choice(intents)}")
        for example, tags in zip(examples, predicted_tags, strict=True)
    ]
    return "intent_and_slots", examples, predicted, classes


def dialogues(draw: random.Random, size: int) -> Case:
    options = (("none", "food=thai", "food=any"), ("none", "area=north"), ("none", "request=phone"))
    examples, predictions = [], []
    for number in range(size):
        turns = [tuple(map(draw.choice, options)) for _ in range(draw.randint(1, 4))]
        gold = tuple(tuple(label for label in turn if label != "none") for turn in turns)
        texts = ("text",) * len(turns)
        examples.append(Dialogue(str(number), texts, texts, gold))
        predictions.append(
            [turn if draw.random() < 0.7 else tuple(map(draw.choice, options)) for turn in turns]
        )
    return "dialogue_state_tracking", examples, predictions, ("none",)


def arguments(draw: random.Random, size: int) -> Case:
    roles = ("V", "A0", "A1", "C-A1")
    examples = [
        Proposition(str(number), (f"w{number // 2}",) * 9, 0, ("B-V", *tags(draw, roles, 8)))
        for number in range(size)
    ]
    return "semantic_role_labeling", examples, [tags(draw, roles) for _ in examples], ("O",)


def questions(draw: random.Random, size: int, unanswerable: bool = True) -> Case:
    texts = ("Bonn", "in Bonn", "the old Bonn on the Rhine", "Rome", "the")
    answers = [draw.sample(texts, draw.randint(not unanswerable, 2)) for _ in range(size)]
    examples = [
        Question(str(number), "Where?", "c", tuple(Answer(text, 0) for text in accepted))
        for number, accepted in enumerate(answers)
    ]
    guesses = {example.id: draw.choice((*texts, "")) for example in examples if draw.random() < 0.9}
    return "span_extraction", examples, guesses, ("start", "end")


def choices(draw: random.Random, size: int) -> Case:
    texts = ("the Rhine", "Rhine", "a river")
    examples = [
        Choice(str(number), "c", "q", texts, (), tuple(draw.sample(texts, draw.randint(1, 2))))
        for number in range(size)
    ]
    return (
        "multiple_choice",
        examples,
        {example.id: draw.choice(texts) for example in examples},
        ("choice",),
    )


def labels(draw: random.Random, size: int, grouped: bool = False) -> Case:
    classes = ("no", "maybe", "yes")
    known = classes[: draw.randint(1, 3)]  # some labels may never occur
    examples = [
        Text(str(number), "t", "", (), draw.choice(known), str(number // 3) if grouped else "")
        for number in range(size)
    ]
    return "sequence_classification", examples, [draw.choice(known) for _ in examples], classes


CASES = {
    "entities": entities,
    "requests": requests,
    "dialogues": dialogues,
    "arguments": arguments,
    "questions": questions,
    "choices": choices,
    "labels": labels,
    "always answerable": lambda draw, size: questions(draw, size, unanswerable=False),
    "grouped": lambda draw, size: labels(draw, size, grouped=True),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", sorted(CASES))
def test_formulas_of_summed_counts_equal_the_score(case: str, size: int) -> None:
    for seed in range(20):
        name, examples, predictions, classes = CASES[case](random.Random(seed), size)
        task = task_named(name)
        score = task.score(examples, predictions, classes).overall
        counts = task.counts(examples, predictions, classes)
        sums = {column: values.sum(keepdims=True) for column, values in counts.columns.items()}
        metrics = {
            metric: float(apply_formula(formula, sums)[0])
            for metric, formula in counts.formulas.items()
        }
        assert metrics == {metric: pytest.approx(score[metric], rel=1e-13) for metric in metrics}
        assert set(task.metric_names) & set(score) <= set(metrics) <= set(score)
        assert all(len(values) == len(counts.units) for values in counts.columns.values())


def test_units_are_questions_or_sentences() -> None:
    _, *case = labels(random.Random(0), 7, grouped=True)
    assert task_named("sequence_classification").counts(*case).units == ("0", "1", "2")
    _, *case = arguments(random.Random(0), 8)
    assert len(task_named("semantic_role_labeling").counts(*case).units) == 4


def test_rows_of_a_unit_are_added_up() -> None:
    counts = sum_by_unit(["b", "a", "b"], {"right": [1, 1, 0], "total": [1, 1, 1]}, {})
    assert counts.units == ("b", "a")
    assert counts.columns["right"].tolist() == [1.0, 1.0]
    assert counts.columns["total"].tolist() == [2.0, 1.0]


def test_formula_of_many_samples_equals_counts_by_hand() -> None:
    sums = {
        "c": np.array([1.0, 0.0, 0.0]),
        "p": np.array([2.0, 1.0, 0.0]),
        "g": np.array([3.0, 0.0, 0.0]),
        "c2": np.array([1.0, 0.0, 0.0]),
        "p2": np.array([1.0, 0.0, 0.0]),
        "g2": np.array([1.0, 0.0, 0.0]),
    }
    assert apply_formula((("c", "p", "g"), ("c2", "p2", "g2")), sums).tolist() == pytest.approx(
        [70.0, 0.0, 0.0]
    )
    assert apply_formula((("c", "p"),), sums).tolist() == [50.0, 0.0, 0.0]

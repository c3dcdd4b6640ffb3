"""The counts of units add up to the score: every figure of every task is the same by both ways."""

import random
from typing import Any

import numpy as np
import pytest

from pipeline.metrics.base import by_unit, figure
from pipeline.tasks import task_named
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


def arguments(draw: random.Random, size: int) -> Case:
    roles = ("V", "A0", "A1", "C-A1")
    examples = [
        Proposition(str(number), (f"w{number // 2}",) * 9, 0, ("B-V", *tags(draw, roles, 8)))
        for number in range(size)
    ]
    return "semantic_role_labeling", examples, [tags(draw, roles) for _ in examples], ("O",)


def questions(draw: random.Random, size: int, none: bool = True) -> Case:
    texts = ("Bonn", "in Bonn", "the old Bonn on the Rhine", "Rome", "the")
    answers = [draw.sample(texts, draw.randint(not none, 2)) for _ in range(size)]
    examples = [
        Question(str(number), "Where?", "c", tuple(Answer(text, 0) for text in some))
        for number, some in enumerate(answers)
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


def labeled(draw: random.Random, size: int, grouped: bool = False) -> Case:
    labels = ("no", "maybe", "yes")
    known = labels[: draw.randint(1, 3)]  # some labels may be in none
    examples = [
        Text(str(number), "t", "", (), draw.choice(known), str(number // 3) if grouped else "")
        for number in range(size)
    ]
    return "sequence_classification", examples, [draw.choice(known) for _ in examples], labels


CASES = {
    "entities": entities,
    "arguments": arguments,
    "questions": questions,
    "choices": choices,
    "labeled": labeled,
    "always answerable": lambda draw, size: questions(draw, size, none=False),
    "grouped": lambda draw, size: labeled(draw, size, grouped=True),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("case", sorted(CASES))
def test_every_figure_comes_out_of_the_summed_counts(case: str, size: int) -> None:
    for seed in range(20):
        name, examples, predictions, classes = CASES[case](random.Random(seed), size)
        task = task_named(name)
        score, counts = (
            task.score(examples, predictions, classes).overall,
            task.counts(examples, predictions, classes),
        )
        sums = {column: values.sum(keepdims=True) for column, values in counts.columns.items()}
        found = {
            figure_name: float(figure(formula, sums)[0])
            for figure_name, formula in counts.figures.items()
        }
        assert found == {
            figure_name: pytest.approx(score[figure_name], rel=1e-13) for figure_name in found
        }
        assert set(task.metric_names) & set(score) <= set(found) <= set(score)
        assert all(len(values) == len(counts.units) for values in counts.columns.values())


def test_units_are_what_is_resampled_as_a_whole() -> None:
    assert task_named("sequence_classification").counts(
        *labeled(random.Random(0), 7, grouped=True)[1:]
    ).units == ("0", "1", "2")
    assert (
        len(task_named("semantic_role_labeling").counts(*arguments(random.Random(0), 8)[1:]).units)
        == 4
    ), "sentences"


def test_rows_of_a_unit_are_added() -> None:
    counts = by_unit(["b", "a", "b"], {"right": [1, 1, 0], "total": [1, 1, 1]}, {})
    assert counts.units == ("b", "a")
    assert counts.columns["right"].tolist() == [1.0, 1.0]
    assert counts.columns["total"].tolist() == [2.0, 1.0]


def test_a_figure_of_many_samples_by_hand() -> None:
    sums = {
        "c": np.array([1.0, 0.0, 0.0]),
        "p": np.array([2.0, 1.0, 0.0]),
        "g": np.array([3.0, 0.0, 0.0]),
        "c2": np.array([1.0, 0.0, 0.0]),
        "p2": np.array([1.0, 0.0, 0.0]),
        "g2": np.array([1.0, 0.0, 0.0]),
    }
    assert figure((("c", "p", "g"), ("c2", "p2", "g2")), sums).tolist() == pytest.approx(
        [70.0, 0.0, 0.0]
    )
    assert figure((("c", "p"),), sums).tolist() == [50.0, 0.0, 0.0]

"""Multiple choice: positions of the choices in the input, decoding over windows, checks of rows."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Problems, UserError
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks import task_named
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.multiple_choice import Choice, Example
from tests.support.encoding import ids

TASK = task_named("multiple_choice")
CLASSES = TASK.classes(())
TOKENIZERS = ["tokenizer", "one_type_tokenizer", "numbering_tokenizer"]
COPA = Example(
    "c",
    "the man ran",
    "what was the cause ?",
    ("a dog bit", "rain", "he sang to us"),
    (),
    ("rain",),
)
PASSAGE = "Ada met Bo . Then Ada left Rome with Cy ."


def mentions(
    *right: str, context: str = PASSAGE, names: tuple[str, ...] = ("Ada", "Bo", "Ada", "Rome", "Cy")
) -> Example:
    starts, at = [], 0
    for name in names:
        starts.append(context.index(name, at))
        at = starts[-1] + 1
    return Example("r", context, "who left ?", names, tuple(starts), right)


def featurize(
    tokenizer: Tokenizer, *examples: Example, max_length: int = 64, stride: int = 8
) -> tuple[list[Feature], Counter[str]]:
    counts: Counter[str] = Counter()
    features = list(TASK.featurize(examples, 0, tokenizer, CLASSES, max_length, stride, counts))
    for feature in features:
        assert len(feature.input_ids) == len(feature.token_types) <= max_length
        assert len(feature.positions) == len(feature.begins) == len(feature.ends)
        assert all(0 <= position < len(feature.input_ids) for position in feature.positions)
        (label,) = feature.labels
        assert 0 <= label < len(feature.positions)
    return features, +counts


def test_an_edit_that_merges_mentions_changes_nothing() -> None:
    lower = Edit(str.lower, inside_spans=True)
    us = mentions("US", context="US told us", names=("US", "us"))
    assert TASK.apply_edit(us, lower) == us
    edited = TASK.apply_edit(mentions("Ada"), lower)
    assert (edited.choices, edited.answers) == (("ada", "bo", "ada", "rome", "cy"), ("ada",))


@pytest.mark.parametrize("name", TOKENIZERS)
def test_choices_follow_the_context(name: str, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    (feature,), counts = featurize(tokenizer, COPA)
    head = [
        *tokenizer.prefix,
        *ids(tokenizer, COPA.context),
        *ids(tokenizer, COPA.question),
        *tokenizer.middle,
    ]
    expected, markers, ends = list(head), [], []
    for choice in COPA.choices:
        markers.append(len(expected))
        expected += [*tokenizer.marker, *ids(tokenizer, choice)]
        ends.append(len(expected) - 1)
    assert feature.input_ids == expected + tokenizer.suffix
    assert feature.positions == (ends if tokenizer.causal else markers)
    assert (list(feature.begins), feature.labels) == ([0, 1, 2], [1])
    assert list(feature.token_types[: len(head)]) == [0] * len(head)
    assert set(feature.token_types[len(head) :]) == {tokenizer.second_type}
    assert not counts


def test_long_context_is_truncated_before_the_choices(tokenizer: Tokenizer) -> None:
    example = Example(**vars(COPA) | {"context": "abc " * 60})
    (feature,), counts = featurize(tokenizer, example, max_length=32)
    assert counts == {"contexts or questions cut": 1}
    assert len(feature.input_ids) == 32
    choices = [*tokenizer.marker, *ids(tokenizer, "he sang to us"), *tokenizer.suffix]
    assert feature.input_ids[-len(choices) :] == choices
    assert set(ids(tokenizer, COPA.question)) <= set(feature.input_ids)


def test_many_long_choices_are_truncated_and_all_present(tokenizer: Tokenizer) -> None:
    choices = tuple(f"{letter} {letter} {letter} " * 20 for letter in "abcdef")
    (feature,), counts = featurize(
        tokenizer, Example("q", "x y", "z ?", choices, (), choices[-1:]), max_length=48
    )
    assert counts == {"choices cut": 1}
    assert [feature.input_ids[position] for position in feature.positions] == tokenizer.marker * 6
    assert feature.labels == [5]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_choices_that_no_window_can_hold_are_reported(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    max_choices = (32 - len(tokenizer.prefix) - len(tokenizer.middle) - len(tokenizer.suffix)) // (
        len(tokenizer.marker) + 1
    )
    for count, messages in ((max_choices, 0), (max_choices + 1, 1)):
        example = Example("q", "x y", "z ?", ("a",) * count, (), ("a",))
        problems = Problems()
        TASK.check_window(example, tokenizer, 32, "rows[3]", problems)
        assert len(problems) == messages
        if not messages:
            featurize(tokenizer, example, max_length=32)
    assert f"give at most {max_choices} choices, or raise max_length" in str(problems.kept[0])
    TASK.check_window(mentions("Ada"), tokenizer, 8, "rows[4]", problems)
    assert len(problems) == 1, "mentions are split over windows"


@pytest.mark.parametrize("name", TOKENIZERS)
def test_positions_of_mentions_are_in_the_context(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    example = mentions("Rome", "Cy")
    (feature,), counts = featurize(tokenizer, example)
    context, offsets = tokenizer.encode_texts([example.context])[0]
    head = [*tokenizer.prefix, *ids(tokenizer, example.question), *tokenizer.middle]
    assert feature.input_ids == [*head, *context, *tokenizer.suffix]
    positions = []
    for choice, start in zip(example.choices, example.starts, strict=True):
        inside = [
            at
            for at, (begin, end) in enumerate(offsets)
            if begin < start + len(choice) and end > start
        ]
        positions.append(len(head) + inside[-1 if tokenizer.causal else 0])
    assert feature.positions == [len(feature.input_ids) - 1 if tokenizer.causal else 0, *positions]
    assert (list(feature.begins), feature.labels) == ([-1, 0, 1, 2, 3, 4], [4])
    assert not counts


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("stride", [0, 5])
def test_every_mention_is_in_a_window(
    name: str, stride: int, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    words = ["abcdefghij"[at % 10] for at in range(90)]
    words[7], words[60], words[88] = "unbelievablyzzz", "Rome", "Rome"
    context = " ".join(words)
    example = mentions("Rome", context=context, names=("unbelievablyzzz", "Rome", "Rome"))
    features, counts = featurize(tokenizer, example, max_length=40, stride=stride)
    assert len(features) > 2
    assert counts == {"contexts in several windows": 1}
    assert {number for feature in features for number in feature.begins} == {-1, 0, 1, 2}
    for feature in features:
        right = [index for index, number in enumerate(feature.begins) if number in (1, 2)]
        assert feature.labels == [right[0] if right else 0]


def windows_of(*windows: dict[int, float]) -> list[WindowLogits]:
    return [
        WindowLogits(
            np.array(list(window)),
            np.array(list(window)) + 1,
            np.array(list(window.values()), dtype=np.float32)[:, None],
        )
        for window in windows
    ]


def test_decode_is_the_best_choice_over_all_windows() -> None:
    example = mentions("Ada")
    logits = windows_of({-1: 9.0, 0: 1.0, 1: 2.0}, {-1: -9.0, 1: 0.5, 2: 3.0, 3: 1.0})
    assert TASK.decode(example, logits, CLASSES) == "Ada", (
        "the second mention of Ada has the greatest logit, and the summary position is not a choice"
    )
    result = TASK.result(example, logits, CLASSES, {})
    assert isinstance(result, Choice)
    assert result.choice == "Ada"
    exponentials = np.exp([3.0, 2.0, 1.0])
    expected = dict(zip(("Ada", "Bo", "Rome"), exponentials / exponentials.sum(), strict=True)) | {
        "Cy": 0.0
    }
    assert result.probabilities == pytest.approx(expected)


def test_score_has_exact_accuracy_and_normalized_matches() -> None:
    examples = [
        Example("a", "x", "y", ("the cat", "a dog"), (), ("the cat",)),
        Example("b", "x", "y", ("Bo", "Cy"), (), ("Bo",)),
    ]
    predictions = TASK.predictions(examples, ["The cat", "Cy"], {})
    assert predictions == {"a": "The cat", "b": "Cy"}
    scored = TASK.score(examples, predictions, CLASSES).overall
    assert (scored["accuracy"], scored["exact_match"], scored["f1"]) == (0.0, 50.0, 50.0)
    assert TASK.score(examples, {"a": "the cat", "b": "Bo"}, CLASSES).overall["accuracy"] == 100.0
    assert set(TASK.metric_names) <= set(scored)


def check_row(row: dict[str, Any], query: bool = False) -> tuple[Any, list[str]]:
    problems = Problems()
    row = {
        "id": "1",
        "where": "f:1",
        "context": "Bo saw Cy",
        "question": "who ?",
        "choices": ["Bo", "Cy"],
        "answers": ["Bo"],
    } | row
    example = (
        TASK.example_for_prediction(row, problems) if query else TASK.example(row, (), problems)
    )
    try:
        problems.raise_if_any()
    except UserError as error:
        assert example is None
        return None, list(error.problems)
    return example, []


def test_example_of_a_row_round_trips_through_its_record() -> None:
    example, messages = check_row({"starts": [0, 7]})
    assert not messages
    assert example == Example("1", "Bo saw Cy", "who ?", ("Bo", "Cy"), (0, 7), ("Bo",))
    assert TASK.from_record(TASK.record(example)) == example
    unanswered, _ = check_row({}, query=True)
    assert unanswered == Example("1", "Bo saw Cy", "who ?", ("Bo", "Cy"), (), ())


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"answers": ["Di"]}, ["f:1: answers ['Di'] are not among the choices"]),
        ({"context": ""}, ["context is empty: ''"]),
        ({"question": 4}, ["question: found an integer 4, expected text"]),
        ({"choices": ["Bo"]}, ["choices: found ['Bo'], expected a list of texts, two or more"]),
        ({"choices": "Bo"}, ["choices: found Bo"]),
        ({"choices": ["Bo", " "]}, ["choices[1] is empty: ' '; fill it in, or remove it"]),
        ({"starts": [0]}, ["starts: found [0], expected one integer per choice (2)"]),
        ({"starts": [0, True]}, ["starts: found [0, True]"]),
        (
            {"starts": [0, 6]},
            ["choice 'Cy' has start 6, but the context has ' C' there", "correct"],
        ),
        ({"starts": [0, -2]}, ["choice 'Cy' has start -2"]),
        ({"starts": 0}, ["starts: found 0, expected one integer per choice"]),
        ({"starts": False}, ["starts: found False, expected one integer per choice"]),
        ({"answers": [0]}, ["answers: found a list [0], expected a list of texts"]),
        ({"answers": "Bo"}, ["answers: found text 'Bo', expected a list of texts"]),
        ({"answers": None}, ["answers: found nothing, expected a list of texts"]),
    ],
)
def test_invalid_row_is_reported(row: dict[str, Any], parts: list[str]) -> None:
    _, messages = check_row(row)
    assert any(all(part in problem for part in parts) for problem in messages), messages

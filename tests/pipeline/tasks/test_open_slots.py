"""Dialogue state tracking with open slots: values that are spans of a turn."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.data.readers import READERS
from pipeline.data.recipe import load_recipe
from pipeline.errors import Problems
from pipeline.metrics.dialogue_states import split_label
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.feature_checks import FeatureChecks
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.dialogue_state_tracking import TASK, Example, SlotValue
from pipeline.tasks.shared.value_spans import value_tags
from pipeline.words import split_words
from tests.support.encoding import features_and_counts, ids
from tests.support.paths import DATA, ROOT

WOZ = DATA / "dialogue" / "woz"
LABELS = ("food=*", "food=dontcare", "area=*", "area=centre", "price=cheap", "request=phone")
TAGS = ("O", "B-food", "I-food", "B-area", "I-area")
CLASSES = ("none", *LABELS, *TAGS)
QUERIES = ("food", "area", "price", "request phone")
EXAMPLE = Example(
    "a",
    ("", "Modern European or Zulu?"),
    ("Cheap food in the north, any kind.", "The first, in the center. Phone?"),
    (
        ("food=dontcare", "area=north", "price=cheap"),
        ("food=modern european", "area=centre", "request=phone"),
    ),
)
TARGETS = [
    ["food=dontcare", "area=*", "price=cheap", "none"],
    ["food=*", "area=centre", "none", "request=phone"],
]
GOLD = [
    ("food=dontcare", "area=north", "price=cheap", "none"),
    ("food=modern european", "area=centre", "none", "request=phone"),
]
UNKNOWN = "values neither in the window nor in the labels"


def featurize(
    tokenizer: Tokenizer, *examples: Example, max_length: int = 128, first: int = 0
) -> tuple[list[Feature], Counter[str]]:
    return features_and_counts(TASK, tokenizer, examples, CLASSES, max_length, first)


def dialogue(*turns: tuple[str, str, tuple[str, ...]]) -> Example:
    return Example("d", *zip(*turns, strict=True))


def window(
    feature: Feature,
    slots: Sequence[Mapping[str, float]],
    words: Mapping[str, str],
    example: Example,
) -> WindowLogits:
    """Logits of a feature: those of its decisions, and 9 for the tags of some words, else for O."""
    begins, ends = np.array(feature.begins), np.array(feature.ends)
    logits = np.zeros((len(begins), len(CLASSES)), np.float32)
    for row, values in enumerate(slots):
        for name, value in values.items():
            logits[row, CLASSES.index(name)] = value
    turn = int(begins[0]) // len(slots)
    text = f"{example.system[turn]}\n{example.user[turn]}"
    for row in range(len(slots), len(begins)):
        tag = words.get(text[begins[row] : ends[row]], "O")
        logits[row, CLASSES.index(tag)] = 9
    return WindowLogits(begins, ends, logits)


# Labels of a recipe, and rows


def test_tags_of_open_slots_follow_the_labels() -> None:
    assert TASK.check_labels(LABELS) == []
    assert TASK.classes(LABELS) == CLASSES
    closed = tuple(label for label in LABELS if "*" not in label)
    assert TASK.classes(closed) == ("none", *closed)


@pytest.mark.parametrize(
    ("labels", "problem"),
    [
        (
            ("request=*",),
            "request=* is not possible, because a turn may have several values of 'request'; "
            "replace it by a label for each value",
        ),
        (
            ("food=*", "food=Modern  European", "area=North"),
            "'food=Modern  European' is a value of the open slot 'food', whose values are in lower "
            "case with single spaces; write food=modern european",
        ),
        (("food=*", "food=*"), "'food=*' occurs twice; remove one of them"),
    ],
)
def test_labels_that_an_open_slot_cannot_have(labels: tuple[str, ...], problem: str) -> None:
    assert TASK.check_labels(labels) == [problem]


def row(*labels: str) -> dict[str, Any]:
    return {"id": "a", "where": "a:1", "system": [""], "user": ["Food."], "labels": [[*labels]]}


def test_values_of_open_slots_are_normalized() -> None:
    example = TASK.example(row("food=Modern  European ", "price=cheap"), LABELS, Problems())
    assert example is not None
    assert example.labels == (("food=modern european", "price=cheap"),)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        ("price=steep", "label 'price=steep' is not in the recipe's labels; correct it"),
        ("price=Cheap", "label 'price=Cheap' is not in the recipe's labels"),
        ("name=zizzi", "label 'name=zizzi' is not in the recipe's labels"),
        ("food= ", "label 'food=' is not in the recipe's labels"),
        ("request=name", "label 'request=name' is not in the recipe's labels"),
        ("food=*", "label 'food=*' makes the slot open and is not one of its values; replace * by"),
    ],
)
def test_labels_that_no_row_may_have(label: str, message: str) -> None:
    problems = Problems()
    assert TASK.example(row(label), LABELS, problems) is None
    assert problems.counts == {"unknown-label": 1}
    assert message in problems.kept[0].message


def test_two_values_of_an_open_slot_are_a_problem() -> None:
    problems = Problems()
    assert TASK.example(row("food=thai", "food=greek"), LABELS, problems) is None
    assert problems.counts == {"repeated-slot": 1}


def test_values_that_are_no_labels_count_as_the_label_of_their_slot() -> None:
    assert list(TASK.declared_labels(EXAMPLE, LABELS)) == [
        "food=dontcare",
        "area=*",
        "price=cheap",
        "food=*",
        "area=centre",
        "request=phone",
    ]
    assert list(TASK.declared_labels(EXAMPLE, ())) == list(TASK.labels(EXAMPLE))


# Features


@pytest.mark.parametrize("name", ["tokenizer", "one_type_tokenizer", "numbering_tokenizer"])
def test_words_of_a_turn_have_tags_after_the_decisions(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    features, counts = featurize(tokenizer, EXAMPLE, first=3)
    assert not counts
    tagged = [{"north": "B-area"}, {"Modern": "B-food", "European": "I-food"}]
    for turn, feature in enumerate(features):
        names = [CLASSES[label] for label in feature.labels]
        assert names[:4] == TARGETS[turn]
        assert list(feature.begins[:4]) == [4 * turn + n for n in range(4)]
        text = f"{EXAMPLE.system[turn]}\n{EXAMPLE.user[turn]}"
        places = zip(feature.begins[4:], feature.ends[4:], strict=True)
        words = [text[begin:end] for begin, end in places]
        spaced = "".join(c if c.isalnum() or c.isspace() else f" {c}" for c in text)
        assert words == spaced.split()
        assert names[4:] == [tagged[turn].get(word, "O") for word in words]
        assert feature.example == 3
        assert feature.label_count == len(feature.labels) == len(feature.positions)
    classes = ("none", "food=a", "area=a", "price=cheap", "request=phone")
    unlabeled = Example("a", EXAMPLE.system, EXAMPLE.user, ((), ()))
    closed = list(TASK.featurize([unlabeled], 0, tokenizer, classes, 128, 0, Counter()))
    assert [feature.input_ids for feature in closed] == [f.input_ids for f in features]
    assert [feature.positions for feature in closed] == [f.positions[:4] for f in features]
    assert [feature.label_count for feature in closed] == [4, 4]


def test_values_that_nothing_can_express_are_counted_and_none(tokenizer: Tokenizer) -> None:
    example = dialogue(
        ("", "Some food from Siam.", ("food=thai", "price=cheap")),
        ("Thai?", "Yes, downtown.", ("food=thai", "area=centre")),
        ("", "No idea.", ()),
    )
    features, counts = featurize(tokenizer, example)
    assert counts == {UNKNOWN: 1}
    assert [[CLASSES[label] for label in feature.labels[:2]] for feature in features] == [
        ["none", "none"],
        ["food=*", "area=centre"],
        ["none", "none"],
    ]


def test_a_span_that_is_cut_off_is_no_target(tokenizer: Tokenizer) -> None:
    """The room for a turn is that of 16 sub-words."""
    queries = [ids(tokenizer, query) for query in QUERIES]
    length = 16 + 4 + sum(map(len, queries))
    cats = "cat " * 15
    example = dialogue(
        ("", cats + "dog", ("food=dog",)),
        ("", cats + "cat dog", ("food=dog",)),
        ("", cats + "cat dog dontcare", ("food=dontcare",)),
        ("dog one", cats.strip(), ("food=dog",)),
        ("dog", cats.strip(), ("food=dog",)),
    )
    features, counts = featurize(tokenizer, example, max_length=length)
    assert counts == {"turns cut": 3, UNKNOWN: 2}
    assert [CLASSES[feature.labels[0]] for feature in features] == [
        "food=*",
        "none",
        "food=dontcare",
        "none",
        "food=*",
    ]
    assert [len(feature.positions) - 4 for feature in features] == [16] * 5
    assert [CLASSES.index("B-food") in feature.labels for feature in features] == [
        True,
        False,
        False,
        False,
        True,
    ]


def test_rows_to_predict_have_words_and_no_counts(tokenizer: Tokenizer) -> None:
    example = TASK.example_for_prediction(row("food=thai"), Problems())
    assert example is not None
    (feature,), counts = featurize(tokenizer, example)
    assert not counts
    assert [CLASSES[label] for label in feature.labels] == ["none"] * 4 + ["O", "O"]


def test_a_perfect_model_has_all_scores(tokenizer: Tokenizer) -> None:
    """The features of an example give its labels back."""
    features, _ = featurize(tokenizer, EXAMPLE)
    checks = FeatureChecks(TASK, CLASSES, "joint_goal_accuracy", tokenizer)
    checks.add([EXAMPLE], [features])
    report = checks.report()
    assert report.num_missed == 0
    assert set(report.ceiling.values()) == {100.0}


# Predictions

ZULU = dialogue(
    ("", "Zulu food please", ("food=zulu",)), ("Which area?", "Central", ("area=centre",))
)
IN_TURN = {"food=*": 5.0, "none": 1.0}
NO = {"none": 5.0}


def predicted(
    tokenizer: Tokenizer,
    turns: Sequence[tuple[Sequence[Mapping[str, float]], Mapping[str, str]]],
    example: Example = ZULU,
) -> list[WindowLogits]:
    """The windows of an example with these logits, the last turn first."""
    features, _ = featurize(tokenizer, example)
    windows = [window(f, *turn, example) for f, turn in zip(features, turns, strict=True)]
    return windows[::-1]


def test_a_value_that_no_label_has_is_predicted_from_its_span(tokenizer: Tokenizer) -> None:
    windows = predicted(
        tokenizer,
        [([IN_TURN, NO, NO, NO], {"Zulu": "B-food"}), ([NO, {"area=centre": 5.0}, NO, NO], {})],
    )
    decoded = TASK.decode(ZULU, windows, CLASSES)
    assert decoded == [
        ("food=zulu", "none", "none", "none"),
        ("none", "area=centre", "none", "none"),
    ]
    scores = TASK.score([ZULU], [decoded], CLASSES)
    assert scores.overall["joint_goal_accuracy"] == 100
    assert scores.overall["turn_goal_accuracy"] == 100
    assert set(scores.labels) == {"food", "area"}

    result = TASK.result(ZULU, windows, CLASSES, {})
    assert [turn.state for turn in result.turns] == [
        {"food": "zulu"},
        {"food": "zulu", "area": "centre"},
    ]
    # Six spans of three words: B-food is at the first, O at the others; each has the logit 9.
    ends = np.exp([9.0, 0.0, -9.0]).sum()  # of the spans from the first word
    others = np.exp([-9.0 - 0, -18.0, -9.0]).sum()
    zulu = np.exp(9.0) / (ends + others)
    gate = np.exp(5) / (np.exp(5) + np.exp(1) + np.exp(0))
    assert result.turns[0].labels == (
        SlotValue("food", "zulu", pytest.approx(gate * zulu, rel=1e-6)),
    )

    taken, right = TASK.decisions(ZULU, decoded, CLASSES)
    assert [CLASSES[option] for option in taken[:2]] == ["food=*", "none"]
    assert all(right)
    logits = TASK.decision_logits(ZULU, windows, CLASSES)
    assert logits.shape == (8, len(CLASSES) + 1)
    options = [[0, 1, 2, 12], [0, 3, 4, 12], [0, 5], [0, 6]]
    assert [np.flatnonzero(np.isfinite(row)).tolist() for row in logits] == options * 2
    confidence = np.exp(logits[0, 1]) / np.exp(logits[0][np.isfinite(logits[0])]).sum()
    assert confidence == pytest.approx(gate * zulu, rel=1e-6)


def test_a_wrong_span_is_a_wrong_decision_and_claim(tokenizer: Tokenizer) -> None:
    windows = predicted(
        tokenizer,
        [
            ([IN_TURN, NO, NO, NO], {"Zulu": "B-food", "food": "I-food"}),
            ([IN_TURN, NO, NO, NO], {"Central": "B-area"}),
        ],
    )
    decoded = TASK.decode(ZULU, windows, CLASSES)
    assert decoded[0][0] == "food=zulu food"
    assert decoded[1][0].startswith("food="), "the best span, although none has tags of food"
    taken, right = TASK.decisions(ZULU, decoded, CLASSES)
    assert [CLASSES[option] for option in (taken[0], taken[4])] == ["food=*"] * 2
    assert right == [False, True, True, True, False, False, True, True]
    claims = [
        (claim.decisions, claim.gold, claim.predicted) for claim in TASK.claims(ZULU, decoded)
    ]
    assert claims == [
        ((0,), "turn 0: food=zulu", "turn 0: food=zulu food"),
        ((4,), "turn 1: none", f"turn 1: {decoded[1][0]}"),
        ((), "turn 1: area=centre", ""),
    ]
    samples = list(TASK.samples(ZULU, decoded))
    assert samples[0] == ("Zulu food please", "food=zulu", "food=zulu food")
    overall = TASK.score([ZULU], [decoded], CLASSES).overall
    assert (overall["joint_goal_accuracy"], overall["turn_request_accuracy"]) == (0, 100)


def test_no_value_has_words_of_both_speakers(tokenizer: Tokenizer) -> None:
    example = dialogue(("Zulu", "food please", ("food=zulu",)))
    tags = {"Zulu": "B-food", "food": "I-food"}
    windows = predicted(tokenizer, [([IN_TURN, NO, NO, NO], tags)], example)
    assert TASK.decode(example, windows, CLASSES)[0][0] == "food=zulu"


def test_a_closed_value_that_is_a_span_too_is_one_option(tokenizer: Tokenizer) -> None:
    example = dialogue(("", "in the centre", ("area=centre",)))
    (feature,), _ = featurize(tokenizer, example)
    assert CLASSES[feature.labels[1]] == "area=*"
    gates = [NO, {"area=*": 3.0, "area=centre": 1.0}, NO, NO]
    windows = predicted(tokenizer, [(gates, {"centre": "B-area"})], example)
    decoded = TASK.decode(example, windows, CLASSES)
    assert decoded == [("none", "area=centre", "none", "none")]
    taken, right = TASK.decisions(example, decoded, CLASSES)
    assert (CLASSES[taken[1]], right[1]) == ("area=centre", True)
    (label,) = TASK.result(example, windows, CLASSES, {}).turns[0].labels
    whole = np.exp(3) + np.exp(1) + np.exp(0)
    assert label.score == pytest.approx((np.exp(3) + np.exp(1)) / whole, abs=1e-3)


def test_a_dialogue_of_labels_is_its_own_prediction() -> None:
    assert TASK.decisions(EXAMPLE, GOLD, CLASSES)[1] == [True] * 8
    taken = [CLASSES[option] for option in TASK.decisions(EXAMPLE, GOLD, CLASSES)[0]]
    assert taken == [*TARGETS[0], *TARGETS[1]]
    assert [claim.right for claim in TASK.claims(EXAMPLE, GOLD)] == [True] * 6


def test_a_value_in_capitals_is_the_same_value(tokenizer: Tokenizer) -> None:
    edited = TASK.apply_edit(ZULU, Edit(str.upper))
    (feature, _), counts = featurize(tokenizer, edited)
    assert not counts
    assert CLASSES[feature.labels[0]] == "food=*"


# The recipe


@pytest.mark.skipif(not WOZ.exists(), reason="needs the corpora of DATA_ROOT/dialogue")
def test_the_comment_of_the_recipe_counts_the_values_in_the_turn() -> None:
    path = ROOT / "data_recipes/woz_spans.yaml"
    recipe, problems = load_recipe(path), Problems()
    (name,) = recipe.files.of("train")
    total, found = Counter[str](), Counter[str]()
    for row in READERS[recipe.reader].read(WOZ / name, recipe.options, problems):
        example = TASK.example(row, recipe.labels, problems)
        assert example is not None
        turns = zip(example.system, example.user, example.labels, strict=True)
        for system, user, labels in turns:
            text = f"{system}\n{user}"
            words = [(word.start, word.end) for word in split_words(text, "punctuation")]
            num_system = sum(end <= len(system) for _, end in words)
            for slot, value in map(split_label, labels):
                total[slot] += value != "dontcare"
                tags = value_tags({slot: value}, text, words, num_system)
                found[slot] += value != "dontcare" and f"B-{slot}" in tags
    comment = path.read_text(encoding="utf-8").split("task:")[0].replace("\n# ", " ")
    assert not problems.kept
    for slot, noun in (("food", "foods"), ("area", "areas"), ("price range", "price ranges")):
        assert f"{found[slot]} of {total[slot]} {noun}" in comment

"""Intent and slots: one more position in the first window, and decoding of both kinds of class."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pipeline.errors import Problems
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.intent_and_slots import TASK, Example, SemanticFrame
from pipeline.tasks.token_classification import TASK as NER
from pipeline.tasks.token_classification import Entity
from pipeline.tasks.token_classification import Example as Sentence

LABELS = ("intent:buy", "city", "intent:sell")
CLASSES = ("O", "B-city", "I-city", "intent:buy", "intent:sell")
EXAMPLE = Example("a", ("to", "new", "york"), ("O", "B-city", "I-city"), "sell")


def featurize(
    task: Any,
    examples: Sequence[Any],
    tokenizer: Tokenizer,
    max_length: int = 64,
    first: int = 0,
) -> list[Feature]:
    classes = CLASSES if task is TASK else CLASSES[:3]
    counts: Counter[str] = Counter()
    return list(task.featurize(examples, first, tokenizer, classes, max_length, 4, counts))


def windows(*logits: Sequence[float], parts: int = 1) -> list[WindowLogits]:
    """The logits of the words and the intent, the intent in the first window."""
    table = np.array(logits, np.float32)
    order = [len(table) - 1, *range(len(table) - 1)]
    return [
        WindowLogits(np.array(numbers), np.array(numbers) + 1, table[numbers])
        for numbers in np.array_split(order, parts)
    ]


# A word and the intent have their greatest logits at classes of the other kind.
LOGITS = ([1, 0, 0, 9, 0], [0, 4, 0, 0, 0], [3, 0, 4, 0, 0], [9, 0, 0, 1, 2])


def test_classes_are_the_tags_and_then_the_intents() -> None:
    assert TASK.classes(LABELS) == CLASSES
    assert TASK.check_labels(LABELS) == []
    assert list(TASK.labels(EXAMPLE)) == ["city", "intent:sell"]
    for labels in ((), ("city", "intent:buy"), ("intent:buy", "intent:sell"), ("a", "b")):
        assert "add at least two intents" in TASK.check_labels(labels)[-1]
    assert "is a tag, not a label" in TASK.check_labels(("B-city", *LABELS))[0]


@pytest.mark.parametrize("name", ["tokenizer", "one_type_tokenizer", "numbering_tokenizer"])
def test_the_intent_is_one_more_position_of_the_windows_of_words(
    name: str, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(name)
    (feature,) = featurize(TASK, [EXAMPLE], tokenizer, first=5)
    (words,) = featurize(NER, [Sentence("a", EXAMPLE.tokens, EXAMPLE.tags)], tokenizer)
    assert feature.input_ids == words.input_ids
    summary = tokenizer.summary_position(len(feature.input_ids))
    assert list(feature.positions) == [*words.positions, summary]
    assert list(feature.labels) == [0, 1, 2, 4]
    assert list(feature.begins) == [0, 1, 2, 3]
    assert list(feature.ends) == [1, 2, 3, 4]
    assert (feature.example, feature.label_count) == (5, 4)


def test_the_first_window_of_a_long_sentence_has_the_intent(tokenizer: Tokenizer) -> None:
    long = Example("long", ("new", "york") * 10, ("B-city", "I-city") * 10, "buy")
    first, *others = featurize(TASK, [EXAMPLE, long], tokenizer, 12)[1:]
    assert len(others) > 1
    assert first.begins[-1] == 20
    assert [CLASSES[feature.labels[-1]] for feature in (first, *others)] == [
        "intent:buy",
        *["I-city"] * len(others),
    ]
    assert sum(feature.label_count for feature in (first, *others)) == 21


def test_a_row_to_predict_has_the_same_positions(tokenizer: Tokenizer) -> None:
    row = {"id": "a", "where": "", "tokens": list(EXAMPLE.tokens)}
    query = TASK.example_for_prediction(row, Problems())
    assert query == Example("a", EXAMPLE.tokens, ("O",) * 3, "")
    (feature,), (annotated,) = (featurize(TASK, [it], tokenizer) for it in (query, EXAMPLE))
    assert (feature.input_ids, feature.positions) == (annotated.input_ids, annotated.positions)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_each_position_gets_a_class_of_its_kind(parts: int) -> None:
    decoded = TASK.decode(EXAMPLE, windows(*LOGITS, parts=parts), CLASSES)
    assert decoded == ["O", "B-city", "I-city", "intent:sell"]
    assert TASK.score([EXAMPLE], [decoded], CLASSES).overall["sentence_accuracy"] == 100


def test_decisions_have_the_options_of_their_kind() -> None:
    logits = TASK.decision_logits(EXAMPLE, windows(*LOGITS), CLASSES)
    assert np.isfinite(logits).tolist() == [[True] * 3 + [False] * 2] * 3 + [
        [False] * 3 + [True] * 2
    ]
    wrong = ["O", "B-city", "O", "intent:buy"]
    taken, right = TASK.decisions(EXAMPLE, wrong, CLASSES)
    assert taken == [0, 1, 0, 3]
    assert right == [True, True, False, False]


def test_claims_are_the_slots_and_the_intent() -> None:
    *slots, intent = TASK.claims(EXAMPLE, ["O", "B-city", "O", "intent:sell"])
    assert [(slot.decisions, slot.right) for slot in slots] == [((1,), False), ((), False)]
    assert (intent.decisions, intent.gold, intent.right) == ((3,), "intent:sell", True)


def test_the_result_has_probabilities_of_the_options_only() -> None:
    result = TASK.result(EXAMPLE, windows(*LOGITS), CLASSES, {"temperature": 2.0})
    intent = np.exp(1) / (np.exp(1) + np.exp(0.5))
    city = np.exp(2) / (np.exp(1.5) + 1 + np.exp(2))
    assert result.intent == "sell"
    assert result.score == pytest.approx(intent)
    (slot,) = result.slots
    assert slot == Entity("city", 1, 3, "new york", pytest.approx(city))
    assert TASK.in_characters(result, "to new york", [(0, 2), (3, 6), (7, 11)]) == SemanticFrame(
        "sell", pytest.approx(intent), (Entity("city", 3, 11, "new york", slot.score),)
    )


@pytest.mark.parametrize(
    ("changes", "kind"),
    [
        ({"intent": "rent"}, "unknown-label"),
        ({"intent": ["buy"]}, "unknown-label"),
        ({"tags": ["O", "B-town", "O"]}, "unknown-label"),
        ({"tags": ["O"]}, "tag-count"),
    ],
)
def test_invalid_rows_are_problems(changes: dict[str, object], kind: str) -> None:
    row = TASK.record(EXAMPLE) | {"where": "a:1"} | changes
    row |= {"tokens": list(EXAMPLE.tokens), "tags": list(row["tags"])}
    problems = Problems()
    assert TASK.example(row, LABELS, problems) is None
    assert problems.counts == {kind: 1}


def test_a_row_becomes_an_example_and_a_record() -> None:
    row = TASK.record(EXAMPLE) | {"where": "a:1"}
    example = TASK.example(
        row | {"tokens": list(row["tokens"]), "tags": list(row["tags"])}, LABELS, Problems()
    )
    assert example == EXAMPLE
    assert TASK.from_record(TASK.record(EXAMPLE)) == EXAMPLE

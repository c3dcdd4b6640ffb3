"""Scores of semantic frames: the intent of a sentence, and its slots.

Slots are scored as spans (conlleval). A sentence is right if its intent and all its slots are:
"semantic frame accuracy" in Goo et al. (2018), Slot-Gated Modeling for Joint Slot Filling and
Intent Prediction.
"""

from collections.abc import Sequence
from typing import NamedTuple

from pipeline.metrics import classification, spans
from pipeline.metrics.base import Metrics, UnitCounts, sum_by_unit


class Frame(NamedTuple):
    """The intent of a sentence of T words, and its T slot tags in IOB2."""

    tags: Sequence[str]
    intent: str


def score(gold: Sequence[Frame], predicted: Sequence[Frame]) -> Metrics:
    """The metrics of the slots (`spans.score`), `intent_accuracy` and `sentence_accuracy`.

    The labels are those of the slots and the intents.

    Raises ValueError if lengths differ.
    """
    slots = spans.score(*([frame.tags for frame in frames] for frames in (gold, predicted)))
    gold_intents, intents = ([frame.intent for frame in frames] for frames in (gold, predicted))
    by_intent = classification.score(gold_intents, intents, sorted({*gold_intents, *intents}))
    right = sum(map(_is_right, gold, predicted))
    return Metrics(
        slots.overall
        | {
            "intent_accuracy": by_intent.overall["accuracy"],
            "sentence_accuracy": 100.0 * right / max(1, len(gold)),
            "sentences": len(gold),
        },
        slots.labels | by_intent.labels,
    )


def counts(units: Sequence[str], gold: Sequence[Frame], predicted: Sequence[Frame]) -> UnitCounts:
    """The sums behind `score`, by unit."""
    slots = spans.counts(units, [frame.tags for frame in gold], [frame.tags for frame in predicted])
    pairs = list(zip(gold, predicted, strict=True))
    sentences = sum_by_unit(
        units,
        {
            "right intents": [reference.intent == guess.intent for reference, guess in pairs],
            "right sentences": [_is_right(*pair) for pair in pairs],
            "sentences": [1] * len(pairs),
        },
        {
            "intent_accuracy": (("right intents", "sentences"),),
            "sentence_accuracy": (("right sentences", "sentences"),),
        },
    )
    return UnitCounts(
        slots.units, slots.columns | sentences.columns, slots.formulas | sentences.formulas
    )


def _is_right(gold: Frame, predicted: Frame) -> bool:
    same_slots = set(spans.spans(gold.tags)) == set(spans.spans(predicted.tags))
    return same_slots and gold.intent == predicted.intent

"""Intent and slots: the intent of a sentence and its labeled spans, in one forward pass.

The head has the classes of both. It predicts the tag of each word at the word, and the intent at
the position of a classification ([CLS]), as if the intent were the tag of one more word
(Hakkani-Tür et al. 2016, Multi-Domain Joint Semantic Frame Parsing using Bi-directional RNN-LSTM).
The loss is the sum of the cross entropies of both, as in JointBERT (Chen et al. 2019). In training,
each softmax is over the classes of both; a prediction is the best tag or the best intent.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics import frames
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.metrics.spans import spans
from pipeline.tasks.base.claims import Claim, Floats, softmax, temperature_of
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.marked_text import MarkedSpan, MarkedText
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.shared.tagging import (
    TaggedSpan,
    TaggingTask,
    Tags,
    bio_classes,
    check_tags,
    check_tokens,
    decode_spans,
    decode_tags,
    in_text,
    token_bounds,
    word_logits,
)
from pipeline.tasks.shared.validation import label_hint
from pipeline.tasks.token_classification import Entity, entities

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

INTENT_PREFIX = "intent:"
"""The beginning of the intents among the labels of a recipe; the other labels are slots."""


@dataclass(frozen=True)
class Example:
    """A sentence of T tokens, its T slot tags in IOB2, and its intent ("" in a row to predict)."""

    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...]
    intent: str


@dataclass(frozen=True)
class SemanticFrame:
    """The intent of a sentence with its probability, and its slots in order."""

    intent: str
    score: float
    slots: tuple[Entity, ...]


class IntentAndSlots(TaggingTask[Example, SemanticFrame]):
    """A prediction is the T tags of a sentence in IOB2 and the class of its intent, in one list.

    Predictions are one list per example, in the examples' order. The class of an intent is the
    intent with INTENT_PREFIX.
    """

    example_type = Example
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("tokens", pa.list_(pa.string())),
            ("tags", pa.list_(pa.string())),
            ("intent", pa.string()),
        ]
    )
    row_keys = RowKeys(inputs={"tokens": "texts"}, targets={"tags": "tags", "intent": "label"})
    inputs = ("tokens",)
    outputs = ("tags", "intent")
    claim_and_decision_names = ("slots and intents", "tags and intents")
    metric_names = ("f1", "intent_accuracy", "sentence_accuracy", "precision", "recall")
    metric_titles: ClassVar[Mapping[str, str]] = {
        "f1": "slot F1",
        "intent_accuracy": "intent accuracy",
        "sentence_accuracy": "sentence accuracy",
    }
    glossary: ClassVar[Mapping[str, str]] = {
        **TaggingTask.glossary,
        "sentence accuracy": "The percentage of sentences with the right intent and all slots "
        "right.",
    }

    def check_labels(self, labels: Sequence[str]) -> list[str]:
        """The problems of a recipe's labels: unique slots without prefixes, and two intents."""
        intents = _intents(labels)
        problems = super().check_labels(labels)
        if len(intents) < 2 or len(intents) == len(labels):
            problems.append(
                f"found {len(intents)} intents and {len(labels) - len(intents)} slots; "
                f"add at least two intents, each with the prefix {INTENT_PREFIX}, and one slot"
            )
        return problems

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """O, then B-X and I-X for each slot X, then the intents."""
        return (*bio_classes(_slots(labels)), *_intents(labels))

    def labels(self, example: Example) -> Iterator[str]:
        """The label of each slot, and the intent."""
        yield from super().labels(example)
        yield INTENT_PREFIX + example.intent

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The sentence. Each token must have one tag, and all labels must be in the recipe."""
        intents = [intent.removeprefix(INTENT_PREFIX) for intent in _intents(labels)]
        is_known = row["intent"] in intents
        if not is_known:
            hint = label_hint(str(row["intent"]), intents)
            problems.add(
                row["where"],
                f"intent {row['intent']!r} is not one of the recipe's labels with the prefix "
                f"{INTENT_PREFIX} ({', '.join(intents)}); {hint}",
                "unknown-label",
            )
        if not check_tags(row, _slots(labels), problems) or not is_known:
            return None
        return Example(row["id"], tuple(row["tokens"]), tuple(row["tags"]), row["intent"])

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The sentence without an intent, with the tag O for every token."""
        if not check_tokens(row, problems):
            return None
        return Example(row["id"], tuple(row["tokens"]), ("O",) * len(row["tokens"]), "")

    def marked_word(self, example: Example) -> int | None:
        """None: no word is marked in the input."""
        return None

    def featurize(
        self,
        examples: Sequence[Example],
        first: int,
        tokenizer: "Tokenizer",
        classes: Sequence[str],
        max_length: int,
        stride: int,
        counts: Counter[str],
    ) -> Iterator[Feature]:
        """Windows of words. The first window of a sentence also predicts the intent."""
        windows = super().featurize(examples, first, tokenizer, classes, max_length, stride, counts)
        for feature in windows:
            example = examples[feature.example - first]
            is_first = feature.begins[0] == 0
            yield _with_intent(feature, example, classes, tokenizer) if is_first else feature

    def decode(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> list[str]:
        """The best well-formed tags of the whole sentence, and the most probable intent."""
        logits = self.decision_logits(example, window_logits, classes)
        intent = classes[int(logits[-1].argmax())]
        return [*decode_tags([_words(logits)], classes), intent]

    def score(
        self, examples: Sequence[Example], predictions: Tags, classes: Sequence[str]
    ) -> Metrics:
        """Slot F1 as in conlleval, intent and sentence accuracy: `pipeline.metrics.frames`."""
        return frames.score(_gold_frames(examples), _frames(predictions))

    def counts(
        self, examples: Sequence[Example], predictions: Tags, classes: Sequence[str]
    ) -> UnitCounts:
        """The counts of each sentence."""
        return frames.counts(
            [example.id for example in examples], _gold_frames(examples), _frames(predictions)
        )

    def decision_logits(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Floats:
        """The logits [T + 1, K] of the T words and the intent.

        They are -inf for intents at words, and for tags at the intent.
        """
        logits = word_logits(window_logits)
        is_intent = np.array([name.startswith(INTENT_PREFIX) for name in classes])
        logits[:-1, is_intent] = -np.inf
        logits[-1, ~is_intent] = -np.inf
        return logits

    def decisions(
        self, example: Example, prediction: Sequence[str], classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """The class [T + 1] of each word and the intent, and whether it is right [T + 1]."""
        expected = (*example.tags, INTENT_PREFIX + example.intent)
        return list(map(classes.index, prediction)), list(map(str.__eq__, prediction, expected))

    def claims(self, example: Example, prediction: Sequence[str]) -> Iterator[Claim]:
        """The slots, each compared with the annotated slot of the same bounds, and the intent."""
        *tags, intent = prediction
        yield from super().claims(example, tags)
        expected = INTENT_PREFIX + example.intent
        yield Claim((len(tags),), expected, intent, expected, intent, intent == expected)

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> SemanticFrame:
        """The intent with its probability, and the slots, each with its text."""
        temperature = temperature_of(thresholds)
        logits = self.decision_logits(example, window_logits, classes)
        intent = int(logits[-1].argmax())
        tagged = decode_spans([_words(logits)], classes, temperature)
        return SemanticFrame(
            classes[intent].removeprefix(INTENT_PREFIX),
            float(softmax(logits[-1], temperature)[intent]),
            entities(example, tagged),
        )

    def in_characters(
        self, result: SemanticFrame, text: str, bounds: Sequence[tuple[int, int]]
    ) -> SemanticFrame:
        """The frame with positions of its slots in the text of the sentence."""
        return replace(result, slots=tuple(in_text(slot, text, bounds) for slot in result.slots))

    def annotation(self, example: Example) -> SemanticFrame:
        """The annotated frame, with positions in the text of the tokens."""
        tagged = (TaggedSpan(*span, score=1.0) for span in spans(example.tags))
        (text,) = self.shown_texts(example)
        frame = SemanticFrame(example.intent, 1.0, entities(example, tagged))
        return self.in_characters(frame, text, token_bounds(example.tokens))

    def marked_texts(self, texts: Sequence[str], result: SemanticFrame) -> tuple[MarkedText, ...]:
        """The sentence with its slots, below its intent."""
        marks = (MarkedSpan(slot.start, slot.end, slot.label, slot.score) for slot in result.slots)
        return (MarkedText(texts[0], tuple(marks), f"{result.intent} ({result.score:.2f})"),)


TASK = IntentAndSlots()


def _intents(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(label for label in labels if label.startswith(INTENT_PREFIX))


def _slots(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(label for label in labels if not label.startswith(INTENT_PREFIX))


def _with_intent(
    feature: Feature, example: Example, classes: Sequence[str], tokenizer: "Tokenizer"
) -> Feature:
    """The window with one more position to predict, as if it were a word after the sentence."""
    position = tokenizer.summary_position(len(feature.input_ids))
    label = classes.index(INTENT_PREFIX + example.intent) if example.intent else 0
    num_words = len(example.tokens)
    return feature._replace(
        positions=[*feature.positions, position],
        labels=[*feature.labels, label],
        begins=[*feature.begins, num_words],
        ends=[*feature.ends, num_words + 1],
        label_count=feature.label_count + 1,
    )


def _words(logits: Floats) -> WindowLogits:
    """A window of all words. `logits` are those of the words and of the intent."""
    words = np.arange(len(logits) - 1)
    return WindowLogits(words, words + 1, logits[:-1])


def _gold_frames(examples: Sequence[Example]) -> list[frames.Frame]:
    return [frames.Frame(example.tags, INTENT_PREFIX + example.intent) for example in examples]


def _frames(predictions: Tags) -> list[frames.Frame]:
    return [frames.Frame(prediction[:-1], prediction[-1]) for prediction in predictions]

"""Token classification: labels of spans of tokens that do not overlap, such as named entities."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics import spans
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.tasks.base.claims import temperature_of
from pipeline.tasks.base.features import WindowLogits
from pipeline.tasks.base.marked_text import MarkedSpan, MarkedText
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.shared.tagging import (
    Tagged,
    TaggedSpan,
    TaggingTask,
    Tags,
    bio_classes,
    check_tags,
    check_tokens,
    decode_spans,
    in_text,
    token_bounds,
)


@dataclass(frozen=True)
class Example:
    """A sentence: T tokens and T tags in IOB2."""

    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Entity:
    """Words [start, end) of a sentence. `score` is the minimum probability of its tags.

    In the result of a row with `text`, `start` and `end` are characters of the text.
    """

    label: str
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True)
class Entities:
    """The entities of a sentence, in order."""

    entities: tuple[Entity, ...]


def entities(example: Tagged, tagged: Iterable[TaggedSpan]) -> tuple[Entity, ...]:
    """The spans of a sentence, each with its text."""
    return tuple(
        Entity(label, start, end, " ".join(example.tokens[start:end]), score)
        for label, start, end, score in tagged
    )


class TokenClassification(TaggingTask[Example, Entities]):
    """Predictions are tags in IOB2 (orphan I- tags allowed).

    They are one list per example, in the examples' order.
    """

    example_type = Example
    schema = pa.schema(
        [("id", pa.string()), ("tokens", pa.list_(pa.string())), ("tags", pa.list_(pa.string()))]
    )
    row_keys = RowKeys(inputs={"tokens": "texts"}, targets={"tags": "tags"})
    inputs = ("tokens",)
    outputs = ("tags",)

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The sentence. Each token must have one tag, and the labels must be in the recipe."""
        if not check_tags(row, labels, problems):
            return None
        return Example(row["id"], tuple(row["tokens"]), tuple(row["tags"]))

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The sentence, with the tag O for every token."""
        if not check_tokens(row, problems):
            return None
        return Example(row["id"], tuple(row["tokens"]), ("O",) * len(row["tokens"]))

    def marked_word(self, example: Example) -> int | None:
        """None: no word is marked in the input."""
        return None

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """O, then B-X and I-X for each entity type X."""
        return bio_classes(labels)

    def score(
        self, examples: Sequence[Example], predictions: Tags, classes: Sequence[str]
    ) -> Metrics:
        """Entity precision, recall and F1 as in conlleval: `pipeline.metrics.spans`."""
        return spans.score([example.tags for example in examples], predictions)

    def counts(
        self, examples: Sequence[Example], predictions: Tags, classes: Sequence[str]
    ) -> UnitCounts:
        """The counts of each sentence."""
        return spans.counts(
            [example.id for example in examples],
            [example.tags for example in examples],
            predictions,
        )

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> Entities:
        """The entities, each with its text."""
        tagged = decode_spans(window_logits, classes, temperature_of(thresholds))
        return Entities(entities(example, tagged))

    def in_characters(
        self, result: Entities, text: str, bounds: Sequence[tuple[int, int]]
    ) -> Entities:
        """The entities with positions in the text of the sentence."""
        return Entities(tuple(in_text(entity, text, bounds) for entity in result.entities))

    def annotation(self, example: Example) -> Entities:
        """The annotated entities, with positions in the text of the tokens."""
        tagged = (TaggedSpan(*span, score=1.0) for span in spans.spans(example.tags))
        (text,) = self.shown_texts(example)
        return self.in_characters(
            Entities(entities(example, tagged)), text, token_bounds(example.tokens)
        )

    def marked_texts(self, texts: Sequence[str], result: Entities) -> tuple[MarkedText, ...]:
        """The sentence with its entities."""
        marks = (
            MarkedSpan(entity.start, entity.end, entity.label, entity.score)
            for entity in result.entities
        )
        return (MarkedText(texts[0], tuple(marks)),)


TASK = TokenClassification()

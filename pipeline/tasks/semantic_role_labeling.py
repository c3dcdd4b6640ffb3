"""Semantic role labeling: the arguments of one given predicate in a sentence, and their roles (PropBank)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics import roles
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.tasks.base.features import WindowLogits
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.shared.tagging import (
    Extents,
    TaggingTask,
    Tags,
    bio_classes,
    check_tags,
    check_tokens,
    decode_spans,
)


@dataclass(frozen=True)
class Example:
    """One predicate of a sentence: T tokens, T role tags in IOB2, and the first token of the predicate, which is tagged B-V.

    A sentence with three predicates is three examples.
    """

    id: str
    tokens: tuple[str, ...]
    predicate: int
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Argument:
    """Words [start, end) in a role; `score` is the least probability that the model gives one of its tags."""

    role: str
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True)
class Structure:
    """A predicate, at the word number `position`, and its arguments in order."""

    predicate: str
    position: int
    arguments: tuple[Argument, ...]


class SemanticRoleLabeling(TaggingTask[Example, Structure]):
    """Predictions are tags in IOB2 (orphan I- tags allowed), one list per example in the examples' order."""

    example_type = Example
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("tokens", pa.list_(pa.string())),
            ("predicate", pa.int32()),
            ("tags", pa.list_(pa.string())),
        ]
    )
    row_keys = RowKeys(inputs={"tokens": "texts", "predicate": "integer"}, targets={"tags": "tags"})
    inputs = ("tokens", "predicate")
    outputs = ("tags",)
    claim_and_decision_names = ("arguments", "tags")
    metric_titles: ClassVar[Mapping[str, str]] = {"f1": "F1 without V", "f1_with_v": "F1 with V"}

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The predicate, unless a tag is not among the recipe's labels, or B-V is not at the predicate and only there."""
        if not check_tags(row, _with_predicate(labels), problems):
            return None
        tags, predicate = row["tags"], row["predicate"]
        verbs = [position for position, tag in enumerate(tags) if tag == f"B-{roles.PREDICATE}"]
        if verbs != [predicate]:
            problems.add(
                row["where"],
                f"predicate {predicate} of {len(tags)} tokens, but B-V is at {verbs or 'none'}; "
                "the predicate is the first token of its one span V",
                "predicate-count" if len(verbs) != 1 else "predicate-position",
            )
            return None
        return Example(row["id"], tuple(row["tokens"]), predicate, tuple(tags))

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The sentence, and the number of the word that is its predicate."""
        if not check_tokens(row, problems):
            return None
        tokens, predicate = tuple(row["tokens"]), row["predicate"]
        if (
            isinstance(predicate, bool)
            or not isinstance(predicate, int)
            or not 0 <= predicate < len(tokens)
        ):
            problems.add(
                row["where"],
                f"predicate: found {str(predicate)[:40]!r}, expected the number of one of the "
                f"{len(tokens)} words, counted from 0",
                "predicate-position",
            )
            return None
        tags = tuple(
            f"B-{roles.PREDICATE}" if position == predicate else "O"
            for position in range(len(tokens))
        )
        return Example(row["id"], tokens, predicate, tags)

    def marked(self, example: Example) -> int | None:
        """The predicate: two uses of one verb in a sentence differ by where the mark is."""
        return example.predicate

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """O, then B-X and I-X for each role X; V is a role whether `labels` name it or not."""
        return bio_classes(_with_predicate(labels))

    def score(
        self, examples: Sequence[Example], predictions: Tags, classes: Sequence[str]
    ) -> Metrics:
        """Argument precision, recall and F1 without V, as srl-eval computes them: `pipeline.metrics.roles`."""
        return roles.score([example.tags for example in examples], predictions)

    def counts(
        self, examples: Sequence[Example], predictions: Tags, classes: Sequence[str]
    ) -> UnitCounts:
        """By sentence: with a word, all its predicates go wrong."""
        return roles.counts(
            [self.text(example) for example in examples],
            [example.tags for example in examples],
            predictions,
        )

    def said(self, tags: Sequence[str]) -> dict[Extents, str]:
        """The arguments, all pieces of one together; the predicate is told."""
        return {pieces: role for role, pieces in roles.arguments(tags) if role != roles.PREDICATE}

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> Structure:
        """The predicate's arguments; the predicate itself is none."""
        spans = decode_spans(window_logits, classes, thresholds.get("temperature", 1.0))
        found = (
            Argument(label, start, end, " ".join(example.tokens[start:end]), score)
            for label, start, end, score in spans
            if label != roles.PREDICATE
        )
        return Structure(example.tokens[example.predicate], example.predicate, tuple(found))


TASK = SemanticRoleLabeling()


def _with_predicate(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(labels) if roles.PREDICATE in labels else (*labels, roles.PREDICATE)

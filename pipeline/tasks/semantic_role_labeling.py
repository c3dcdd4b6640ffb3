"""Semantic role labeling: the arguments of a predicate in a sentence, and their roles (PropBank).

The input names the predicate.
"""

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
    """A predicate of a sentence: T tokens, and T role tags in IOB2.

    `predicate` is the index of the first token of the predicate, the only token with the tag B-V.
    A sentence with three predicates is three examples.
    """

    id: str
    tokens: tuple[str, ...]
    predicate: int
    tags: tuple[str, ...]


@dataclass(frozen=True)
class Argument:
    """Words [start, end) in a role. `score` is the minimum probability of their tags."""

    role: str
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True)
class Structure:
    """A predicate, the index `position` of its word, and its arguments in order."""

    predicate: str
    position: int
    arguments: tuple[Argument, ...]


class SemanticRoleLabeling(TaggingTask[Example, Structure]):
    """Predictions are tags in IOB2 (orphan I- tags allowed).

    They are one list per example, in the examples' order.
    """

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
        """The predicate and its sentence.

        Tags must have labels of the recipe, and B-V must be at the predicate and only there.
        """
        if not check_tags(row, _with_predicate(labels), problems):
            return None
        tags, predicate = row["tags"], row["predicate"]
        verbs = [position for position, tag in enumerate(tags) if tag == f"B-{roles.PREDICATE}"]
        if verbs != [predicate]:
            problems.add(
                row["where"],
                f"predicate {predicate} of {len(tags)} tokens, but B-V is at "
                f"{verbs or 'no token'}; set predicate to the first token of the only span V",
                "predicate-count" if len(verbs) != 1 else "predicate-position",
            )
            return None
        return Example(row["id"], tuple(row["tokens"]), predicate, tuple(tags))

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The sentence and the index of its predicate, with the tag O for every other token."""
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
                f"predicate: found {str(predicate)[:40]!r}, expected the index of a word, from 0 "
                f"to {len(tokens) - 1}",
                "predicate-position",
            )
            return None
        tags = tuple(
            f"B-{roles.PREDICATE}" if position == predicate else "O"
            for position in range(len(tokens))
        )
        return Example(row["id"], tokens, predicate, tags)

    def marked_word(self, example: Example) -> int | None:
        """The predicate. The mark distinguishes two uses of the same verb in a sentence."""
        return example.predicate

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """O, then B-X and I-X for each role X. V is always a role, even if `labels` omit it."""
        return bio_classes(_with_predicate(labels))

    def expected_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The recipe's roles without V, which is part of the input."""
        return tuple(label for label in labels if label != roles.PREDICATE)

    def score(
        self, examples: Sequence[Example], predictions: Tags, classes: Sequence[str]
    ) -> Metrics:
        """Argument precision, recall and F1 without V as in srl-eval: `pipeline.metrics.roles`."""
        return roles.score([example.tags for example in examples], predictions)

    def counts(
        self, examples: Sequence[Example], predictions: Tags, classes: Sequence[str]
    ) -> UnitCounts:
        """The counts of each sentence, because errors of its predicates are not independent."""
        return roles.counts(
            [self.text(example) for example in examples],
            [example.tags for example in examples],
            predictions,
        )

    def claimed_spans(self, tags: Sequence[str]) -> dict[Extents, str]:
        """The arguments, each with all its pieces. The predicate is input, not a claim."""
        return {pieces: role for role, pieces in roles.arguments(tags) if role != roles.PREDICATE}

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> Structure:
        """The predicate and its arguments. Spans V are not arguments."""
        spans = decode_spans(window_logits, classes, thresholds.get("temperature", 1.0))
        arguments = (
            Argument(label, start, end, " ".join(example.tokens[start:end]), score)
            for label, start, end, score in spans
            if label != roles.PREDICATE
        )
        return Structure(example.tokens[example.predicate], example.predicate, tuple(arguments))


TASK = SemanticRoleLabeling()


def _with_predicate(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(labels) if roles.PREDICATE in labels else (*labels, roles.PREDICATE)

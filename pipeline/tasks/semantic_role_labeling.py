"""Semantic role labeling: the arguments of a predicate in a sentence, and their roles (PropBank).

The input names the predicate. `predict` finds the predicates of a sentence with another task.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics import roles
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.metrics.spans import spans
from pipeline.tasks.base.capabilities import MarksPredicate
from pipeline.tasks.base.claims import temperature_of
from pipeline.tasks.base.features import WindowLogits
from pipeline.tasks.base.marked_text import MarkedSpan, MarkedText
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.shared.tagging import (
    Extents,
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
    """Words [start, end) in a role. `score` is the minimum probability of their tags.

    In the result of a row with `text`, `start` and `end` are characters of the text.
    """

    role: str
    start: int
    end: int
    text: str
    score: float


@dataclass(frozen=True)
class Structure:
    """A predicate, the index `position` of its word, and its arguments in order.

    `start` and `end` are those of the predicate, in the unit of its arguments. `score` is the
    probability of the predicate; None if the row names it.
    """

    predicate: str
    position: int
    start: int
    end: int
    arguments: tuple[Argument, ...]
    score: float | None = None


@dataclass(frozen=True)
class Structures:
    """The predicates that were found in a sentence, in order, with their arguments."""

    structures: tuple[Structure, ...]


class SemanticRoleLabeling(TaggingTask[Example, Structure | Structures], MarksPredicate[Structure]):
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
    finder_classes = bio_classes((roles.PREDICATE_ROLE,))

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The predicate and its sentence.

        Tags must have labels of the recipe, and B-V must be at the predicate and only there.
        """
        if not check_tags(row, _with_predicate(labels), problems):
            return None
        tags, predicate = row["tags"], row["predicate"]
        verbs = [
            position for position, tag in enumerate(tags) if tag == f"B-{roles.PREDICATE_ROLE}"
        ]
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
            f"B-{roles.PREDICATE_ROLE}" if position == predicate else "O"
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
        return tuple(label for label in labels if label != roles.PREDICATE_ROLE)

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
        return {
            pieces: role for role, pieces in roles.arguments(tags) if role != roles.PREDICATE_ROLE
        }

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> Structure:
        """The predicate and its arguments. Spans V are not arguments."""
        return _structure(example, decode_spans(window_logits, classes, temperature_of(thresholds)))

    def sentence_result(self, results: Sequence[Structure], scores: Sequence[float]) -> Structures:
        """The structures, each with the probability of its predicate."""
        pairs = zip(results, scores, strict=True)
        return Structures(tuple(replace(result, score=score) for result, score in pairs))

    def in_characters(
        self, result: Structure | Structures, text: str, bounds: Sequence[tuple[int, int]]
    ) -> Structure | Structures:
        """The predicates and arguments with positions in the text of the sentence."""
        if isinstance(result, Structures):
            placed = (_in_characters(structure, text, bounds) for structure in result.structures)
            return Structures(tuple(placed))
        return _in_characters(result, text, bounds)

    def annotation(self, example: Example) -> Structure:
        """The annotated arguments, with positions in the text of the tokens."""
        tagged = (TaggedSpan(*span, score=1.0) for span in spans(example.tags))
        (text,) = self.shown_texts(example)
        return _in_characters(_structure(example, tagged), text, token_bounds(example.tokens))

    def marked_texts(
        self, texts: Sequence[str], result: Structure | Structures
    ) -> tuple[MarkedText, ...]:
        """The sentence with predicate and arguments, once per predicate."""
        structures = result.structures if isinstance(result, Structures) else (result,)
        marked = (MarkedText(texts[0], _marks(structure)) for structure in structures)
        return tuple(marked) or (MarkedText(texts[0]),)


TASK = SemanticRoleLabeling()


def _structure(example: Example, tagged: Iterable[TaggedSpan]) -> Structure:
    position = example.predicate
    arguments = (
        Argument(label, start, end, " ".join(example.tokens[start:end]), score)
        for label, start, end, score in tagged
        if label != roles.PREDICATE_ROLE
    )
    return Structure(example.tokens[position], position, position, position + 1, tuple(arguments))


def _in_characters(structure: Structure, text: str, bounds: Sequence[tuple[int, int]]) -> Structure:
    start, end = bounds[structure.position]
    return replace(
        structure,
        predicate=text[start:end],
        start=start,
        end=end,
        arguments=tuple(in_text(argument, text, bounds) for argument in structure.arguments),
    )


def _marks(structure: Structure) -> tuple[MarkedSpan, ...]:
    """The spans of a structure in the order of the text."""
    marks = [
        MarkedSpan(argument.start, argument.end, argument.role, argument.score)
        for argument in structure.arguments
    ]
    predicate = MarkedSpan(structure.start, structure.end, roles.PREDICATE_ROLE, structure.score)
    return tuple(sorted([*marks, predicate], key=lambda mark: mark.start))


def _with_predicate(labels: Sequence[str]) -> tuple[str, ...]:
    return tuple(labels) if roles.PREDICATE_ROLE in labels else (*labels, roles.PREDICATE_ROLE)

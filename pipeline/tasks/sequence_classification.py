"""Sequence classification: a label for a text or a pair of texts.

The label can be about words in the texts (WiC, WSC).
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics import classification
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.tasks.base.capabilities import HasConfidence, HasUnits, Perturbable, ShowsSpans
from pipeline.tasks.base.claims import Claim, Floats, softmax, temperature_of
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.marked_text import MarkedSpan, MarkedText
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.base.task import HeadKind, Task
from pipeline.tasks.shared.offsets import check_whole_words, span_hint
from pipeline.tasks.shared.validation import check_name, check_nfc, check_text, label_hint

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer


@dataclass(frozen=True)
class Mark:
    """Characters [start, end) of the text (segment 0) or of its pair (segment 1)."""

    segment: int
    start: int
    end: int


@dataclass(frozen=True)
class Example:
    """A text, its pair, at most two marked spans in them, and its label.

    `text_pair` is "" without a pair, `label` is "" in a row to predict. Examples with the same
    `question` are answers to that question and are scored together (MultiRC; "": no question).
    """

    id: str
    text: str
    text_pair: str
    spans: tuple[Mark, ...]
    label: str
    question: str


@dataclass(frozen=True)
class MarkedWords:
    """The words of a mark: characters [start, end) of the text (segment 0) or of its pair (1)."""

    segment: int
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class Label:
    """The most probable label, the probability of each label, and the marked words of the row."""

    label: str
    probabilities: dict[str, float]
    spans: tuple[MarkedWords, ...] = ()


class SequenceClassification(
    Task[Example, Sequence[str], Label],
    HasConfidence[Example],
    HasUnits[Example, Sequence[str]],
    Perturbable[Example],
    ShowsSpans[Example, Label],
):
    """Predictions are labels, one per example in the examples' order."""

    example_type = Example
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("text", pa.string()),
            ("text_pair", pa.string()),
            (
                "spans",
                pa.list_(
                    pa.struct([("segment", pa.int32()), ("start", pa.int32()), ("end", pa.int32())])
                ),
            ),
            ("label", pa.string()),
            ("question", pa.string()),
        ]
    )
    row_keys = RowKeys(
        inputs={"text": "text"},
        targets={"label": "label"},
        optional={"text_pair": "text", "spans": "spans", "question": "name"},
    )
    inputs = ("text", "text_pair", "spans")
    outputs = ("label",)
    head: ClassVar[HeadKind] = "classes"
    claim_and_decision_names = ("labels", "labels")
    metric_names = ("accuracy", "f1_macro", "f1_answers", "exact_match")
    metric_keys: ClassVar[Mapping[str, str]] = {
        "f1_answers": "question",
        "exact_match": "question",
    }
    min_train_labels = 2
    pipeline_tag = "text-classification"

    def check_labels(self, labels: Sequence[str]) -> list[str]:
        """The problems of a recipe's labels: unique, and at least two."""
        return super().check_labels(labels) or (
            []
            if len(labels) > 1
            else ["a classification needs at least two labels; add the others"]
        )

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The text. It must not be empty, its label must be in the recipe, and spans inside it."""
        before = len(problems)
        if row["label"] not in labels:
            remedy = label_hint(str(row["label"]), labels)
            if str(row["label"]).removesuffix(".0").isdecimal():
                remedy += ", or name class numbers with names in the recipe's options"
            problems.add(
                row["where"],
                f"label {row['label']!r} is not in the recipe's labels "
                f"({', '.join(labels)}); {remedy}",
                "unknown-label",
            )
        example = _example(row, row["label"], problems)
        return example if len(problems) == before else None

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The text, without a label."""
        return _example(row, "", problems)

    def from_record(self, record: dict[str, Any]) -> Example:
        """The inverse of `record`."""
        return Example(**record | {"spans": tuple(Mark(**span) for span in record["spans"])})

    def record(self, example: Example) -> dict[str, Any]:
        """The example as a record of `schema`."""
        return asdict(example)

    def split_group(self, row: Row) -> str:
        """The words of the text, without spacing, punctuation and case.

        All questions about a passage go to the same split. So do WSC's copies of a sentence, which
        differ in spacing.
        """
        return " ".join(re.findall(r"\w+", str(row["text"]).casefold()))

    def labels(self, example: Example) -> Iterator[str]:
        """The label."""
        return iter([example.label])

    def expected_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The recipe's labels."""
        return tuple(labels)

    def text(self, example: Example) -> str:
        """The text and its pair."""
        return f"{example.text} {example.text_pair}".strip()

    def apply_edit(self, example: Example, edit: Edit) -> Example:
        """The example with both texts edited. Marks stay on their words."""
        texts, marks = [example.text, example.text_pair], list(example.spans)
        for segment, text in enumerate(texts):
            numbers = [
                number for number, mark in enumerate(example.spans) if mark.segment == segment
            ]
            texts[segment], starts, ends = edit.text(
                text,
                [marks[number].start for number in numbers],
                [marks[number].end for number in numbers],
            )
            for number, start, end in zip(numbers, starts, ends, strict=True):
                marks[number] = Mark(segment, start, end)
        return replace(example, text=texts[0], text_pair=texts[1], spans=tuple(marks))

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
        """One window per example. If two texts are too long, the longer text is truncated first."""
        texts, pairs = (
            tokenizer.encode_texts([getattr(example, name) for example in examples])
            for name in ("text", "text_pair")
        )
        for number, (example, *encoded) in enumerate(
            zip(examples, texts, pairs, strict=True), first
        ):
            segments = [
                _insert_markers(example, segment, *text, tokenizer)
                for segment, text in enumerate(encoded)
            ]
            ids, types = _join_segments(
                segments, self.ending(tokenizer), tokenizer, max_length, counts
            )
            yield Feature(
                example=number,
                input_ids=ids,
                token_types=types,
                positions=[self.position(ids, tokenizer)],
                labels=[classes.index(example.label)] if example.label else [0],
                begins=[0],
                ends=[1],
                label_count=1,
            )

    def ending(self, tokenizer: "Tokenizer") -> list[int]:
        """The ids after the texts."""
        return tokenizer.suffix

    def position(self, ids: Sequence[int], tokenizer: "Tokenizer") -> int:
        """The index of the token for the head: [CLS], or the last token of a causal backbone."""
        return tokenizer.summary_position(len(ids))

    def decode(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> str:
        """The label with the greatest logit."""
        return classes[int(window_logits[0].logits[0].argmax())]

    def predictions(
        self, examples: Sequence[Example], decoded: Sequence[str], thresholds: Mapping[str, float]
    ) -> Sequence[str]:
        """The decoded labels."""
        return decoded

    def score(
        self, examples: Sequence[Example], predictions: Sequence[str], classes: Sequence[str]
    ) -> Metrics:
        """Accuracy and F1, and F1a and EM of questions, as in SuperGLUE's script."""
        return classification.score(
            [example.label for example in examples], predictions, classes, _questions(examples)
        )

    def counts(
        self, examples: Sequence[Example], predictions: Sequence[str], classes: Sequence[str]
    ) -> UnitCounts:
        """The counts of each text, or of each question if the examples have questions."""
        return classification.counts(
            [example.id for example in examples],
            [example.label for example in examples],
            predictions,
            classes,
            _questions(examples),
        )

    def decision_logits(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Floats:
        """The logits [1, K] of the K labels."""
        return window_logits[0].logits[:1].astype(np.float64)

    def decisions(
        self, example: Example, prediction: str, classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """The index of the label, and whether it is right."""
        return [classes.index(prediction)], [prediction == example.label]

    def claims(self, example: Example, prediction: str) -> Iterator[Claim]:
        """One claim, the label."""
        yield Claim(
            (0,), example.label, prediction, example.label, prediction, prediction == example.label
        )

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> Label:
        """The label, and the softmax of the logits."""
        scores = softmax(
            self.decision_logits(example, window_logits, classes)[0], temperature_of(thresholds)
        )
        probabilities = dict(zip(classes, scores.tolist(), strict=True))
        return Label(
            self.decode(example, window_logits, classes), probabilities, _marked_words(example)
        )

    def shown_texts(self, example: Example) -> tuple[str, ...]:
        """The text and its pair."""
        return example.text, example.text_pair

    def annotation(self, example: Example) -> Label:
        """The annotated label."""
        return Label(example.label, {example.label: 1.0}, _marked_words(example))

    def marked_texts(self, texts: Sequence[str], result: Label) -> tuple[MarkedText, ...]:
        """The texts with their marked words, below the label."""
        title = f"{result.label} ({result.probabilities[result.label]:.2f})"
        shown = []
        for segment, text in enumerate(texts):
            marks = sorted(
                MarkedSpan(span.start, span.end, "")
                for span in result.spans
                if span.segment == segment
            )
            if text or not segment:
                shown.append(MarkedText(text, tuple(marks), "" if segment else title))
        return tuple(shown)


TASK = SequenceClassification()


def _marked_words(example: Example) -> tuple[MarkedWords, ...]:
    texts = (example.text, example.text_pair)
    return tuple(
        MarkedWords(mark.segment, mark.start, mark.end, texts[mark.segment][mark.start : mark.end])
        for mark in example.spans
    )


def _questions(examples: Sequence[Example]) -> list[str] | None:
    questions = [example.question for example in examples]
    return questions if all(questions) else None


def _example(row: Row, label: str, problems: Problems) -> Example | None:
    where, before = row["where"], len(problems)
    pair, spans, question = (row.get(key) for key in ("text_pair", "spans", "question"))
    texts = [row["text"], "" if pair is None else pair]
    check_text("text", row["text"], where, problems)
    if pair is not None:
        check_text("text_pair", pair, where, problems)
    spans = [] if spans is None else spans
    marks = (
        [_check_mark(span, texts, where, problems) for span in spans]
        if isinstance(spans, list | tuple)
        else [None]
    )
    if question is not None:
        check_name("question", question, where, problems)
    if not isinstance(spans, list | tuple) or len(spans) > 2:
        problems.add(
            where, f"spans: found {str(spans)[:60]!r}, expected a list of at most two", "wrong-type"
        )
    if len(problems) > before:
        return None
    for key, text in zip(("text", "text_pair"), texts if spans else (), strict=False):
        check_nfc(key, text, where, problems)
    return Example(
        row["id"],
        texts[0],
        texts[1],
        tuple(mark for mark in marks if mark),
        label,
        "" if question is None else str(question),
    )


def _check_mark(span: Any, texts: Sequence[Any], where: str, problems: Problems) -> Mark | None:
    values: list[Any] = (
        [span.get(key) for key in ("segment", "start", "end")]
        if isinstance(span, Mapping)
        else [None]
    )
    if not all(type(value) is int for value in values):
        problems.add(
            where,
            f"spans: found {str(span)[:60]!r}, expected a mapping with the integers segment, "
            "start and end",
            "wrong-type",
        )
        return None
    mark = Mark(*values)
    text = texts[mark.segment] if mark.segment in (0, 1) else ""
    if (
        not isinstance(text, str)
        or not 0 <= mark.start < mark.end <= len(text)
        or not text[mark.start : mark.end].strip()
    ):
        hint = span_hint(text, mark.start, mark.end) if isinstance(text, str) else ""
        problems.add(
            where,
            f"spans: segment {mark.segment}, characters {mark.start} to {mark.end}, is not a span "
            f"of words in {str(text)[:40]!r}{hint or '; correct it'}",
            "span-offset",
        )
        return None
    check_whole_words("span", text, mark.start, mark.end, where, problems)
    return mark


def _insert_markers(
    example: Example,
    segment: int,
    ids: Sequence[int],
    offsets: Sequence[tuple[int, int]],
    tokenizer: "Tokenizer",
) -> tuple[list[int], int]:
    """A segment's sub-words with markers around its spans, and the length up to the last marker.

    The markers are asterisks around the first span and number signs around the second.
    """
    before: dict[int, list[int]] = {}
    after: dict[int, list[int]] = {}
    for span, marker in zip(
        example.spans, (tokenizer.marker, tokenizer.second_marker), strict=False
    ):
        inside = [
            token
            for token, (begin, end) in enumerate(offsets)
            if begin < span.end and end > span.start
        ]
        if span.segment == segment and inside:
            before[inside[0]] = before.get(inside[0], []) + marker
            after[inside[-1]] = marker + after.get(inside[-1], [])
    pieces, marked_length = list[int](), 0
    for token, token_id in enumerate(ids):
        pieces += [*before.get(token, ()), token_id, *after.get(token, ())]
        if token in after:
            marked_length = len(pieces)
    return pieces, marked_length


def _join_segments(
    segments: Sequence[tuple[list[int], int]],
    ending: Sequence[int],
    tokenizer: "Tokenizer",
    max_length: int,
    counts: Counter[str],
) -> tuple[list[int], list[int]]:
    """The ids [T] and token types [T] of the whole input, T <= `max_length`."""
    (first, first_marked), (second, second_marked) = segments
    middle = tokenizer.middle if second else []
    room = max_length - len(tokenizer.prefix) - len(middle) - len(ending)
    if len(first) + len(second) > room:
        counts["texts cut"] += 1
        half = room // 2
        first, second = (
            first[: max(room - half, room - len(second))],
            second[: max(half, room - len(first))],
        )
        counts["marked words cut"] += len(first) < first_marked or len(second) < second_marked
    head = [*tokenizer.prefix, *first, *middle]
    ids = [*head, *second, *ending]
    second_type = tokenizer.second_type if second else 0
    return ids, [0] * len(head) + [second_type] * (len(ids) - len(head))

"""Span extraction: the answer to a question in a context, or no answer (SQuAD 1.1 and 2.0)."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics import answers
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.tasks.base.capabilities import (
    AnswersQuestions,
    HasConfidence,
    HasUnits,
    Perturbable,
    ShowsSpans,
)
from pipeline.tasks.base.claims import CharacterSpans, Claim, Floats, softmax, temperature_of
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.marked_text import MarkedSpan, MarkedText
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.base.task import Task, num_words
from pipeline.tasks.shared.answer_checks import check_answer_types, check_offset
from pipeline.tasks.shared.answer_spans import NUM_CANDIDATES, best_spans, with_marks
from pipeline.tasks.shared.question_windows import (
    Encoding,
    encode_questions,
    question_windows,
    tokens_inside,
)
from pipeline.tasks.shared.validation import check_nfc, check_text

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

MAX_ANSWER_LENGTH = 30  # the default, in sub-words, as in BERT's run_squad
NO_ANSWER = "no answer"
ANSWERABLE = "answerable"  # the label of a question with an answer


class Answer(NamedTuple):
    """An accepted answer, and its offset in the context, in characters.

    context[start:start + len(text)] == text.
    """

    text: str
    start: int


class Candidate(NamedTuple):
    """A candidate answer: its text, the sum of its start and end logits, and its first character.

    If the text occurs several times, they are those of the occurrence with the greatest score.
    """

    text: str
    score: float
    start: int


@dataclass(frozen=True)
class Decoded:
    """The best answers, best first, and the score of "no answer".

    The score is the minimum over windows, as in BERT's run_squad.
    """

    candidates: tuple[Candidate, ...]
    null_score: float

    @property
    def margin(self) -> float:
        """The score of "no answer" minus that of the best answer; infinite without answers."""
        return self.null_score - self.candidates[0].score if self.candidates else float("inf")

    def options(self) -> Floats:
        """The logits [1, K] of "no answer", then of the K - 1 candidates."""
        return np.array([[self.null_score, *(candidate.score for candidate in self.candidates)]])


@dataclass(frozen=True)
class AnswerSpan:
    """Characters [start, end) of a context.

    `probability` is from the softmax over the best spans and "no answer".
    """

    text: str
    start: int
    end: int
    probability: float


@dataclass(frozen=True)
class Extraction:
    """The predicted answer to a question ("": no answer), and the best spans, best first.

    `start` and `end` are the characters of the answer in the context, None without answer.
    `no_answer` is the probability that the context has no answer.
    """

    answer: str
    start: int | None
    end: int | None
    spans: tuple[AnswerSpan, ...]
    no_answer: float


@dataclass(frozen=True)
class Example:
    """A question about a context. `answers` is empty if the context does not answer it."""

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]


class SpanExtraction(
    Task[Example, Mapping[str, str], Extraction],
    HasConfidence[Example],
    HasUnits[Example, Mapping[str, str]],
    Perturbable[Example],
    AnswersQuestions[Example],
    ShowsSpans[Example, Extraction],
):
    """Predictions are a mapping from the examples' ids to texts; "" predicts "no answer".

    `rules` compare answers. A predicted answer has at most `max_answer_length` sub-words.
    """

    example_type = Example
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("question", pa.string()),
            ("context", pa.string()),
            ("answers", pa.list_(pa.struct([("text", pa.string()), ("start", pa.int32())]))),
        ]
    )
    row_keys = RowKeys(
        inputs={"question": "name", "context": "text"}, targets={"answers": "answers"}
    )
    inputs = ("question", "context")
    outputs = ("answers",)
    has_labels = False
    head = "positions"
    claim_and_decision_names = ("answers", "answers")
    claim_input = "context"
    metric_names = tuple(answers.RULES)
    metric_titles: ClassVar[Mapping[str, str]] = {
        "HasAns_exact_match": "exact, answerable",
        "HasAns_f1": "F1, answerable",
        "NoAns_exact_match": "exact, unanswerable",
        "NoAns_f1": "F1, unanswerable",
        **answers.TITLES,
    }
    pipeline_tag = "question-answering"

    def __init__(
        self, rules: answers.Rules = answers.SQUAD, max_answer_length: int = MAX_ANSWER_LENGTH
    ) -> None:
        self.rules = rules
        self.max_answer_length: int = max_answer_length

    def configured(
        self, metric: str | None = None, max_answer_length: int | None = None
    ) -> "SpanExtraction":
        """The task with the rules of `metric` and another maximum length of answers."""
        return SpanExtraction(
            self.rules if metric is None else answers.RULES[metric],
            max_answer_length or self.max_answer_length,
        )

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The question.

        Texts must not be empty, and each answer must be at its start in the context.
        """
        before = len(problems)
        _check_texts(row, problems)
        has_answers = check_answer_types(row, problems)
        context = row["context"]
        if not has_answers or not isinstance(context, str):
            return None
        accepted = tuple(
            Answer(answer["text"], answer["answer_start"]) for answer in row["answers"]
        )
        for answer in accepted:
            check_offset(context, answer.text, answer.start, row["where"], problems)
        if accepted:
            check_nfc("context", context, row["where"], problems)
        if len(problems) > before:
            return None
        return Example(row["id"], row["question"], context, accepted)

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The question, without answers."""
        return (
            Example(row["id"], row["question"], row["context"], ())
            if _check_texts(row, problems)
            else None
        )

    def from_record(self, record: dict[str, Any]) -> Example:
        """The inverse of `record`."""
        accepted = tuple(Answer(answer["text"], answer["start"]) for answer in record["answers"])
        return Example(record["id"], record["question"], record["context"], accepted)

    def split_group(self, row: Row) -> str:
        """The title of the article, else the context. All rows of a group go to the same split.

        With titles and the same seed, corpora about the same articles (SQuAD 1.1 and 2.0) get the
        same split by article. So no article is in the training split of one corpus and in the
        validation split of the other.
        """
        return str(row.get("title") or row["context"])

    def labels(self, example: Example) -> Iterator[str]:
        """Whether the question has an answer."""
        return iter([ANSWERABLE if example.answers else "unanswerable"])

    def expected_labels(self, labels: Sequence[str]) -> tuple[str, ...]:
        """An answer: without one, "no answer" is always right."""
        return (ANSWERABLE,)

    def text(self, example: Example) -> str:
        """The context."""
        return example.context

    def num_tokens(self, example: Example) -> int:
        """The number of words of question and context.

        A context counts once for each of its questions.
        """
        return num_words(example.question) + num_words(example.context)

    def apply_edit(self, example: Example, edit: Edit) -> Example:
        """The example with edited question and context. Answers keep track of the edits."""
        starts = [answer.start for answer in example.answers]
        ends = [answer.start + len(answer.text) for answer in example.answers]
        context, starts, ends = edit.text(example.context, starts, ends)
        accepted = tuple(
            Answer(context[start:end], start) for start, end in zip(starts, ends, strict=True)
        )
        return Example(example.id, edit.text(example.question)[0], context, accepted)

    def ask(self, id: str, question: str, context: str) -> Example:
        """A question without answers."""
        return Example(id, question, context, ())

    def similarity(self, answer: str, other: str) -> float:
        """The F1 by the rules of the metric."""
        return self.rules.f1(answer, other)

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """The start and the end of the answer."""
        return ("start", "end")

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
        """Windows of the context after the question.

        The summary position comes first; it is the label of a window without answer.
        """
        encoded = encode_questions(
            [example.question for example in examples],
            [example.context for example in examples],
            tokenizer,
        )
        for number, (example, (question, context)) in enumerate(
            zip(examples, encoded, strict=True), first
        ):
            yield from _features(
                number, example, question, context, tokenizer, max_length, stride, counts
            )

    def decode(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Decoded:
        """The best spans over all windows, and the score of "no answer"."""
        best: dict[str, Candidate] = {}
        for window in window_logits:
            for first, last, score in best_spans(window, self.max_answer_length):
                begin, end = with_marks(example.context, first, last)
                text = example.context[begin:end]
                if text not in best or score > best[text].score:
                    best[text] = Candidate(text, score, begin)
        ranked = sorted(best.values(), key=lambda candidate: (-candidate.score, candidate.text))
        return Decoded(tuple(ranked[:NUM_CANDIDATES]), _null_score(window_logits))

    def fit_thresholds(
        self, examples: Sequence[Example], decoded: Sequence[Decoded]
    ) -> dict[str, float]:
        """The margin threshold; a question with a greater margin is predicted to be unanswerable.

        There is no threshold if all validation questions have an answer.
        """
        if all(example.answers for example in examples):
            return {}
        best = self.predictions(examples, decoded, {})
        margins = {
            example.id: answer.margin for example, answer in zip(examples, decoded, strict=True)
        }
        threshold = answers.best_threshold(
            _references(examples), best, margins, self.rules.f1, self.rules
        )
        return {"null_margin": threshold.value}

    def predictions(
        self,
        examples: Sequence[Example],
        decoded: Sequence[Decoded],
        thresholds: Mapping[str, float],
    ) -> Mapping[str, str]:
        """The best answer to each question, or "" if the margin is above the threshold."""
        return {
            example.id: _answer(answer, thresholds)
            for example, answer in zip(examples, decoded, strict=True)
        }

    def score(
        self, examples: Sequence[Example], predictions: Mapping[str, str], classes: Sequence[str]
    ) -> Metrics:
        """Exact match and F1 as in the official script: `pipeline.metrics.answers`."""
        return answers.score(_references(examples), predictions, self.rules)

    def counts(
        self, examples: Sequence[Example], predictions: Mapping[str, str], classes: Sequence[str]
    ) -> UnitCounts:
        """The counts of each question."""
        return answers.counts(_references(examples), predictions, self.rules)

    def decision_logits(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Floats:
        """The logits [1, K] of "no answer", then of the K - 1 best spans, best first."""
        return self.decode(example, window_logits, classes).options()

    def apply_thresholds(self, options: Floats, thresholds: Mapping[str, float]) -> Floats:
        """The logits with that of "no answer" shifted by the threshold.

        It is the greatest if and only if the margin is above the threshold.
        """
        if "null_margin" not in thresholds or options.shape[1] == 1:
            return options
        best, shifted = options[:, 1], options.copy()
        # In this order, rounding keeps the sign of the difference.
        shifted[:, 0] = best + (options[:, 0] - best - thresholds["null_margin"])
        return shifted

    def decisions(
        self, example: Example, prediction: str, classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """The index 0 for "no answer" or 1 for the best span, and whether it is right."""
        right = self._verdict(example, prediction) == ("exact" if example.answers else NO_ANSWER)
        return [int(bool(prediction))], [right]

    def claims(self, example: Example, prediction: str) -> Iterator[Claim]:
        """One claim, the answer.

        By the rules of the metric, it matches an accepted answer (exact), shares words with it
        (partial) or shares none (wrong).
        """
        (right,) = self.decisions(example, prediction, ())[1]
        gold = " / ".join(dict.fromkeys(text for text, _ in example.answers)) or NO_ANSWER
        yield Claim(
            (0,),
            "answerable" if example.answers else "unanswerable",
            self._verdict(example, prediction),
            gold,
            prediction or NO_ANSWER,
            right,
            tuple(dict.fromkeys((start, start + len(text)) for text, start in example.answers)),
            _only_occurrence(example.context, prediction),
        )

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> Extraction:
        """The answer, and the probabilities of the best spans and of "no answer"."""
        decoded = self.decode(example, window_logits, classes)
        options = self.apply_thresholds(decoded.options(), thresholds)
        no_answer, *probabilities = softmax(options[0], temperature_of(thresholds)).tolist()
        spans = tuple(
            AnswerSpan(text, start, start + len(text), probability)
            for (text, _, start), probability in zip(decoded.candidates, probabilities, strict=True)
        )
        answer = _answer(decoded, thresholds)
        if not answer:
            return Extraction("", None, None, spans, no_answer)
        return Extraction(answer, spans[0].start, spans[0].end, spans, no_answer)

    def shown_texts(self, example: Example) -> tuple[str, ...]:
        """The question and the context."""
        return example.question, example.context

    def annotation(self, example: Example) -> Extraction:
        """The first answer, and all of them."""
        spans = tuple(
            AnswerSpan(text, start, start + len(text), 1.0)
            for text, start in dict.fromkeys(example.answers)
        )
        if not spans:
            return Extraction("", None, None, (), 1.0)
        return Extraction(spans[0].text, spans[0].start, spans[0].end, spans, 0.0)

    def marked_texts(self, texts: Sequence[str], result: Extraction) -> tuple[MarkedText, ...]:
        """The context with the answer, below the question."""
        question, context = texts
        if result.start is None or result.end is None:
            title = f"{question} {NO_ANSWER} ({result.no_answer:.2f})"
            return (MarkedText(context, title=title),)
        mark = MarkedSpan(result.start, result.end, "answer", result.spans[0].probability)
        return (MarkedText(context, (mark,), question),)

    def _verdict(self, example: Example, prediction: str) -> str:
        """The quality of an answer: exact, partial, wrong or "no answer"."""
        if not prediction:
            return NO_ANSWER
        texts = [text for text, _ in example.answers]
        if any(self.rules.exact_match(text, prediction) for text in texts):
            return "exact"
        return "partial" if any(self.rules.f1(text, prediction) for text in texts) else "wrong"


TASK = SpanExtraction()


def _references(examples: Sequence[Example]) -> dict[str, list[str]]:
    return {example.id: [text for text, _ in example.answers] for example in examples}


def _only_occurrence(context: str, text: str) -> CharacterSpans:
    """The place of a text; empty if it occurs never or more than once."""
    start = context.find(text) if text else -1
    if start < 0 or context.find(text, start + 1) >= 0:
        return ()
    return ((start, start + len(text)),)


def _check_texts(row: Row, problems: Problems) -> bool:
    valid = [check_text(key, row[key], row["where"], problems) for key in ("question", "context")]
    return all(valid)


def _answer(decoded: Decoded, thresholds: Mapping[str, float]) -> str:
    limit = thresholds.get("null_margin", float("inf"))
    return decoded.candidates[0].text if decoded.candidates and decoded.margin <= limit else ""


def _null_score(window_logits: Sequence[WindowLogits]) -> float:
    return min(float(window.logits[0].sum()) for window in window_logits)


def _features(
    number: int,
    example: Example,
    question: list[int],
    context: Encoding,
    tokenizer: "Tokenizer",
    max_length: int,
    stride: int,
    counts: Counter[str],
) -> Iterator[Feature]:
    ids, offsets = context
    answer = None
    if example.answers:
        text, start = example.answers[0]
        answer = tokens_inside(offsets, start, start + len(text))
    answer_in_window = False
    for window in question_windows(question, ids, tokenizer, max_length, stride, counts):
        labels = [0, 0]
        if answer and window.start <= answer[0] and answer[1] < window.end:
            labels = [answer[0] - window.start + 1, answer[1] - window.start + 1]
            answer_in_window = True
        spans = [(0, 0), *offsets[window.start : window.end]]
        end = window.position + window.end - window.start
        yield Feature(
            example=number,
            input_ids=window.input_ids,
            token_types=window.token_types,
            positions=[
                tokenizer.summary_position(len(window.input_ids)),
                *range(window.position, end),
            ],
            labels=labels,
            begins=[begin for begin, _ in spans],
            ends=[end for _, end in spans],
            label_count=1,
        )
    if example.answers and not answer_in_window:
        counts["answers in no window"] += 1

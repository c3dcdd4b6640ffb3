"""Multiple choice: the text (COPA) or the mention in the context (ReCoRD) that answers a question.

The model reads all choices in one pass: after the context, or at their positions in it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.errors import Problems, abbreviate, describe
from pipeline.metrics import answers
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.tasks.base.capabilities import HasConfidence, HasUnits, Perturbable, ShowsSpans
from pipeline.tasks.base.claims import CharacterSpans, Claim, Floats, softmax, temperature_of
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits
from pipeline.tasks.base.marked_text import MarkedSpan, MarkedText
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.base.task import Task, is_text_list, num_words
from pipeline.tasks.shared.offsets import check_whole_words, text_mismatch_hint
from pipeline.tasks.shared.question_windows import (
    Encoding,
    encode_questions,
    question_windows,
    tokens_inside,
)
from pipeline.tasks.shared.validation import check_nfc, check_surrogates, check_text

if TYPE_CHECKING:  # prepare imports this module and needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

ABSENT_CHOICE_LOGIT = -1e9  # the logit of a choice that is in no window


@dataclass(frozen=True)
class Example:
    """A question about a context, its choices and the right answers (none in a row to predict).

    `starts` are the offsets of the choices in the context, in characters. It is empty if the
    choices are not mentions in the context.
    """

    id: str
    context: str
    question: str
    choices: tuple[str, ...]
    starts: tuple[int, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """The most probable choice, and the probability of each choice.

    `start` and `end` are the characters of the choice in the context, None if the choices are not
    mentions in it. Of several mentions with the same text, they are those of the most probable one.
    """

    choice: str
    probabilities: dict[str, float]
    start: int | None = None
    end: int | None = None


class MultipleChoice(
    Task[Example, Mapping[str, str], Choice],
    HasConfidence[Example],
    HasUnits[Example, Mapping[str, str]],
    Perturbable[Example],
    ShowsSpans[Example, Choice],
):
    """Predictions are a mapping from the examples' ids to choices."""

    example_type = Example
    schema = pa.schema(
        [
            ("id", pa.string()),
            ("context", pa.string()),
            ("question", pa.string()),
            ("choices", pa.list_(pa.string())),
            ("starts", pa.list_(pa.int32())),
            ("answers", pa.list_(pa.string())),
        ]
    )
    row_keys = RowKeys(
        inputs={"context": "text", "question": "name", "choices": "texts"},
        targets={"answers": "texts"},
        optional={"starts": "integers"},
    )
    inputs = ("context", "question", "choices", "starts")
    outputs = ("answers",)
    has_labels = False
    head = "positions"
    claim_and_decision_names = ("choices", "choices")
    claim_input = "context"
    metric_names = ("accuracy", "exact_match", "f1")
    pipeline_tag = "multiple-choice"

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The question.

        Texts must not be empty, each choice must be at its start in the context, and at least one
        choice must be right.
        """
        example = self.example_for_prediction(row, problems)
        if example is None:
            return None
        if not is_text_list(row["answers"]):
            problems.add(
                row["where"],
                f"answers: found {describe(row['answers'], 60)}, "
                "expected a list of texts; correct it",
                "wrong-type",
            )
            return None
        if not all(
            check_surrogates("answers", text, row["where"], problems) for text in row["answers"]
        ):
            return None
        if not set(row["answers"]) & set(example.choices):
            problems.add(
                row["where"],
                f"answers {str(row['answers'])[:60]} are not among the choices; correct one of "
                "them",
                "no-right-choice",
            )
            return None
        return Example(**vars(example) | {"answers": tuple(row["answers"])})

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The question, without answers."""
        where, before = row["where"], len(problems)
        for key in ("context", "question"):
            check_text(key, row[key], where, problems)
        choices, starts = row["choices"], row.get("starts")
        starts = [] if starts in (None, ()) else starts
        if not is_text_list(choices) or len(choices) < (2 if starts == [] else 1):
            problems.add(
                where,
                f"choices: found {str(choices)[:60]}, expected a list of texts, two or more; "
                "correct it",
                "choices",
            )
        elif empty := [number for number, choice in enumerate(choices) if not choice.strip()]:
            problems.add(
                where,
                f"choices[{empty[0]}] is empty: {choices[empty[0]][:40]!r}; fill it in, or "
                "remove it",
                "choices",
            )
        elif not all(check_surrogates("choices", text, where, problems) for text in choices):
            return None
        elif starts != [] and len(problems) == before:
            _check_starts(row["context"], choices, starts, where, problems)
            check_nfc("context", row["context"], where, problems)
        if len(problems) > before:
            return None
        choice, count = Counter[str](choices).most_common(1)[0]
        if starts == [] and count > 1:
            problems.add(
                where,
                f"choices: {abbreviate(choice, 40)} occurs more than once, so either is right "
                "or wrong; remove one of them",
                "repeated-choice",
            )
        return Example(
            row["id"], row["context"], row["question"], tuple(choices), tuple(starts), ()
        )

    def split_group(self, row: Row) -> str:
        """The context. All questions about a context go to the same split."""
        return str(row["context"])

    def labels(self, example: Example) -> Iterator[str]:
        """One label per question, the same for all questions of a kind.

        The right choices of different questions are not comparable, so they are not labels.
        """
        return iter(["mention" if example.starts else "choice"])

    def text(self, example: Example) -> str:
        """The context, and the choices unless they are mentions in it."""
        return " ".join([example.context, *(example.choices if not example.starts else ())])

    def num_tokens(self, example: Example) -> int:
        """The number of words of the question and of `text`."""
        return num_words(example.question) + num_words(self.text(example))

    def apply_edit(self, example: Example, edit: Edit) -> Example:
        """The example with edited question and context. Mentions keep track of the edits.

        An example is not edited if two different mentions would become equal.
        """
        pairs = list(zip(example.starts, example.choices, strict=False))
        context, starts, ends = edit.text(
            example.context, example.starts, [start + len(choice) for start, choice in pairs]
        )
        choices = (
            tuple(context[start:end] for start, end in zip(starts, ends, strict=True))
            or example.choices
        )
        if len({*choices}) < len({*example.choices}):
            return example  # otherwise wrong mentions would be right, such as "us" for "US"
        edited_choices = dict(zip(example.choices, choices, strict=True))
        answers = tuple(edited_choices.get(answer, answer) for answer in example.answers)
        return Example(
            example.id, context, edit.text(example.question)[0], choices, tuple(starts), answers
        )

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """One class: the position of the right choice."""
        return ("choice",)

    def check_window(
        self,
        example: Example,
        tokenizer: "Tokenizer",
        max_length: int,
        where: str,
        problems: Problems,
    ) -> None:
        """Each choice that is no mention needs a marker and a token in the one window."""
        room, count = _room(tokenizer, max_length), len(example.choices)
        needed = count * (len(tokenizer.marker) + 1)
        if not example.starts and needed > room:
            problems.add(
                where,
                f"choices: {count} choices need at least {needed} tokens of a window, but "
                f"max_length {max_length} leaves {room}; give at most "
                f"{room // (len(tokenizer.marker) + 1)} choices, or raise max_length",
                "choices",
            )

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
        """Windows of the context with its mentions, or one window with context and choices."""
        encoded = encode_questions(
            [example.question for example in examples],
            [example.context for example in examples],
            tokenizer,
        )
        for number, (example, (question, context)) in enumerate(
            zip(examples, encoded, strict=True), first
        ):
            if example.starts:
                yield from _mention_features(
                    number, example, question, context, tokenizer, max_length, stride, counts
                )
            else:
                yield _choices_feature(
                    number, example, question, context[0], tokenizer, max_length, counts
                )

    def decode(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> str:
        """The choice with the greatest logit in any window."""
        scores = _scores(example, window_logits)
        return max(scores, key=scores.__getitem__)

    def predictions(
        self, examples: Sequence[Example], decoded: Sequence[str], thresholds: Mapping[str, float]
    ) -> Mapping[str, str]:
        """The decoded choices."""
        return {example.id: choice for example, choice in zip(examples, decoded, strict=True)}

    def score(
        self, examples: Sequence[Example], predictions: Mapping[str, str], classes: Sequence[str]
    ) -> Metrics:
        """Accuracy (COPA), and exact match and word F1 by SQuAD's rules (ReCoRD).

        Accuracy compares texts exactly, without SQuAD's normalization.
        """
        right = sum(predictions.get(example.id) in example.answers for example in examples)
        text_metrics = answers.score(_references(examples), predictions)
        accuracy = 100.0 * right / max(len(examples), 1)
        return Metrics({"accuracy": accuracy, **text_metrics.overall}, {})

    def counts(
        self, examples: Sequence[Example], predictions: Mapping[str, str], classes: Sequence[str]
    ) -> UnitCounts:
        """The counts of each question."""
        text_counts = answers.counts(_references(examples), predictions)
        right = np.array(
            [predictions.get(example.id) in example.answers for example in examples], np.float64
        )
        return UnitCounts(
            text_counts.units,
            {**text_counts.columns, "right": right},
            {"accuracy": (("right", "total"),), **text_counts.formulas},
        )

    def decision_logits(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Floats:
        """The logits [1, K] of the K different choices."""
        return np.array([list(_scores(example, window_logits).values())])

    def decisions(
        self, example: Example, prediction: str, classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """The index of the choice among the different choices, and whether it is right."""
        return [list(dict.fromkeys(example.choices)).index(prediction)], [
            prediction in example.answers
        ]

    def claims(self, example: Example, prediction: str) -> Iterator[Claim]:
        """One claim, the choice, with the label right or wrong.

        Choices of different questions are not comparable, so they are not labels.
        """
        right = prediction in example.answers
        yield Claim(
            (0,),
            "right",
            "right" if right else "wrong",
            " / ".join(example.answers),
            prediction,
            right,
            _mentions(example, example.answers),
            _mentions(example, (prediction,)),
        )

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> Choice:
        """The choice, and the softmax over the different choices."""
        probabilities = softmax(
            self.decision_logits(example, window_logits, classes)[0], temperature_of(thresholds)
        )
        choice = self.decode(example, window_logits, classes)
        return Choice(
            choice,
            dict(zip(_scores(example, window_logits), probabilities.tolist(), strict=True)),
            *_bounds(example, _best_mention(example, choice, window_logits)),
        )

    def shown_texts(self, example: Example) -> tuple[str, ...]:
        """The question, the context, and the choices that are not mentions in it."""
        return example.question, example.context, *(() if example.starts else example.choices)

    def annotation(self, example: Example) -> Choice:
        """The first right choice."""
        number = next(i for i, text in enumerate(example.choices) if text in example.answers)
        choice = example.choices[number]
        return Choice(choice, {choice: 1.0}, *_bounds(example, number))

    def marked_texts(self, texts: Sequence[str], result: Choice) -> tuple[MarkedText, ...]:
        """The context below the question, with the chosen mention; or with all choices below it."""
        question, context, *choices = texts
        score = result.probabilities[result.choice]
        if result.start is not None and result.end is not None:
            mark = MarkedSpan(result.start, result.end, "choice", score)
            return (MarkedText(context, (mark,), question),)
        chosen = (MarkedSpan(0, len(result.choice), "choice", score),)
        return (
            MarkedText(context, title=question),
            *(MarkedText(text, chosen if text == result.choice else ()) for text in choices),
        )


TASK = MultipleChoice()


def _mentions(example: Example, texts: Sequence[str]) -> CharacterSpans:
    """The places of the mentions with one of these texts."""
    pairs = zip(example.starts, example.choices, strict=False)
    return tuple((start, start + len(choice)) for start, choice in pairs if choice in texts)


def _best_mention(example: Example, choice: str, window_logits: Sequence[WindowLogits]) -> int:
    """The index of the choice with this text and the greatest logit in any window."""
    logits = {
        float(logit): int(number)
        for window in window_logits
        for number, logit in zip(window.begins, window.logits[:, 0], strict=True)
        if number >= 0 and example.choices[int(number)] == choice
    }
    return logits[max(logits)] if logits else example.choices.index(choice)


def _bounds(example: Example, number: int) -> tuple[int | None, int | None]:
    """The characters of a choice in the context, if the choices are mentions in it."""
    if not example.starts:
        return None, None
    start = example.starts[number]
    return start, start + len(example.choices[number])


def _references(examples: Sequence[Example]) -> dict[str, list[str]]:
    return {example.id: list(example.answers) for example in examples}


def _check_starts(
    context: str, choices: Sequence[str], starts: Any, where: str, problems: Problems
) -> None:
    if (
        not isinstance(starts, list | tuple)
        or len(starts) != len(choices)
        or not all(type(start) is int for start in starts)
    ):
        problems.add(
            where,
            f"starts: found {str(starts)[:40]}, expected one integer per choice "
            f"({len(choices)}); correct it",
            "not-an-integer",
        )
        return
    for choice, start in zip(choices, starts, strict=True):
        if start >= 0 and context.startswith(choice, start):
            check_whole_words("choice", context, start, start + len(choice), where, problems)
            continue
        hint = text_mismatch_hint(context, choice, start)
        problems.add(
            where,
            f"choice {choice!r} has start {start}, but the context has "
            f"{context[max(start, 0) : max(start, 0) + len(choice)]!r} there; "
            f"{hint or 'correct starts or choices'}",
            "choice-offset",
        )


def _mention_features(
    number: int,
    example: Example,
    question: list[int],
    context: Encoding,
    tokenizer: "Tokenizer",
    max_length: int,
    stride: int,
    counts: Counter[str],
) -> Iterator[Feature]:
    """Windows of the context after the question, with the positions of the mentions in them.

    The position of a mention is its first sub-word (causal backbone: its last). The summary
    position comes first; it is the label of a window without a right mention.
    """
    ids, offsets = context
    mentions = [
        tokens_inside(offsets, start, start + len(choice))
        for choice, start in zip(example.choices, example.starts, strict=True)
    ]
    for window in question_windows(question, ids, tokenizer, max_length, stride, counts):
        inside = [
            (choice, mention)
            for choice, mention in enumerate(mentions)
            if mention is not None and window.start <= mention[0] < window.end
        ]
        right = [
            index
            for index, (choice, _) in enumerate(inside, 1)
            if example.choices[choice] in example.answers
        ]
        numbers = [-1, *(choice for choice, _ in inside)]
        yield Feature(
            example=number,
            input_ids=window.input_ids,
            token_types=window.token_types,
            positions=[
                tokenizer.summary_position(len(window.input_ids)),
                *(
                    window.position + min(mention[tokenizer.causal], window.end - 1) - window.start
                    for _, mention in inside
                ),
            ],
            labels=[right[0] if right else 0],
            begins=numbers,
            ends=[choice + 1 for choice in numbers],
            label_count=1,
        )


def _room(tokenizer: "Tokenizer", max_length: int) -> int:
    """The tokens of a window of two segments that are not special tokens."""
    return max_length - len(tokenizer.prefix) - len(tokenizer.middle) - len(tokenizer.suffix)


def _choices_feature(
    number: int,
    example: Example,
    question: list[int],
    context: list[int],
    tokenizer: "Tokenizer",
    max_length: int,
    counts: Counter[str],
) -> Feature:
    """One window with all choices after the context and the question.

    The position of a choice is the marker before it (causal backbone: its last sub-word). The
    choices get at most 3/4 of the window, in equal shares of at least one sub-word.
    """
    room = _room(tokenizer, max_length)
    max_choice_size = max(1, room * 3 // 4 // len(example.choices) - len(tokenizer.marker))
    choices = [ids for ids, _ in tokenizer.encode_texts(example.choices)]
    counts["choices cut"] += any(len(ids) > max_choice_size for ids in choices)
    second, offsets = list[int](), list[int]()
    for ids in choices:
        second += tokenizer.marker
        offsets.append(
            len(second) + len(ids[:max_choice_size]) - 1
            if tokenizer.causal
            else len(second) - len(tokenizer.marker)
        )
        second += ids[:max_choice_size]
    limit = max(0, room - len(second))
    kept = context[: max(limit - len(question), limit // 2)]
    counts["contexts or questions cut"] += len(context) + len(question) > limit
    head = [*tokenizer.prefix, *kept, *question[: limit - len(kept)], *tokenizer.middle]
    ids = [*head, *second, *tokenizer.suffix]
    right = next(
        (choice for choice, text in enumerate(example.choices) if text in example.answers), 0
    )
    numbers = range(len(choices))
    return Feature(
        example=number,
        input_ids=ids,
        token_types=[0] * len(head) + [tokenizer.second_type] * (len(ids) - len(head)),
        positions=[len(head) + offset for offset in offsets],
        labels=[right],
        begins=numbers,
        ends=[choice + 1 for choice in numbers],
        label_count=1,
    )


def _scores(example: Example, window_logits: Sequence[WindowLogits]) -> dict[str, float]:
    """The greatest logit of each different choice over all windows, in the choices' order."""
    scores = dict.fromkeys(example.choices, ABSENT_CHOICE_LOGIT)
    for window in window_logits:
        for choice, logit in zip(window.begins, window.logits[:, 0], strict=True):
            if choice >= 0:
                text = example.choices[int(choice)]
                scores[text] = max(scores[text], float(logit))
    return scores

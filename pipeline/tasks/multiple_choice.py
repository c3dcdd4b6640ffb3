"""Multiple choice: which of some texts answers a question about a context (COPA), or which of the context's mentions (ReCoRD).

All choices are read in one pass: written behind the context, or where they stand in it.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from pipeline.errors import Problems
from pipeline.metrics import answers
from pipeline.metrics.base import Metrics, UnitCounts
from pipeline.tasks.base.capabilities import HasConfidence, HasUnits, Perturbable
from pipeline.tasks.base.claims import Claim, Floats, softmax
from pipeline.tasks.base.edits import Edit
from pipeline.tasks.base.features import Feature, WindowLogits, windows
from pipeline.tasks.base.row import Row, RowKeys
from pipeline.tasks.base.task import Task, is_text_list
from pipeline.tasks.shared.validation import check_nfc, check_surrogates, check_text

if TYPE_CHECKING:  # for its type only: preparing a corpus needs no tokenizer
    from pipeline.pretrained.tokenizer import Tokenizer

NOWHERE = -1e9  # the logit of a choice that no sub-word stands for
Encoding = tuple[list[int], list[tuple[int, int]]]
"""Sub-word ids of a text, and where each stands in its characters."""


@dataclass(frozen=True)
class Example:
    """A question about a context, its choices and those of them that are right (none in a query).

    `starts` are the characters of the context where the choices stand; none where the context does not hold them.
    """

    id: str
    context: str
    question: str
    choices: tuple[str, ...]
    starts: tuple[int, ...]
    answers: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """The likeliest choice, and how likely each is."""

    choice: str
    probabilities: dict[str, float]


class MultipleChoice(
    Task[Example, Mapping[str, str], Choice],
    HasConfidence[Example],
    HasUnits[Example, Mapping[str, str]],
    Perturbable[Example],
):
    """Predictions are a mapping of the examples' ids to choices."""

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
    head = "positions"
    claim_and_decision_names = ("choices", "choices")
    metric_names = ("accuracy", "exact_match", "f1")
    pipeline_tag = "multiple-choice"

    def check_labels(self, labels: Sequence[str]) -> list[str]:
        """There are none."""
        return ["the task has none; remove the key"] if labels else []

    def example(self, row: Row, labels: Sequence[str], problems: Problems) -> Example | None:
        """The question, unless a text is empty, a choice is not where it is said to start, or none of the choices is right."""
        example = self.example_for_prediction(row, problems)
        if example is None:
            return None
        if not all(
            check_surrogates("answers", text, row["where"], problems) for text in row["answers"]
        ):
            return None
        if not set(row["answers"]) & set(example.choices):
            problems.add(
                row["where"],
                f"answers {str(row['answers'])[:60]} are none of the choices; correct one of them",
                "no-right-choice",
            )
            return None
        return Example(**vars(example) | {"answers": tuple(row["answers"])})

    def example_for_prediction(self, row: Row, problems: Problems) -> Example | None:
        """The question."""
        where, before = row["where"], len(problems)
        for key in ("context", "question"):
            check_text(key, row[key], where, problems)
        choices, starts = row["choices"], row.get("starts") or []
        if (
            not is_text_list(choices)
            or len(choices) < (1 if starts else 2)
            or not all(choice.strip() for choice in choices)
        ):
            problems.add(
                where,
                f"choices: found {str(choices)[:60]}, expected a list of texts, two or more",
                "choices",
            )
        elif not all(check_surrogates("choices", text, where, problems) for text in choices):
            return None
        elif starts and len(problems) == before:
            _check_starts(row["context"], choices, starts, where, problems)
            check_nfc("context", row["context"], where, problems)
        if len(problems) > before:
            return None
        return Example(
            row["id"], row["context"], row["question"], tuple(choices), tuple(starts), ()
        )

    def split_group(self, row: Row) -> str:
        """The context."""
        return str(row["context"])

    def labels(self, example: Example) -> Iterator[str]:
        """One a question: which of its choices is right says nothing about another's."""
        return iter(["mention" if example.starts else "choice"])

    def text(self, example: Example) -> str:
        """The context, and the choices if it does not hold them."""
        return " ".join([example.context, *(example.choices if not example.starts else ())])

    def num_tokens(self, example: Example) -> int:
        """The words of the question and of the text."""
        return len(example.question.split()) + len(self.text(example).split())

    def apply_edit(self, example: Example, edit: Edit) -> Example:
        """Question and context changed; choices that stand in the context are what the new one has in their place."""
        pairs = list(zip(example.starts, example.choices, strict=False))
        context, starts, ends = edit.text(
            example.context, example.starts, [start + len(choice) for start, choice in pairs]
        )
        choices = (
            tuple(context[start:end] for start, end in zip(starts, ends, strict=True))
            or example.choices
        )
        renamed = dict(zip(example.choices, choices, strict=True))
        answers = tuple(renamed.get(answer, answer) for answer in example.answers)
        return Example(
            example.id, context, edit.text(example.question)[0], choices, tuple(starts), answers
        )

    def classes(self, labels: Sequence[str]) -> tuple[str, ...]:
        """One: where the right choice is."""
        return ("choice",)

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
        """Windows of the context with its mentions; or one window with all choices behind the context."""
        contexts = list(
            dict.fromkeys(example.context for example in examples)
        )  # a context has many questions
        encoded = dict(zip(contexts, tokenizer.encode_texts(contexts), strict=True))
        questions = tokenizer.encode_texts([example.question for example in examples])
        for number, (example, (question, _)) in enumerate(
            zip(examples, questions, strict=True), first
        ):
            context = encoded[example.context]
            if example.starts:
                yield from _mentioned(
                    number, example, question, context, tokenizer, max_length, stride, counts
                )
            else:
                yield _appended(
                    number, example, question, context[0], tokenizer, max_length, counts
                )

    def decode(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> str:
        """The choice with the greatest logit anywhere."""
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
        """How often the choice is right, to the letter (COPA); and exact match and word F1 by SQuAD's rules (ReCoRD)."""
        right = sum(predictions.get(example.id) in example.answers for example in examples)
        measured = answers.score(_references(examples), predictions)
        return Metrics({"accuracy": 100.0 * right / max(len(examples), 1), **measured.overall}, {})

    def counts(
        self, examples: Sequence[Example], predictions: Mapping[str, str], classes: Sequence[str]
    ) -> UnitCounts:
        """By question."""
        measured = answers.counts(_references(examples), predictions)
        right = np.array(
            [predictions.get(example.id) in example.answers for example in examples], np.float64
        )
        return UnitCounts(
            measured.units,
            {**measured.columns, "right": right},
            {"accuracy": (("right", "total"),), **measured.formulas},
        )

    def decision_logits(
        self, example: Example, window_logits: Sequence[WindowLogits], classes: Sequence[str]
    ) -> Floats:
        """The different choices."""
        return np.array([list(_scores(example, window_logits).values())])

    def decisions(
        self, example: Example, prediction: str, classes: Sequence[str]
    ) -> tuple[list[int], list[bool]]:
        """One choice."""
        return [list(dict.fromkeys(example.choices)).index(prediction)], [
            prediction in example.answers
        ]

    def claims(self, example: Example, prediction: str) -> Iterator[Claim]:
        """One choice, which is right or wrong: as it is another question's no more, it has no label."""
        right = prediction in example.answers
        yield Claim(
            (0,),
            "right",
            "right" if right else "wrong",
            " / ".join(example.answers),
            prediction,
            right,
        )

    def result(
        self,
        example: Example,
        window_logits: Sequence[WindowLogits],
        classes: Sequence[str],
        thresholds: Mapping[str, float],
    ) -> Choice:
        """The choice, and the softmax over the different ones."""
        chances = softmax(
            self.decision_logits(example, window_logits, classes)[0],
            thresholds.get("temperature", 1.0),
        )
        return Choice(
            self.decode(example, window_logits, classes),
            dict(zip(_scores(example, window_logits), chances.tolist(), strict=True)),
        )


TASK = MultipleChoice()


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
            f"starts: found {str(starts)[:40]}, expected an integer for each of the {len(choices)} choices",
            "not-an-integer",
        )
        return
    for choice, start in zip(choices, starts, strict=True):
        if start < 0 or not context.startswith(choice, start):
            problems.add(
                where,
                f"choice {choice!r} is said to start at {start}, where the context has "
                f"{context[max(start, 0) : max(start, 0) + len(choice)]!r}; correct starts or choices",
                "choice-offset",
            )


def _mentioned(
    number: int,
    example: Example,
    question: list[int],
    context: Encoding,
    tokenizer: "Tokenizer",
    max_length: int,
    stride: int,
    counts: Counter[str],
) -> Iterator[Feature]:
    """A mention is read at its first sub-word, a causal backbone's at its last; the state of the whole says "none here"."""
    limit = max_length // 2
    counts["questions cut"] += len(question) > limit
    head = [*tokenizer.prefix, *question[:limit], *tokenizer.middle]
    ids, offsets = context
    tokens = [
        _tokens(offsets, start, start + len(choice))
        for choice, start in zip(example.choices, example.starts, strict=True)
    ]
    cut = windows([1] * len(ids), max_length - len(head) - len(tokenizer.suffix), stride)
    counts["contexts in several windows"] += len(cut) > 1
    for window in cut:
        inside = [
            (choice, found)
            for choice, found in enumerate(tokens)
            if found is not None and window.start <= found[0] < window.end
        ]
        right = [
            place
            for place, (choice, _) in enumerate(inside, 1)
            if example.choices[choice] in example.answers
        ]
        shown = [*head, *ids[window.start : window.end], *tokenizer.suffix]
        numbers = [-1, *(choice for choice, _ in inside)]
        yield Feature(
            example=number,
            input_ids=shown,
            token_types=[0] * len(head) + [tokenizer.second_type] * (len(shown) - len(head)),
            positions=[
                tokenizer.summary_position(len(shown)),
                *(
                    len(head) + min(found[tokenizer.causal], window.end - 1) - window.start
                    for _, found in inside
                ),
            ],
            labels=[right[0] if right else 0],
            begins=numbers,
            ends=[choice + 1 for choice in numbers],
            label_count=1,
        )


def _tokens(offsets: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int] | None:
    inside = [token for token, (begin, stop) in enumerate(offsets) if begin < end and stop > start]
    return (inside[0], inside[-1]) if inside else None


def _appended(
    number: int,
    example: Example,
    question: list[int],
    context: list[int],
    tokenizer: "Tokenizer",
    max_length: int,
    counts: Counter[str],
) -> Feature:
    """A choice is read at the marker before it, a causal backbone's at its last sub-word."""
    room = max_length - len(tokenizer.prefix) - len(tokenizer.middle) - len(tokenizer.suffix)
    share = max(1, room * 3 // 4 // len(example.choices) - len(tokenizer.marker))
    choices = [ids for ids, _ in tokenizer.encode_texts(example.choices)]
    counts["choices cut"] += any(len(ids) > share for ids in choices)
    second, places = list[int](), list[int]()
    for ids in choices:
        second += tokenizer.marker
        places.append(
            len(second) + len(ids[:share]) - 1
            if tokenizer.causal
            else len(second) - len(tokenizer.marker)
        )
        second += ids[:share]
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
        positions=[len(head) + place for place in places],
        labels=[right],
        begins=numbers,
        ends=[choice + 1 for choice in numbers],
        label_count=1,
    )


def _scores(example: Example, window_logits: Sequence[WindowLogits]) -> dict[str, float]:
    """The greatest logit of each different choice, in the choices' order."""
    found = dict.fromkeys(example.choices, NOWHERE)
    for window in window_logits:
        for choice, logit in zip(window.begins, window.logits[:, 0], strict=True):
            if choice >= 0:
                text = example.choices[int(choice)]
                found[text] = max(found[text], float(logit))
    return found

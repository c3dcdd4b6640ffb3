"""MRQA 2019: a header, then one JSON object per line with a context and its questions (qas)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.data.readers.base import Source, abbreviate
from pipeline.data.readers.json_values import check, objects
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row


@dataclass(frozen=True)
class Options:
    """The format has no options."""


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `id` (MRQA's qid), `question`, `context` and `answers`.

    Each detected answer and each of its char_spans is an answer. The char_spans are the positions
    of the first and the last character, both included.
    """
    for where, value in objects(source, problems):
        if "header" in value:
            continue
        if not check(value, where, {"context": str, "qas": list}, problems, hides=True):
            continue
        for q, qa in enumerate(value["qas"]):
            qa_where = f"{where}: qas[{q}]"
            keys = {"qid": str, "question": str, "detected_answers": list}
            if check(qa, qa_where, keys, problems):
                answers = _answers(qa["detected_answers"], value["context"], qa_where, problems)
                if answers:
                    yield {
                        "where": f"{qa_where} ({qa['qid']})",
                        "id": qa["qid"],
                        "question": qa["question"],
                        "context": value["context"],
                        "answers": answers,
                    }


def _answers(
    detected: list[Any], context: str, where: str, problems: Problems
) -> list[dict[str, Any]]:
    """The distinct answers of a question.

    Adds a problem and returns [] if there are none, or if an answer differs from the context.
    """
    num_problems = len(problems)
    answers: dict[tuple[int, str], None] = {}
    for a, answer in enumerate(detected):
        answer_where = f"{where}.detected_answers[{a}]"
        if not check(answer, answer_where, {"text": str, "char_spans": list}, problems):
            continue
        for span in answer["char_spans"]:
            if not _is_span(span):
                problems.add(
                    answer_where,
                    f"char_spans: found {abbreviate(span, 40)}, expected pairs of integers",
                    "not-an-integer",
                )
                continue
            text = context[span[0] : span[1] + 1] if 0 <= span[0] <= span[1] else ""
            if not text or _letters(text) != _letters(answer["text"]):
                problems.add(
                    answer_where,
                    f"answer {abbreviate(answer['text'], 40)} has the char_spans "
                    f"{span[0]} to {span[1]}, but the context has {abbreviate(text, 40)} there; "
                    "correct char_spans",
                    "answer-offset",
                )
            answers[span[0], text] = None
    if not answers and len(problems) == num_problems:
        problems.add(
            where,
            "the question has no detected answer, but each MRQA question needs one; "
            "remove the question",
            "missing-answers",
        )
    if len(problems) > num_problems:
        return []
    return [{"text": text, "answer_start": start} for start, text in answers]


def _is_span(value: Any) -> bool:
    return (
        isinstance(value, list) and len(value) == 2 and all(type(number) is int for number in value)
    )


def _letters(text: str) -> str:
    """A text without case, spacing and punctuation; MRQA's answers differ in these."""
    return "".join(char for char in text.casefold() if char.isalnum())

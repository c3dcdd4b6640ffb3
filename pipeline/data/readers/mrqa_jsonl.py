"""MRQA 2019: a header, then one JSON object a line, a context with all its questions (qas)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.data.readers.base import Source, shown
from pipeline.data.readers.json_values import check, objects
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row


@dataclass(frozen=True)
class Options:
    """The format has no options."""


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `id` (MRQA's qid), `question`, `context` and `answers`: every place where an answer was detected in the context.

    MRQA's places are of the first and the last character, both included.
    """
    for where, value in objects(source, problems):
        if "header" in value:
            continue
        if not check(value, where, {"context": str, "qas": list}, problems, hides=True):
            continue
        for q, qa in enumerate(value["qas"]):
            place = f"{where}: qas[{q}]"
            if check(qa, place, {"qid": str, "question": str, "detected_answers": list}, problems):
                answers = _answers(qa["detected_answers"], value["context"], place, problems)
                if answers:
                    yield {
                        "where": f"{place} ({qa['qid']})",
                        "id": qa["qid"],
                        "question": qa["question"],
                        "context": value["context"],
                        "answers": answers,
                    }


def _answers(
    detected: list[Any], context: str, where: str, problems: Problems
) -> list[dict[str, Any]]:
    """The answers, none twice; none, and a problem, where there are none or one is not what the context has in its place."""
    before = len(problems)
    found: dict[tuple[int, str], None] = {}
    for a, answer in enumerate(detected):
        place = f"{where}.detected_answers[{a}]"
        if not check(answer, place, {"text": str, "char_spans": list}, problems):
            continue
        for span in answer["char_spans"]:
            if not (
                isinstance(span, list)
                and len(span) == 2
                and all(type(number) is int for number in span)
            ):
                problems.add(
                    place,
                    f"char_spans: found {shown(span, 40)}, expected pairs of integers",
                    "not-an-integer",
                )
                continue
            text = context[span[0] : span[1] + 1] if 0 <= span[0] <= span[1] else ""
            if not text or _letters(text) != _letters(answer["text"]):
                problems.add(
                    place,
                    f"answer {shown(answer['text'], 40)} is said to be at {span[0]} to {span[1]}, where the "
                    f"context has {shown(text, 40)}; correct char_spans",
                    "answer-offset",
                )
            found[span[0], text] = None
    if not found and len(problems) == before:
        problems.add(
            where,
            "the question has no detected answer; MRQA has one for each: remove the question",
            "missing-answers",
        )
    return (
        [{"text": text, "answer_start": start} for start, text in found]
        if len(problems) == before
        else []
    )


def _letters(text: str) -> str:
    """A text but for case, spacing and punctuation, by which MRQA's answers differ from the context."""
    return "".join(char for char in text.casefold() if char.isalnum())

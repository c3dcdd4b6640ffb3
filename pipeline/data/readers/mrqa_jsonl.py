"""MRQA 2019: a header, then one JSON object per line with a context and its questions (qas)."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.data.readers.base import Source
from pipeline.data.readers.json_values import check, id_of, objects
from pipeline.data.readers.offset_units import offset_in_characters
from pipeline.errors import Problems, abbreviate
from pipeline.tasks.base.row import Row
from pipeline.tasks.shared.offsets import OffsetUnit, text_mismatch_hint


@dataclass(frozen=True)
class Options:
    """`offsets` is the unit of `char_spans`."""

    offsets: OffsetUnit = "characters"


def read(source: Source, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `id` (MRQA's qid), `question`, `context` and `answers`.

    Questions without a qid have no id in their row. Each detected answer and each of its char_spans
    is an answer. The char_spans are the positions of the first and the last character, both
    included.
    """
    for where, value in objects(source, problems):
        if "header" in value:
            continue
        if not check(value, where, {"context": str, "qas": list}, problems, hides=True):
            continue
        for q, qa in enumerate(value["qas"]):
            with problems.in_one_row():
                row = _question(qa, value["context"], f"{where}: qas[{q}]", options, problems)
            if row is not None:
                yield row


def _question(
    qa: Any, context: str, where: str, options: Options, problems: Problems
) -> Row | None:
    """The row of a question; adds all problems and returns None if it is invalid."""
    if not check(qa, where, {}, problems):
        return None
    before = len(problems)
    id_key = id_of(qa, "qid", where, problems)
    check(qa, where, {"question": str, "detected_answers": list}, problems)
    detected, answers = qa.get("detected_answers"), list[dict[str, Any]]()
    if isinstance(detected, list):
        answers = _answers(detected, context, where, options.offsets, problems)
    if len(problems) > before:
        return None
    return {
        "where": f"{where} ({id_key['id']})" if id_key else where,
        **id_key,
        "question": qa["question"],
        "context": context,
        "answers": answers,
    }


def _answers(
    detected: list[Any], context: str, where: str, unit: OffsetUnit, problems: Problems
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
            start, end = (
                offset_in_characters("char_spans", context, offset, unit, answer_where, problems)
                for offset in (span[0], span[1] + 1)
            )
            text = context[start:end] if 0 <= start < end else ""
            if not text or _normalize(text) != _normalize(answer["text"]):
                hint = text_mismatch_hint(context, answer["text"], span[0])
                problems.add(
                    answer_where,
                    f"answer {abbreviate(answer['text'], 40)} has the char_spans "
                    f"{span[0]} to {span[1]}, but the context has {abbreviate(text, 40)} there"
                    f"; {hint or 'correct char_spans'}",
                    "answer-offset",
                )
            answers[start, text] = None
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


def _normalize(text: str) -> str:
    """A text without case and spacing; MRQA's answers differ from their spans in these."""
    return "".join(text.casefold().split())

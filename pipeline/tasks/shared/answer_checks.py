"""Checks of the annotated answers to a question: their types, and their places in the context."""

from collections.abc import Mapping
from unicodedata import normalize

from pipeline.errors import Problems, describe
from pipeline.tasks.base.row import Row
from pipeline.tasks.shared.offsets import check_whole_words, text_mismatch_hint


def check_answer_types(row: Row, problems: Problems) -> bool:
    """Whether `answers` is a list of mappings, maybe empty, with a text and an integer offset."""
    answers, where, before = row["answers"], row["where"], len(problems)
    if not isinstance(answers, list | tuple):
        problems.add(
            where,
            f"answers: found {describe(answers)}, expected a list of "
            "mappings with text and answer_start; use [] if the context has no answer",
            "missing-answers",
        )
        return False
    for number, answer in enumerate(answers):
        text, start = (
            (answer.get(key) for key in ("text", "answer_start"))
            if isinstance(answer, Mapping)
            else (None, None)
        )
        if not isinstance(text, str):
            problems.add(
                where,
                f"answers[{number}]: found {describe(answer, 60)}, expected a mapping with "
                "text and the integer answer_start",
                "missing-answers",
            )
        elif type(start) is not int:
            remedy = (
                f"write {int(start)} without quotes"
                if isinstance(start, str) and start.isdecimal()
                else "correct it"
            )
            problems.add(
                where,
                f"answers[{number}]: answer_start: found {describe(start)}, "
                f"expected an integer; {remedy}",
                "not-an-integer",
            )
    return len(problems) == before


def check_offset(context: str, text: str, start: int, where: str, problems: Problems) -> None:
    """Add a problem if the answer `text` is not at its start in the context.

    The message gives the start of the nearest occurrence, and the unit that the start fits. An
    answer that begins or ends inside a word adds a warning.
    """
    if not text.strip():
        problems.add(
            where,
            f"answer {text!r} is empty; if the question has no answer, set answers to []",
            "empty-answer",
        )
        return
    if start >= 0 and context.startswith(text, start):
        check_whole_words("answer", context, start, start + len(text), where, problems)
        return
    nearest, normal = _nearest(context, text, start), normalize("NFC", context)
    actual = context[max(start, 0) : max(start, 0) + len(text)]
    mismatch = f"answer {text!r} has answer_start {start}, but the context has {actual!r} there"
    offset_in_nfc = start >= 0 and normal != context and normal.startswith(text, start)
    if offset_in_nfc or (nearest is None and normalize("NFC", text) in normal):
        problems.add(
            where,
            f"{mismatch}; the two agree in Unicode normal form C (NFC): normalize context and "
            "answer, and recompute answer_start",
            "answer-normalization",
        )
        return
    remedy = (
        f"it starts at {nearest}" if nearest is not None else "it does not occur in the context"
    )
    hint = text_mismatch_hint(context, text, start)
    remedy += f", {hint}" if hint else ": correct answer_start or text"
    problems.add(where, f"{mismatch}; {remedy}", "answer-offset")


def _nearest(context: str, text: str, start: int) -> int | None:
    before = context.rfind(text, 0, max(start, 0) + len(text))
    after = context.find(text, max(start, 0))
    positions = [position for position in (before, after) if position >= 0]
    return min(positions, key=lambda position: abs(position - start)) if positions else None

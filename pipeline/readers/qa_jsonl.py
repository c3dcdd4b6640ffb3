"""Questions about a text, one JSON object per line: id, context, question, answers (text, answer_start), perhaps title.

An empty list of answers says that the context does not answer the question.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import Problems
from pipeline.readers.base import Row, lines

KINDS: dict[type, str] = {str: "text", int: "an integer", list: "a list", dict: "a mapping", bool: "true or false"}


@dataclass(frozen=True)
class Options:
    """The format has no options."""


def read(path: Path, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `question`, `context`, `answers` and, where given, `id` and `title`. Blank lines are skipped."""
    for where, text in lines(path, problems):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            problems.add(where, f"not valid JSON at column {error.colno}: {error.msg}; each line is one JSON object")
            continue
        except (ValueError, RecursionError) as error:  # a number of thousands of digits, a list in a list in a list ...
            problems.add(where, f"cannot be read as JSON: {error}; each line is one JSON object")
            continue
        if check(value, where, {"context": str, "question": str, "answers": list}, problems):
            optional = {key: str(value[key]) for key in ("id", "title") if key in value}
            row = {"where": where, "context": value["context"], "question": value["question"], "answers": value["answers"]}
            if check_answers(row, problems):
                yield row | optional


def check(value: Any, where: str, keys: dict[str, type], problems: Problems) -> bool:
    """Whether `value` is a mapping with these keys of these types; else a problem for each that it lacks."""
    if not isinstance(value, dict):
        problems.add(where, f"found {type(value).__name__} {str(value)[:40]!r}, expected a mapping")
        return False
    before = len(problems)
    for key, kind in keys.items():
        if key not in value:
            problems.add(where, f"key {key!r} is missing; found {', '.join(map(str, value)) or 'none'}")
        elif not isinstance(value[key], kind) or (kind is int and isinstance(value[key], bool)):
            problems.add(where, f"{key}: found {type(value[key]).__name__} {str(value[key])[:40]!r}, expected {KINDS[kind]}")
    return len(problems) == before


def check_answers(row: Row, problems: Problems) -> bool:
    """Whether each answer of a row is a mapping with `text` and `answer_start`."""
    keys = {"text": str, "answer_start": int}
    good = [check(answer, f"{row['where']}: answers[{i}]", keys, problems) for i, answer in enumerate(row["answers"])]
    return all(good)

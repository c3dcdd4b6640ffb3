"""The nested JSON of SQuAD 1.1 and 2.0: data -> articles -> paragraphs -> questions.

Such files have one line, so `where` is the file and the place in it, with the question's id.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import Problems
from pipeline.readers.base import Row, not_utf8
from pipeline.readers.qa_jsonl import check, check_answers


@dataclass(frozen=True)
class Options:
    """The format has no options: 1.1 and 2.0 differ by `is_impossible`, which 1.1 does not have."""


def read(path: Path, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `id`, `title`, `question`, `context` and `answers`; `plausible_answers` are not answers and are left out."""
    value = _load(path, problems)
    if value is None or not check(value, str(path), {"data": list}, problems):
        return
    for a, article in enumerate(value["data"]):
        where = f"{path}: data[{a}]"
        if not check(article, where, {"paragraphs": list}, problems):
            continue
        for p, paragraph in enumerate(article["paragraphs"]):
            place = f"{where}.paragraphs[{p}]"
            if check(paragraph, place, {"context": str, "qas": list}, problems):
                shared = {"title": str(article["title"])} if "title" in article else {}
                yield from _questions(paragraph, place, shared, problems)


def _questions(paragraph: dict[str, Any], place: str, shared: Row, problems: Problems) -> Iterator[Row]:
    for q, qa in enumerate(paragraph["qas"]):
        where = f"{place}.qas[{q}]"
        if not check(qa, where, {"id": str, "question": str, "answers": list}, problems):
            continue
        row: Row = {"where": f"{where} ({qa['id']})", "id": qa["id"], "question": qa["question"], "context": paragraph["context"],
                    "answers": qa["answers"], **shared}
        if bool(qa["answers"]) == bool(qa.get("is_impossible", False)):
            found = "answers although is_impossible is true" if qa["answers"] else "no answer, and is_impossible is not true"
            problems.add(row["where"], f"the question has {found}; correct one of them")
        elif check_answers(row, problems):
            yield row


def _load(path: Path, problems: Problems) -> Any:
    try:
        return json.loads(path.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        problems.add(f"{path}:{line}", not_utf8(error))
    except json.JSONDecodeError as error:
        problems.add(f"{path}:{error.lineno}", f"not valid JSON at column {error.colno}: {error.msg}; download the file again?")
    except (ValueError, RecursionError) as error:
        problems.add(str(path), f"cannot be read as JSON: {error}; download the file again?")
    return None

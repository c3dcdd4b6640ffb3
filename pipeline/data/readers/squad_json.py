"""The nested JSON of SQuAD 1.1 and 2.0: data -> articles -> paragraphs -> questions.

Such files have one line, so `where` is file:line and the place in it, with the question's id. One paragraph is held in memory; of
an article without a title in front of its paragraphs, the article.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.readers.base import DAMAGED, damaged, open_file
from pipeline.data.readers.json_stream import JsonStream, NotJsonError
from pipeline.data.readers.json_values import check, check_answers
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row


@dataclass(frozen=True)
class Options:
    """The format has no options: 1.1 and 2.0 differ by `is_impossible`, which 1.1 does not have."""


def read(path: Path, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `id`, `title`, `question`, `context` and `answers`; `plausible_answers` are not answers and are left out."""
    try:
        with open_file(path) as file:
            stream = JsonStream(file)
            for article in _each(stream, "data", str(path), {}, problems):
                yield from _article(stream, path, f"data[{article}]", problems)
            stream.end()
    except NotJsonError as error:
        problems.add(f"{path}:{error.line}", str(error), error.kind, hides=True)
    except DAMAGED as error:
        problems.add(str(path), damaged(error), "damaged-file", hides=True)


def _article(stream: JsonStream, path: Path, place: str, problems: Problems) -> Iterator[Row]:
    about: dict[str, Any] = {}
    untitled: list[tuple[str, Any]] = []
    for number in _each(stream, "paragraphs", f"{path}:{stream.line}: {place}", about, problems):
        where = f"{path}:{stream.line}: {place}.paragraphs[{number}]"
        if "title" in about:
            yield from _questions(stream.value(), where, about, problems)
        else:
            untitled.append((where, stream.value()))
    for where, paragraph in untitled:
        yield from _questions(paragraph, where, about, problems)


def _each(
    stream: JsonStream, name: str, place: str, about: dict[str, Any], problems: Problems
) -> Iterator[int]:
    """The number of each item of a mapping's list `name`, to be read before the next; the rest goes to `about`."""
    if stream.peek() != "{":
        check(stream.value(), place, {name: list}, problems, hides=True)
        return
    listed = False
    for key in stream.members():
        if key == name and stream.peek() == "[":
            listed = True
            yield from stream.items()
        else:
            about[key] = stream.value()
    if not listed:
        check(about, place, {name: list}, problems, hides=True)


def _questions(
    paragraph: Any, place: str, about: dict[str, Any], problems: Problems
) -> Iterator[Row]:
    if not check(paragraph, place, {"context": str, "qas": list}, problems, hides=True):
        return
    shared = {"title": str(about["title"])} if "title" in about else {}
    for q, qa in enumerate(paragraph["qas"]):
        where = f"{place}.qas[{q}]"
        if not check(qa, where, {"id": str, "question": str, "answers": list}, problems):
            continue
        row: Row = {
            "where": f"{where} ({qa['id']})",
            "id": qa["id"],
            "question": qa["question"],
            "context": paragraph["context"],
            "answers": qa["answers"],
            **shared,
        }
        if bool(qa["answers"]) == bool(qa.get("is_impossible", False)):
            found = (
                "answers although is_impossible is true"
                if qa["answers"]
                else "no answer, and is_impossible is not true"
            )
            problems.add(
                row["where"], f"the question has {found}; correct one of them", "missing-answers"
            )
        elif check_answers(row["answers"], row["where"], problems):
            yield row

"""The nested JSON of SQuAD 1.1 and 2.0: data -> articles -> paragraphs -> questions.

These files often have a single line, so `where` is file:line, the path in the JSON, and the
question's id. Memory holds one paragraph, or one article if its title comes after its paragraphs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.data.readers.base import READ_ERRORS, damaged_message, open_file
from pipeline.data.readers.json_stream import JsonStream, NotJsonError
from pipeline.data.readers.json_values import check, check_answers
from pipeline.errors import Problems
from pipeline.tasks.base.row import Row


@dataclass(frozen=True)
class Options:
    """The format has no options: 2.0 has `is_impossible`, 1.1 does not."""


def read(path: Path, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `id`, `title`, `question`, `context` and `answers`.

    `plausible_answers` are ignored, because they are not answers.
    """
    try:
        with open_file(path) as file:
            stream = JsonStream(file)
            for article in _items(stream, "data", str(path), {}, problems):
                yield from _article(stream, path, f"data[{article}]", problems)
            stream.end()
    except NotJsonError as error:
        problems.add(f"{path}:{error.line}", str(error), error.kind, hides=True)
    except READ_ERRORS as error:
        problems.add(str(path), damaged_message(error), "damaged-file", hides=True)


def _article(stream: JsonStream, path: Path, json_path: str, problems: Problems) -> Iterator[Row]:
    article: dict[str, Any] = {}
    untitled: list[tuple[str, Any]] = []
    article_where = f"{path}:{stream.line}: {json_path}"
    for number in _items(stream, "paragraphs", article_where, article, problems):
        where = f"{path}:{stream.line}: {json_path}.paragraphs[{number}]"
        if "title" in article:
            yield from _questions(stream.value(), where, article, problems)
        else:
            untitled.append((where, stream.value()))
    for where, paragraph in untitled:
        yield from _questions(paragraph, where, article, problems)


def _items(
    stream: JsonStream, name: str, where: str, mapping: dict[str, Any], problems: Problems
) -> Iterator[int]:
    """Iterate over the list `name` of a mapping: the number of each item, as `JsonStream.items`.

    All other members of the mapping are stored in `mapping`.
    """
    if stream.peek() != "{":
        check(stream.value(), where, {name: list}, problems, hides=True)
        return
    has_list = False
    for key in stream.members():
        if key == name and stream.peek() == "[":
            has_list = True
            yield from stream.items()
        else:
            mapping[key] = stream.value()
    if not has_list:
        check(mapping, where, {name: list}, problems, hides=True)


def _questions(
    paragraph: Any, paragraph_where: str, article: dict[str, Any], problems: Problems
) -> Iterator[Row]:
    keys = {"context": str, "qas": list}
    if not check(paragraph, paragraph_where, keys, problems, hides=True):
        return
    title = {"title": str(article["title"])} if "title" in article else {}
    for q, qa in enumerate(paragraph["qas"]):
        where = f"{paragraph_where}.qas[{q}]"
        if not check(qa, where, {"id": str, "question": str, "answers": list}, problems):
            continue
        row: Row = {
            "where": f"{where} ({qa['id']})",
            "id": qa["id"],
            "question": qa["question"],
            "context": paragraph["context"],
            "answers": qa["answers"],
            **title,
        }
        if bool(qa["answers"]) == bool(qa.get("is_impossible", False)):
            conflict = (
                "answers although is_impossible is true"
                if qa["answers"]
                else "no answer, and is_impossible is not true"
            )
            problems.add(
                row["where"], f"the question has {conflict}; correct one of them", "missing-answers"
            )
        elif check_answers(row["answers"], row["where"], problems):
            yield row

"""The nested JSON of SQuAD 1.1 and 2.0: data -> articles -> paragraphs -> questions.

These files often have a single line, so `where` is file:line, the path in the JSON, and the
question's id. Memory holds one paragraph, or one article if its title comes after its paragraphs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.data.readers.base import READ_ERRORS, damaged_message, open_text
from pipeline.data.readers.json_stream import JsonStream, NotJsonError
from pipeline.data.readers.json_values import check, check_answers, id_of
from pipeline.data.readers.offset_units import convert_offsets
from pipeline.errors import Problems, describe
from pipeline.tasks.base.row import Row
from pipeline.tasks.shared.offsets import OffsetUnit


@dataclass(frozen=True)
class Options:
    """`offsets` is the unit of `answer_start`. 2.0 has `is_impossible`, 1.1 does not."""

    offsets: OffsetUnit = "characters"


class _Paragraph(NamedTuple):
    """A paragraph's position, its members, and its questions with their positions.

    `qas` of the members is empty.
    """

    where: str
    members: dict[str, Any]
    questions: list[tuple[str, Any]]


def read(path: Path, options: Options, problems: Problems) -> Iterator[Row]:
    """Rows of `id`, `title`, `question`, `context` and `answers`.

    Questions without an id have none in their row, articles without a title none in their rows.
    `plausible_answers` are ignored, because they are not answers.
    """
    try:
        with open_text(path) as file:
            stream = JsonStream(file)
            for article in _items(stream, "data", str(path), {}, problems):
                for row in _article(stream, path, f"data[{article}]", problems):
                    with problems.in_one_row():
                        is_valid = convert_offsets(row, options.offsets, problems)
                    if is_valid:
                        yield row
            stream.end()
    except NotJsonError as error:
        problems.add(f"{path}:{error.line}", str(error), error.kind, hides=True)
    except READ_ERRORS as error:
        problems.add(str(path), damaged_message(error), "damaged-file", hides=True)


def _article(stream: JsonStream, path: Path, json_path: str, problems: Problems) -> Iterator[Row]:
    article: dict[str, Any] = {}
    untitled: list[_Paragraph] = []
    article_where = f"{path}:{stream.line}: {json_path}"
    for number in _items(stream, "paragraphs", article_where, article, problems):
        paragraph = _paragraph(stream, path, f"{json_path}.paragraphs[{number}]", problems)
        if paragraph is None:
            continue
        if "title" in article:
            yield from _questions(paragraph, article, problems)
        else:
            untitled.append(paragraph)
    for paragraph in untitled:
        yield from _questions(paragraph, article, problems)


def _paragraph(
    stream: JsonStream, path: Path, json_path: str, problems: Problems
) -> _Paragraph | None:
    """The next paragraph; adds a problem and returns None if it is not a mapping."""
    where = f"{path}:{stream.line}: {json_path}"
    if stream.peek() != "{":
        check(stream.value(), where, {}, problems, hides=True)
        return None
    members: dict[str, Any] = {}
    questions = [
        (f"{path}:{stream.line}: {json_path}.qas[{q}]", stream.value())
        for q in _items(stream, "qas", where, members, problems)
    ]
    return _Paragraph(where, members, questions)


def _items(
    stream: JsonStream, name: str, where: str, mapping: dict[str, Any], problems: Problems
) -> Iterator[int]:
    """Iterate over the list `name` of a mapping: the number of each item, as `JsonStream.items`.

    All other members of the mapping are stored in `mapping`, and the list as an empty one.
    """
    if stream.peek() != "{":
        check(stream.value(), where, {name: list}, problems, hides=True)
        return
    has_list = False
    for key in stream.members():
        if key == name and stream.peek() == "[":
            has_list, mapping[name] = True, []  # a key, for messages
            yield from stream.items()
        else:
            mapping[key] = stream.value()
    if not has_list and {"question", "context"} <= mapping.keys():
        problems.add(
            where,
            "the item is one question, not an article with paragraphs; read the file with "
            "reader: records and the options fields: {id, context, question, answers}",
            "missing-key",
            hides=True,
        )
    elif not has_list:
        check(mapping, where, {name: list}, problems, hides=True)


def _questions(paragraph: _Paragraph, article: dict[str, Any], problems: Problems) -> Iterator[Row]:
    title = _title(article, paragraph.where, problems)
    has_context = check(paragraph.members, paragraph.where, {"context": str}, problems, hides=True)
    for where, qa in paragraph.questions:
        with problems.in_one_row():
            row = _question(qa, where, problems)
        if row is not None and has_context and title is not None:
            yield row | {"context": paragraph.members["context"]} | title


def _title(article: dict[str, Any], where: str, problems: Problems) -> dict[str, str] | None:
    """The title as a key of a row, none if it is null; adds a problem for another type."""
    title = article.get("title")
    if title is None:
        return {}
    if isinstance(title, str | int) and not isinstance(title, bool):
        return {"title": str(title)}
    problems.add(
        where,
        f"title: found {describe(title)}, expected text; correct it, "
        "or remove the title to split by context",
        "wrong-type",
        hides=True,
    )
    return None


def _question(qa: Any, where: str, problems: Problems) -> Row | None:
    """The row of a question without its context; adds all problems and returns None if invalid."""
    if not check(qa, where, {}, problems):
        return None
    before = len(problems)
    id_key = id_of(qa, "id", where, problems)
    check(qa, where, {"question": str, "answers": list}, problems)
    if id_key:
        where += f" ({id_key['id']})"
    impossible, answers = qa.get("is_impossible"), qa.get("answers")
    if not isinstance(impossible, bool | None):
        problems.add(
            where,
            f"is_impossible: found {describe(impossible)}, "
            "expected true or false; write it without quotes",
            "wrong-type",
        )
    elif isinstance(answers, list) and bool(answers) == bool(impossible):
        conflict = (
            "answers although is_impossible is true"
            if answers
            else "no answer, and is_impossible is not true"
        )
        problems.add(where, f"the question has {conflict}; correct one of them", "missing-answers")
    if isinstance(answers, list):
        check_answers(answers, where, problems)
    if len(problems) > before:
        return None
    return {"where": where, **id_key, "question": qa["question"], "answers": answers}

"""Rows written in a format, with any compression and line ending, are read back unchanged."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.data.readers.tags import SCHEMES, Scheme
from pipeline.tasks.base.row import Row
from tests.support.raw import EXTENSIONS, compress, read, without_where
from tests.support.tags import SPANS, Spans, to_tags

SETTINGS = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# Only \n, \r\n, tabs and spaces separate: U+0085, U+2028 and no-break spaces are text.
WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n"), min_size=1, max_size=6
).filter(lambda word: word.strip() and not word.startswith(("-DOCSTART-", "#", "\ufeff")))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FILES = st.tuples(
    st.sampled_from(EXTENSIONS), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans()
)


def as_file(lines: list[str], form: tuple[str, str, bool, bool]) -> bytes:
    """The content of a file.

    `form` is its extension, its line ending, whether it begins with a byte order mark, and whether
    its last line has a line ending.
    """
    extension, newline, mark, final_newline = form
    text = newline.join(lines) + (newline if final_newline else "")
    return compress(text.encode("utf-8-sig" if mark else "utf-8"), extension)


def sentence(draw: st.DrawFn) -> tuple[list[str], Spans]:
    spans = draw(SPANS)
    return draw(st.lists(WORDS, min_size=spans[0], max_size=spans[0])), spans


SENTENCES = st.lists(st.composite(sentence)(), max_size=4)


def to_rows(sentences: list[tuple[list[str], Spans]]) -> list[Row]:
    return [{"tokens": tokens, "tags": to_tags(spans, "iob2")} for tokens, spans in sentences]


@SETTINGS
@given(
    SENTENCES,
    st.sampled_from(SCHEMES),
    st.permutations(range(3)),
    st.sampled_from(["\t", " "]),
    FILES,
    st.booleans(),
)
def test_columns_are_read_back(
    tmp_path: Path,
    sentences: list[tuple[list[str], Spans]],
    scheme: Scheme,
    order: list[int],
    separator: str,
    form: tuple[str, str, bool, bool],
    auto: bool,
) -> None:
    """The columns have any order; `auto` detects their number, the scheme and the separator."""
    lines = []
    for tokens, spans in sentences:
        for token, tag in zip(tokens, to_tags(spans, scheme), strict=True):
            lines.append(separator.join([token, tag, "x"][column] for column in order))
        lines.append("")
    layout = {"columns": 3, "tag_scheme": scheme, "separator": separator}
    options = {"token": order.index(0), "tag": order.index(1)} | (
        dict.fromkeys(layout, "auto") if auto else layout
    )
    rows, problems = read("conll_columns", as_file(lines, form), tmp_path, options)
    assert (without_where(rows), problems) == (to_rows(sentences), [])


@SETTINGS
@given(SENTENCES, FILES)
def test_conllu_is_read_back(
    tmp_path: Path, sentences: list[tuple[list[str], Spans]], form: tuple[str, str, bool, bool]
) -> None:
    lines = []
    for tokens, spans in sentences:
        lines += ["# a comment", "1-2\tab" + "\t_" * 7 + "\tNER=B-X"]
        for number, (token, tag) in enumerate(zip(tokens, to_tags(spans, "bioes"), strict=True), 1):
            feature = "Gloss=b" if tag == "O" else f"Gloss=b|NER={tag}"
            lines += [
                "\t".join([str(number), token, *["_"] * 7, feature]),
                f"{number}.1\tc" + "\t_" * 8,
            ]
        lines.append("")
    options = {
        "columns": 10,
        "token": 1,
        "tag": 9,
        "feature": "NER",
        "tag_scheme": "bioes",
        "separator": "\t",
        "comment": "#",
        "token_id": 0,
    }
    rows, problems = read("conll_columns", as_file(lines, form), tmp_path, options)
    assert (without_where(rows), problems) == (to_rows(sentences), [])


@st.composite
def propositions(draw: st.DrawFn) -> tuple[list[str], list[tuple[int, Spans]]]:
    """A sentence, and for some of its predicates the position of V and the spans of all roles."""
    tokens = draw(st.lists(WORDS, min_size=1, max_size=5))
    predicates = []
    for verb in draw(st.lists(st.integers(0, len(tokens) - 1), max_size=3, unique=True)):
        starts = [start for start in range(len(tokens)) if start != verb and draw(st.booleans())]
        roles = [draw(st.sampled_from(["A0", "AM-TMP"])) for _ in starts]
        spans = [(start, start + 1, role) for start, role in zip(starts, roles, strict=True)]
        spans.append((verb, verb + 1, "V"))
        predicates.append((verb, (len(tokens), sorted(spans))))
    return tokens, sorted(predicates)


@SETTINGS
@given(st.lists(propositions(), max_size=3), FILES, st.booleans())
def test_props_are_read_back(
    tmp_path: Path,
    sentences: list[tuple[list[str], list[tuple[int, Spans]]]],
    form: tuple[str, str, bool, bool],
    two_files: bool,
) -> None:
    """Words and props are in one file, as in CoNLL-2012, or in two, as in CoNLL-2005."""
    words, props, expected = [], [], []
    for tokens, predicates in sentences:
        columns = [to_tags(spans, "brackets") for _, spans in predicates]
        verbs = {verb for verb, _ in predicates}
        for position, token in enumerate(tokens):
            words.append(f"{token}\tNN")
            mark = "be" if position in verbs else "-"
            props.append("\t".join([mark, *(column[position] for column in columns)]))
        words.append("")
        props.append("")
        expected += [
            {"tokens": tokens, "predicate": verb, "tags": to_tags(spans, "iob2")}
            for verb, spans in predicates
        ]
    options: dict[str, Any] = {"token": 0, "marks": 2, "first_predicate": 3, "separator": "\t"}
    lines = [f"{word}\t{prop}" if word else "" for word, prop in zip(words, props, strict=True)]
    if two_files:
        (tmp_path / "a.words").write_bytes(as_file(words, form))
        lines, options = props, options | {"words": {"props": "words"}}
    rows, problems = read("conll_props", as_file(lines, form), tmp_path, options, "a.props")
    assert (without_where(rows), problems) == (expected, [])


@st.composite
def questions(draw: st.DrawFn) -> Row:
    context = draw(TEXTS.filter(bool))
    spans = draw(
        st.lists(st.tuples(st.integers(0, len(context) - 1), st.integers(1, 5)), max_size=2)
    )
    return {
        "context": context,
        "question": draw(TEXTS),
        "answers": [
            {"text": context[start : start + length], "answer_start": start}
            for start, length in spans
        ],
    }


QUESTIONS = st.lists(questions(), max_size=4).map(
    lambda rows: [{"id": str(number), **row} for number, row in enumerate(rows)]
)


@SETTINGS
@given(QUESTIONS, FILES, st.sampled_from([None, 1]), st.booleans())
def test_squad_is_read_back(
    tmp_path: Path,
    rows: list[Row],
    form: tuple[str, str, bool, bool],
    indent: int | None,
    ascii: bool,
) -> None:
    articles = []
    for row in rows:
        qa = {key: row[key] for key in ("id", "question", "answers")}
        qa["is_impossible"] = not row["answers"]
        paragraphs = [{"context": row["context"], "qas": [qa]}]
        articles.append({"title": f"T{row['id']}", "paragraphs": paragraphs})
    text = json.dumps({"version": "v2.0", "data": articles}, indent=indent, ensure_ascii=ascii)
    result, problems = read("squad_json", as_file(text.split("\n"), form), tmp_path)
    expected = [row | {"title": f"T{row['id']}"} for row in rows]
    assert (without_where(result), problems) == (expected, [])


@SETTINGS
@given(QUESTIONS, FILES)
def test_mrqa_is_read_back(
    tmp_path: Path, rows: list[Row], form: tuple[str, str, bool, bool]
) -> None:
    lines, expected = ['{"header": {"dataset": "ours"}}'], []
    for row in rows:
        answers: list[dict[str, Any]] = []
        for answer in row["answers"]:
            if answer not in answers:
                answers.append(answer)
        if not answers:
            continue
        qa = {
            "qid": row["id"],
            "question": row["question"],
            "answers": ["x"],
            "detected_answers": [mrqa_answer(**answer) for answer in answers],
        }
        lines.append(json.dumps({"context": row["context"], "qas": [qa]}))
        expected.append(row | {"answers": answers})
    result, problems = read("mrqa_jsonl", as_file(lines, form), tmp_path)
    assert (without_where(result), problems) == (expected, [])


def mrqa_answer(text: str, answer_start: int) -> dict[str, Any]:
    return {"text": text, "char_spans": [[answer_start, answer_start + len(text) - 1]]}


LABELED_TEXTS = st.lists(st.fixed_dictionaries({"text": TEXTS, "label": TEXTS}), max_size=4)
CHOICES = st.lists(
    st.fixed_dictionaries(
        {
            "context": TEXTS,
            "question": TEXTS,
            "choices": st.lists(TEXTS, max_size=3),
            "answers": st.lists(TEXTS, max_size=3),
        }
    ),
    max_size=3,
)
PREDICATES = st.lists(propositions().filter(lambda sentence: bool(sentence[1])), max_size=3).map(
    lambda sentences: [
        {"tokens": tokens, "predicate": verb, "tags": to_tags(spans, "iob2")}
        for tokens, [(verb, spans), *_] in sentences
    ]
)


def as_table(rows: list[Row], names: list[str], delimiter: str) -> str:
    file = io.StringIO(newline="")
    values = [value for row in rows for value in row.values()]
    has_carriage_returns = any("\r" in value for value in values if isinstance(value, str))
    # QUOTE_MINIMAL writes \r without quotes, but the reader takes it for the end of a line.
    quoting = csv.QUOTE_ALL if has_carriage_returns else csv.QUOTE_MINIMAL
    writer = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=quoting)
    writer.writerow(names)
    for row in rows:
        writer.writerow(
            [
                row[name] if isinstance(row[name], str | int) else json.dumps(row[name])
                for name in names
            ]
        )
    return file.getvalue()


def as_parquet(rows: list[Row]) -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), file, row_group_size=2)
    return file.getvalue()


@SETTINGS
@given(
    st.one_of(LABELED_TEXTS, CHOICES, QUESTIONS, PREDICATES, SENTENCES.map(to_rows)),
    FILES,
    st.randoms(),
)
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_records_are_read_back(
    tmp_path: Path, kind: str, rows: list[Row], form: tuple[str, str, bool, bool], random: Any
) -> None:
    """Rows of every task, in every format. A table keeps line breaks within cells."""
    names = list(rows[0]) if rows else ["text", "label"]
    random.shuffle(names)
    if kind == "jsonl":
        content = as_file([json.dumps(row, ensure_ascii=False) for row in rows], form)
    elif kind == "parquet":
        if not rows:
            return
        content = compress(as_parquet(rows), form[0])
    else:
        content = as_file(
            [as_table(rows, names, "," if kind == "csv" else "\t").removesuffix("\n")], form
        )
    options = {"fields": dict.fromkeys(names), **({"quote": "double"} if kind == "tsv" else {})}
    result, problems = read("records", content, tmp_path, options, f"corpus.{kind}{form[0]}")
    assert (without_where(result), problems) == (rows, [])

"""Rows written in a format, under any compression and line end, are read back equal."""

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
from tests.support.raw import ENDINGS, content_of, packed, read
from tests.support.tags import SPANS, Spans, written

FEW = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
# No character ends a line or a column but those that do: U+0085, U+2028 and no-break spaces are text like any other.
WORDS = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters=" \t\r\n"), min_size=1, max_size=6
).filter(lambda word: word.strip() and not word.startswith(("-DOCSTART-", "#", "\ufeff")))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
FILES = st.tuples(
    st.sampled_from(ENDINGS), st.sampled_from(["\n", "\r\n"]), st.booleans(), st.booleans()
)


def as_file(lines: list[str], form: tuple[str, str, bool, bool]) -> bytes:
    """Lines with ends, perhaps not the last, perhaps behind a byte order mark, compressed."""
    ending, newline, mark, last = form
    text = newline.join(lines) + (newline if last else "")
    return packed(text.encode("utf-8-sig" if mark else "utf-8"), ending)


def sentence(draw: st.DrawFn) -> tuple[list[str], Spans]:
    spans = draw(SPANS)
    return draw(st.lists(WORDS, min_size=spans[0], max_size=spans[0])), spans


SENTENCES = st.lists(st.composite(sentence)(), max_size=4)


def tagged(sentences: list[tuple[list[str], Spans]]) -> list[Row]:
    return [{"tokens": tokens, "tags": written(spans, "iob2")} for tokens, spans in sentences]


@FEW
@given(
    SENTENCES,
    st.sampled_from(SCHEMES),
    st.permutations(range(3)),
    st.sampled_from(["\t", " "]),
    FILES,
    st.booleans(),
)
def test_columns(
    tmp_path: Path,
    sentences: list[tuple[list[str], Spans]],
    scheme: Scheme,
    order: list[int],
    separator: str,
    form: tuple[str, str, bool, bool],
    auto: bool,
) -> None:
    """Columns in any order; what can be found out is said, or found out."""
    lines = []
    for tokens, spans in sentences:
        for token, tag in zip(tokens, written(spans, scheme), strict=True):
            lines.append(separator.join([token, tag, "x"][column] for column in order))
        lines.append("")
    said = {"columns": 3, "tag_scheme": scheme, "separator": separator}
    options = {"token": order.index(0), "tag": order.index(1)} | (
        dict.fromkeys(said, "auto") if auto else said
    )
    rows, problems = read("conll_columns", as_file(lines, form), tmp_path, options)
    assert (content_of(rows), problems) == (tagged(sentences), [])


@FEW
@given(SENTENCES, FILES)
def test_conllu(
    tmp_path: Path, sentences: list[tuple[list[str], Spans]], form: tuple[str, str, bool, bool]
) -> None:
    lines = []
    for tokens, spans in sentences:
        lines += ["# a comment", "1-2\tab" + "\t_" * 7 + "\tNER=B-X"]
        for number, (token, tag) in enumerate(zip(tokens, written(spans, "bioes"), strict=True), 1):
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
    assert (content_of(rows), problems) == (tagged(sentences), [])


@st.composite
def propositions(draw: st.DrawFn) -> tuple[list[str], list[tuple[int, Spans]]]:
    """A sentence, and for each of some of its predicates where its V is and its arguments, none there."""
    tokens = draw(st.lists(WORDS, min_size=1, max_size=5))
    found = []
    for verb in draw(st.lists(st.integers(0, len(tokens) - 1), max_size=3, unique=True)):
        starts = [at for at in range(len(tokens)) if at != verb and draw(st.booleans())]
        spans = [
            *((at, at + 1, draw(st.sampled_from(["A0", "AM-TMP"]))) for at in starts),
            (verb, verb + 1, "V"),
        ]
        found.append((verb, (len(tokens), sorted(spans))))
    return tokens, sorted(found)


@FEW
@given(st.lists(propositions(), max_size=3), FILES, st.booleans())
def test_props(
    tmp_path: Path,
    sentences: list[tuple[list[str], list[tuple[int, Spans]]]],
    form: tuple[str, str, bool, bool],
    apart: bool,
) -> None:
    """Words and props in one file, as CoNLL-2012 has them, or in two, as CoNLL-2005 has them."""
    words, props, expected = [], [], []
    for tokens, predicates in sentences:
        columns = [written(spans, "brackets") for _, spans in predicates]
        verbs = {verb for verb, _ in predicates}
        for at, token in enumerate(tokens):
            words.append(f"{token}\tNN")
            props.append(
                "\t".join(["be" if at in verbs else "-", *(column[at] for column in columns)])
            )
        words.append("")
        props.append("")
        expected += [
            {"tokens": tokens, "predicate": verb, "tags": written(spans, "iob2")}
            for verb, spans in predicates
        ]
    options: dict[str, Any] = {"token": 0, "marks": 2, "first_predicate": 3, "separator": "\t"}
    lines = [f"{word}\t{prop}" if word else "" for word, prop in zip(words, props, strict=True)]
    if apart:
        (tmp_path / "a.words").write_bytes(as_file(words, form))
        lines, options = props, options | {"words": {"props": "words"}}
    rows, problems = read("conll_props", as_file(lines, form), tmp_path, options, "a.props")
    assert (content_of(rows), problems) == (expected, [])


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


@FEW
@given(QUESTIONS, FILES, st.sampled_from([None, 1]), st.booleans())
def test_squad(
    tmp_path: Path,
    rows: list[Row],
    form: tuple[str, str, bool, bool],
    indent: int | None,
    ascii: bool,
) -> None:
    articles = [
        {
            "title": f"T{row['id']}",
            "paragraphs": [
                {
                    "context": row["context"],
                    "qas": [
                        {
                            "id": row["id"],
                            "question": row["question"],
                            "answers": row["answers"],
                            "is_impossible": not row["answers"],
                        }
                    ],
                }
            ],
        }
        for row in rows
    ]
    lines = json.dumps(
        {"version": "v2.0", "data": articles}, indent=indent, ensure_ascii=ascii
    ).split("\n")
    found, problems = read("squad_json", as_file(lines, form), tmp_path)
    assert (content_of(found), problems) == ([row | {"title": f"T{row['id']}"} for row in rows], [])


@FEW
@given(QUESTIONS, FILES)
def test_mrqa(tmp_path: Path, rows: list[Row], form: tuple[str, str, bool, bool]) -> None:
    rows = [
        row
        | {
            "answers": [
                dict(pair)
                for pair in dict.fromkeys(tuple(answer.items()) for answer in row["answers"])
            ]
        }
        for row in rows
        if row["answers"]
    ]
    lines = [
        '{"header": {"dataset": "ours"}}',
        *(
            json.dumps(
                {
                    "context": row["context"],
                    "qas": [
                        {
                            "qid": row["id"],
                            "question": row["question"],
                            "answers": ["x"],
                            "detected_answers": [
                                {
                                    "text": answer["text"],
                                    "char_spans": [
                                        [
                                            answer["answer_start"],
                                            answer["answer_start"] + len(answer["text"]) - 1,
                                        ]
                                    ],
                                }
                                for answer in row["answers"]
                            ],
                        }
                    ],
                }
            )
            for row in rows
        ),
    ]
    found, problems = read("mrqa_jsonl", as_file(lines, form), tmp_path)
    assert (content_of(found), problems) == (rows, [])


LABELED = st.lists(st.fixed_dictionaries({"text": TEXTS, "label": TEXTS}), max_size=4)
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
PREDICATES = st.lists(propositions().filter(lambda found: bool(found[1])), max_size=3).map(
    lambda found: [
        {"tokens": tokens, "predicate": verb, "tags": written(spans, "iob2")}
        for tokens, [(verb, spans), *_] in found
    ]
)


def as_table(rows: list[Row], names: list[str], delimiter: str) -> str:
    file = io.StringIO(newline="")
    carriage_returns = any(
        "\r" in value for row in rows for value in row.values() if isinstance(value, str)
    )
    quoting = (
        csv.QUOTE_ALL if carriage_returns else csv.QUOTE_MINIMAL
    )  # which would write an open one, as if the line ended
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


@FEW
@given(
    st.one_of(LABELED, CHOICES, QUESTIONS, PREDICATES, SENTENCES.map(tagged)), FILES, st.randoms()
)
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv", "parquet"])
def test_records(
    tmp_path: Path, kind: str, rows: list[Row], form: tuple[str, str, bool, bool], random: Any
) -> None:
    """Rows of every task in every format. In a table, a line end within a cell stays what it is."""
    names = list(rows[0]) if rows else ["text", "label"]
    random.shuffle(names)
    if kind == "jsonl":
        content = as_file([json.dumps(row, ensure_ascii=False) for row in rows], form)
    elif kind == "parquet":
        if not rows:
            return
        content = packed(as_parquet(rows), form[0])
    else:
        content = as_file(
            [as_table(rows, names, "," if kind == "csv" else "\t").removesuffix("\n")], form
        )
    options = {"fields": dict.fromkeys(names), **({"quote": "double"} if kind == "tsv" else {})}
    found, problems = read("records", content, tmp_path, options, f"corpus.{kind}{form[0]}")
    assert (content_of(found), problems) == (rows, [])

"""Tokens with spans of tokens."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import parse
from pipeline.data.readers import READERS
from pipeline.errors import Problems, UserError
from tests.support.exports import json_lines, parquet
from tests.support.raw import read, without_where
from tests.support.tags import SPANS, Spans, to_tags

RECORD = {
    "tokens": ["Ada", "Lee", "left", "Bonn"],
    "entities": [{"type": "Peop", "start": 0, "end": 2}, {"type": "Loc", "start": 3, "end": 4}],
    "relations": [{"type": "Live_In", "head": 0, "tail": 1}],
    "orig_id": 5178,
}
TAGS = ["B-Peop", "I-Peop", "O", "B-Loc"]


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(SPANS, min_size=1, max_size=4),
    st.sampled_from(["exclusive", "inclusive"]),
    st.booleans(),
)
def test_spans_are_read_back(
    tmp_path: Path, sentences: list[Spans], end: str, in_one_list: bool
) -> None:
    shift = end == "inclusive"
    records = [
        {
            "tokens": [f"w{n}" for n in range(length)],
            "entities": [
                {"type": label, "start": start, "end": stop - shift} for start, stop, label in spans
            ],
        }
        for length, spans in sentences
    ]
    content = json.dumps(records).encode() if in_one_list else json_lines(records)
    rows, problems = read("token_spans", content, tmp_path, {"end": end}, "a.json")
    assert problems == []
    assert without_where(rows) == [
        {"tokens": record["tokens"], "tags": to_tags(sentence, "iob2")}
        for record, sentence in zip(records, sentences, strict=True)
    ]


def test_spert_and_gliner(tmp_path: Path) -> None:
    options: dict[str, Any] = {"fields": {"id": "orig_id"}, "names": {"Loc": "LOC"}}
    for name, content in (("a.json", json.dumps([RECORD])), ("a.parquet", parquet([RECORD]))):
        rows, problems = read("token_spans", content, tmp_path, options, name)
        assert problems == []
        assert without_where(rows) == [
            {"tokens": RECORD["tokens"], "tags": [*TAGS[:3], "B-LOC"], "id": "5178"}
        ]
    record = {"tokenized_text": RECORD["tokens"], "ner": [[0, 1, "Peop"], [3, 3, "Loc"]]}
    options = {"fields": {"tokens": "tokenized_text", "spans": "ner"}, "end": "inclusive"}
    rows, problems = read("token_spans", json_lines([record]), tmp_path, options, "a.jsonl")
    assert problems == []
    assert [row["tags"] for row in rows] == [TAGS]


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"tokens": None}, "tokens: found nothing, expected a list of texts"),
        ({"tokens": ["a", 1]}, "tokens: found a list"),
        ({"entities": "x"}, "entities: found text 'x', expected a list of spans"),
        ({"entities": [{"start": 0, "end": 1}]}, "spans[0]: found a mapping"),
        (
            {"entities": [[3, 5, "X"]]},
            "at 3 to 5 is not a span of the 4 tokens; correct it, or end",
        ),
        ({"entities": [[1, 1, "X"]]}, "at 1 to 1 is not a span of the 4 tokens"),
        ({"entities": [[-1, 1, "X"]]}, "at -1 to 1 is not a span of the 4 tokens"),
        (
            {"entities": [[0, 2, "X"], [1, 3, "Y"]]},
            "spans[1]: Y 'Lee left' at 1 to 3 overlaps spans",
        ),
    ],
)
def test_invalid_record(changes: dict[str, Any], part: str, tmp_path: Path) -> None:
    rows, problems = read("token_spans", json_lines([RECORD | changes]), tmp_path, {}, "a.jsonl")
    assert (rows, len(problems)) == ([], 1)
    assert part in problems[0]
    assert problems[0].startswith("a.jsonl:1: ")


def test_missing_keys_are_named(tmp_path: Path) -> None:
    _, problems = read("token_spans", json_lines([{"words": []}]), tmp_path, {}, "a.jsonl")
    assert [message.split(";")[0] for message in problems] == [
        "a.jsonl:1: key 'tokens' is missing",
        "a.jsonl:1: key 'entities' is missing",
    ]
    with pytest.raises(UserError, match="fields: 'entities' is not one of its keys"):
        parse(READERS["token_spans"].options, {"fields": {"entities": None}}, "r")


def test_nested_spans(tmp_path: Path) -> None:
    record = RECORD | {"entities": [[0, 4, "X"], [1, 2, "Y"]]}
    expected = {
        "drop": ["B-X", "I-X", "I-X", "I-X"],
        "trim": ["B-X", "I-X", "I-X", "I-X"],
        "split": ["B-X", "B-Y", "B-X", "I-X"],
    }
    for on_overlap, tags in expected.items():
        options = {"on_overlap": on_overlap}
        rows, problems = read("token_spans", json_lines([record]), tmp_path, options, "a.jsonl")
        assert ([row["tags"] for row in rows], problems) == ([tags], [])


def test_names_without_a_label_are_a_warning(tmp_path: Path) -> None:
    reader = READERS["token_spans"]
    options = parse(reader.options, {"names": {"Loc": "LOC", "Org": "ORG"}}, "r")
    path = tmp_path / "a.jsonl"
    path.write_bytes(json_lines([RECORD]))
    problems = Problems()
    list(reader.read(path, options, problems))
    reader.check_options(options, "ours.yaml", problems)
    assert [problem.message for problem in problems.kept] == [
        "names: no label is 'Org'; correct the names, or remove them"
    ]
    assert reader.chunk_boundary(path, options) == "lines"

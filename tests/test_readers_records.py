"""A user's JSON lines: what is read under which mapping, and what is refused with its line, key, value and remedy."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config import parse
from pipeline.errors import Problems, UserError
from pipeline.readers import READERS
from pipeline.readers.base import Row
from pipeline.readers.records import Options, keys


def read(text: str, folder: Path, options: dict[str, Any] | None = None) -> tuple[list[Row], list[str]]:
    """The rows of a file with this text, and its problems without the folder's name."""
    path = folder / "corpus.jsonl"
    path.write_text(text, encoding="utf-8")
    problems = Problems()
    rows = list(READERS["records"].read(path, parse(Options, options or {}, "recipe"), problems))
    try:
        problems.raise_if_any()
    except UserError as error:
        return rows, [problem.replace(f"{path}", "corpus") for problem in error.problems]
    return rows, []


def test_text_and_label_without_options(tmp_path: Path) -> None:
    lines = ['{"text": "Good.", "label": "yes", "more": 1}', "", '{"text": "Bad.", "label": 0}', '{"text": "", "label": false}']
    rows, problems = read("\n".join(lines), tmp_path)
    assert not problems
    assert [(row["text"], row["label"]) for row in rows] == [("Good.", "yes"), ("Bad.", "0"), ("", "false")]
    assert rows[1] == {"where": f"{tmp_path / 'corpus.jsonl'}:3", "text": "Bad.", "label": "0"}


def test_nested_keys_and_names(tmp_path: Path) -> None:
    line = json.dumps({"passage": {"text": "It rains.", "n": 3}, "claim": "It is wet.", "gold": {"value": True}, "uid": 12})
    fields = {"id": "uid", "text": "passage.text", "text_pair": "claim", "label": "gold.value", "question": "passage.n"}
    rows, problems = read(line, tmp_path, {"fields": fields, "names": {"true": "follows", "false": "does not"}})
    assert not problems
    assert rows == [{"where": f"{tmp_path / 'corpus.jsonl'}:1", "id": "12", "text": "It rains.", "text_pair": "It is wet.",
                     "label": "follows", "question": "3"}]


@pytest.mark.parametrize(("value", "names", "label"), [
    (True, {"true": "yes"}, "yes"), (True, {True: "yes"}, "yes"), (False, {"true": "yes"}, "false"),
    ("True", {"true": "y"}, "True"),
    (1, {1: "one"}, "one"), (1, {"1": "one"}, "one"), ("1", {1: "one"}, "one"), (-1, {}, "-1"), ("a", {"a": "b", "b": "c"}, "b"),
])
def test_names(tmp_path: Path, value: object, names: dict[object, str], label: str) -> None:
    rows, problems = read(json.dumps({"text": "t", "label": value}), tmp_path, {"names": names})
    assert not problems
    assert rows[0]["label"] == label


def test_choices(tmp_path: Path) -> None:
    value = {"context": "Ada met Bob.", "question": "Whom?", "choices": ["Ada", "Bob"], "starts": [0, 8], "answers": ["Bob"]}
    rows, problems = read(json.dumps(value), tmp_path, {"fields": dict.fromkeys(value)})
    assert not problems
    assert rows == [{"where": f"{tmp_path / 'corpus.jsonl'}:1", **value}]


def test_spans(tmp_path: Path) -> None:
    value = {"text": "a b", "spans": [{"segment": 0, "start": 2, "end": 3}], "label": "x"}
    rows, problems = read(json.dumps(value), tmp_path, {"fields": dict.fromkeys(value)})
    assert not problems
    assert rows[0]["spans"] == value["spans"]


def test_rows_have_the_keys_that_are_promised(tmp_path: Path) -> None:
    for fields in ({"text": "a", "label": "b"}, {"text": "a", "label": "b", "text_pair": "a", "id": "b"}):
        rows, _ = read('{"a": "x", "b": 1}', tmp_path, {"fields": fields})
        assert rows[0].keys() - {"where"} == keys(Options(dict(fields))) == set(fields)
    assert keys(Options()) == {"text", "label"}


@pytest.mark.parametrize(("line", "message"), [
    ("{", "corpus:1: not valid JSON at column 2: Expecting property name enclosed in double quotes; each line is one JSON"),
    ("[]", "corpus:1: found list '[]', expected a mapping"),
    ("{}", "corpus:1: key 'text' is missing; found none: add it, or say in the recipe's fields what it is called"),
    ('{"txt": "a", "label": 1}', "corpus:1: key 'text' is missing; found txt, label: add it, or say in the recipe's"),
    ('{"text": 5, "label": 1}', "corpus:1: text: found int '5', expected text; correct it, or the recipe's fields"),
    ('{"text": "a", "label": 0.5}', "corpus:1: label: found float '0.5', expected text, an integer, or true or false; correct"),
    ('{"text": "a", "label": null}', "corpus:1: label: found NoneType 'None', expected text, an integer, or true or false"),
    ('{"text": "a", "label": ["x"]}', "corpus:1: label: found list \"['x']\", expected text, an integer, or true or false"),
])
def test_broken_lines(tmp_path: Path, line: str, message: str) -> None:
    rows, problems = read(line, tmp_path)
    assert rows == []
    assert problems[0].startswith(message)


@pytest.mark.parametrize(("key", "value", "message"), [
    ("spans", [{"segment": 0, "end": 1}], "spans: found list \"[{'segment': 0, 'end': 1}]\", expected a list of mappings, each "
                                          "with the integers segment, start and end; correct it"),
    ("spans", [{"segment": 0, "start": "1", "end": 2}], "spans: found list"),
    ("spans", [{"segment": 0, "start": 1, "end": True}], "spans: found list"),
    ("spans", [3], "spans: found list '[3]', expected a list of mappings"),
    ("choices", "ab", "choices: found str 'ab', expected a list of texts; correct it"),
    ("choices", ["a", 2], "choices: found list \"['a', 2]\", expected a list of texts"),
    ("starts", [0, "1"], "starts: found list \"[0, '1']\", expected a list of integers"),
    ("starts", [False], "starts: found list '[False]', expected a list of integers"),
    ("question", None, "question: found NoneType 'None', expected text or an integer"),
    ("context", {"text": "a"}, "context: found dict \"{'text': 'a'}\", expected text"),
])
def test_broken_values(tmp_path: Path, key: str, value: object, message: str) -> None:
    rows, problems = read("\n" + json.dumps({key: value}), tmp_path, {"fields": {key: None}})
    assert rows == []
    assert len(problems) == 1
    assert problems[0].startswith(f"corpus:2: {message}")


@pytest.mark.parametrize("line", ['{"passage": {"txt": "a"}}', '{"passage": "a"}', '{"passage": ["text"]}', '{"text": "a"}'])
def test_a_way_that_leads_nowhere(tmp_path: Path, line: str) -> None:
    rows, problems = read(line, tmp_path, {"fields": {"text": "passage.text"}})
    assert rows == []
    assert problems[0].startswith("corpus:1: key 'passage.text' is missing; found ")


def test_all_problems_are_reported_and_good_lines_kept(tmp_path: Path) -> None:
    lines = ['{"text": 1, "label": null}', "nonsense", '{"text": "a", "label": "b"}', '{"label": "b"}']
    rows, problems = read("\n".join(lines), tmp_path)
    assert [row["text"] for row in rows] == ["a"]
    assert [problem.split(":")[1] for problem in problems] == ["1", "1", "2", "4"]


@pytest.mark.parametrize(("options", "message"), [
    ({"fields": {"txt": "sentence"}}, "r: fields: 'txt' is no key of a row; did you mean 'text'?"),
    ({"fields": {"text": None}, "names": {"1": "a"}}, "r: names: there is no label to rename; add label to fields, or remove"),
    ({"fields": {"text": 3}}, "r: fields.text: found an integer 3, expected text"),
    ({"names": {"1": True}}, "r: names.1: found true/false True, expected text"),
])
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Options, options, "r")
    assert caught.value.problems[0].startswith(message)

"""Records from JSON lines, tables and Parquet: the mapping to rows, and errors with remedies."""

import bz2
import gzip
import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.config import parse
from pipeline.data.readers import READERS
from pipeline.data.readers.cells import parse_list
from pipeline.data.readers.records import Options, for_task, keys
from pipeline.errors import Problems, UserError
from pipeline.tasks import task_named
from pipeline.tasks.base.row import TAG_PROBLEMS, Row
from tests.support import raw
from tests.support.raw import EXTENSIONS, compress, without_where


def read(
    content: str | bytes,
    folder: Path,
    options: dict[str, Any] | None = None,
    name: str = "corpus.jsonl",
) -> tuple[list[Row], list[str]]:
    """The rows and the problems of a file with this content; `corpus` stands for corpus.jsonl."""
    rows, problems = raw.read("records", content, folder, options, name)
    for row in rows:
        row["where"] = row["where"].replace("corpus.jsonl", "corpus")
    return rows, [problem.replace("corpus.jsonl", "corpus") for problem in problems]


def test_default_fields_are_text_and_label(tmp_path: Path) -> None:
    lines = [
        '{"text": "Good.", "label": "yes", "more": 1}',
        "",
        '{"text": "Bad.", "label": 0}',
        '{"text": "", "label": false}',
    ]
    rows, problems = read("\n".join(lines), tmp_path)
    assert not problems
    assert [(row["text"], row["label"]) for row in rows] == [
        ("Good.", "yes"),
        ("Bad.", "0"),
        ("", "false"),
    ]
    assert rows[1] == {"where": "corpus:3", "text": "Bad.", "label": "0"}


def test_fields_may_be_nested_and_names_renamed(tmp_path: Path) -> None:
    line = json.dumps(
        {
            "passage": {"text": "It rains.", "n": 3},
            "claim": "It is wet.",
            "gold": {"value": True},
            "uid": 12,
        }
    )
    fields = {
        "id": "uid",
        "text": "passage.text",
        "text_pair": "claim",
        "label": "gold.value",
        "question": "passage.n",
    }
    rows, problems = read(
        line, tmp_path, {"fields": fields, "names": {"true": "follows", "false": "does not"}}
    )
    assert not problems
    assert rows == [
        {
            "where": "corpus:1",
            "id": "12",
            "text": "It rains.",
            "text_pair": "It is wet.",
            "label": "follows",
            "question": "3",
        }
    ]


@pytest.mark.parametrize(
    ("value", "names", "label"),
    [
        (True, {"true": "yes"}, "yes"),
        (True, {True: "yes"}, "yes"),
        (False, {"true": "yes"}, "false"),
        ("True", {"true": "y"}, "True"),
        (1, {1: "one"}, "one"),
        (1, {"1": "one"}, "one"),
        ("1", {1: "one"}, "one"),
        (-1, {}, "-1"),
        ("a", {"a": "b", "b": "c"}, "b"),
    ],
)
def test_label_is_renamed_by_value_or_text(
    tmp_path: Path, value: object, names: dict[object, str], label: str
) -> None:
    rows, problems = read(json.dumps({"text": "t", "label": value}), tmp_path, {"names": names})
    assert not problems
    assert rows[0]["label"] == label


def test_choices_are_read(tmp_path: Path) -> None:
    value = {
        "context": "Ada met Bob.",
        "question": "Whom?",
        "choices": ["Ada", "Bob"],
        "starts": [0, 8],
        "answers": ["Bob"],
    }
    rows, problems = read(json.dumps(value), tmp_path, {"fields": dict.fromkeys(value)})
    assert not problems
    assert rows == [{"where": "corpus:1", **value}]


def test_spans_are_read(tmp_path: Path) -> None:
    value = {"text": "a b", "spans": [{"segment": 0, "start": 2, "end": 3}], "label": "x"}
    rows, problems = read(json.dumps(value), tmp_path, {"fields": dict.fromkeys(value)})
    assert not problems
    assert rows[0]["spans"] == value["spans"]


def test_rows_have_the_keys_of_the_options(tmp_path: Path) -> None:
    for fields in (
        {"text": "a", "label": "b"},
        {"text": "a", "label": "b", "text_pair": "a", "id": "b"},
    ):
        rows, _ = read('{"a": "x", "b": 1}', tmp_path, {"fields": fields})
        assert rows[0].keys() - {"where"} == keys(Options(dict(fields))) == set(fields)
    assert keys(Options()) == {"text", "label"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "{",
            "corpus:1: not valid JSON at column 2: Expecting property name enclosed in double "
            "quotes; write each line as one JSON",
        ),
        ("[]", "corpus:1: found a list [], expected a mapping"),
        (
            "{}",
            "corpus:1: key 'text' is missing; found none: "
            "add it, or set its name in the recipe's fields",
        ),
        (
            '{"txt": "a", "label": 1}',
            "corpus:1: key 'text' is missing; found txt, label: add it, or set its name",
        ),
        (
            '{"text": 5, "label": 1}',
            "corpus:1: text: found an integer 5, expected text; correct it, or the recipe's fields",
        ),
        (
            '{"text": "a", "label": 0.5}',
            "corpus:1: label: found a number 0.5, expected text, an integer, or true or false; "
            "correct",
        ),
        (
            '{"text": "a", "label": null}',
            "corpus:1: label: found nothing, expected text, an integer, or true or false",
        ),
        (
            '{"text": "a", "label": ["x"]}',
            "corpus:1: label: found a list ['x'], expected text, an integer, or true or false",
        ),
    ],
)
def test_invalid_lines_are_reported(tmp_path: Path, line: str, message: str) -> None:
    rows, problems = read(line, tmp_path)
    assert rows == []
    assert problems[0].startswith(message)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (
            "spans",
            [{"segment": 0, "end": 1}],
            "spans: found a list [{'segment': 0, 'end': 1}], expected a list of mappings, each "
            "with the integers segment, start and end; correct it",
        ),
        ("spans", [{"segment": 0, "start": "1", "end": 2}], "spans: found a list"),
        ("spans", [{"segment": 0, "start": 1, "end": True}], "spans: found a list"),
        ("spans", [3], "spans: found a list [3], expected a list of mappings"),
        (
            "choices",
            "ab",
            "choices: found text 'ab', expected a list of texts; correct it, or the recipe's "
            'fields; write a list, e.g. ["ab"]',
        ),
        ("choices", ["a", 2], "choices: found a list ['a', 2], expected a list of texts"),
        ("starts", [0, "1"], "starts: found a list [0, '1'], expected a list of integers"),
        ("starts", [False], "starts: found a list [False], expected a list of integers"),
        ("question", None, "question: found nothing, expected text or an integer"),
        ("context", {"text": "a"}, "context: found a mapping {'text': 'a'}, expected text"),
    ],
)
def test_values_of_a_wrong_kind_are_reported(
    tmp_path: Path, key: str, value: object, message: str
) -> None:
    rows, problems = read("\n" + json.dumps({key: value}), tmp_path, {"fields": {key: None}})
    assert rows == []
    assert len(problems) == 1
    assert problems[0].startswith(f"corpus:2: {message}")


@pytest.mark.parametrize(
    "line",
    ['{"passage": {"txt": "a"}}', '{"passage": "a"}', '{"passage": ["text"]}', '{"text": "a"}'],
)
def test_missing_nested_key_is_reported(tmp_path: Path, line: str) -> None:
    rows, problems = read(line, tmp_path, {"fields": {"text": "passage.text"}})
    assert rows == []
    assert problems[0].startswith("corpus:1: key 'passage.text' is missing; found ")


def test_all_problems_are_reported_and_valid_lines_kept(tmp_path: Path) -> None:
    lines = [
        '{"text": 1, "label": null}',
        "nonsense",
        '{"text": "a", "label": "b"}',
        '{"label": "b"}',
    ]
    rows, problems = read("\n".join(lines), tmp_path)
    assert [row["text"] for row in rows] == ["a"]
    assert [problem.split(":")[1] for problem in problems] == ["1", "1", "2", "4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fields": {"text": 3}}, "r: fields.text: found an integer 3, expected text"),
        ({"names": {"1": True}}, "r: names.1: found true, expected text"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(Options, options, "r")
    assert caught.value.problems[0].startswith(message)


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        (
            "sequence_classification",
            {"fields": {"txt": "sentence"}},
            "fields: 'txt' is not a key of a row of the task; did you mean 'text'?",
        ),
        (
            "token_classification",
            {"fields": {"context": None}},
            "fields: 'context' is not a key of a row of the task; use one of id, tags, title",
        ),
        (
            "multiple_choice",
            {},
            "fields: its default (text, label) does not fit the task; set it, with keys of the "
            "task's rows (",
        ),
        (
            "multiple_choice",
            {"fields": {"answer": None, "answer_start": None}},
            "fields: 'answer' is not a key of a row of the task; did you mean 'answers'?",
        ),
        (
            "sequence_classification",
            {"fields": {"text": None}, "names": {"1": "a"}},
            "names: fields has no label or tags to rename; add label to fields, or remove names",
        ),
    ],
)
def test_options_must_fit_the_task(task: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        for_task(parse(Options, options, "r"), task_named(task).row_keys)


def test_answers_have_offsets_unless_there_are_choices(tmp_path: Path) -> None:
    answers = [{"text": "cat", "answer_start": 2}]
    fields = ["context", "question", "answers"]
    line = {"context": "A cat.", "question": "Who?", "answers": [answers[0] | {"more": 1}]}
    hub = line | {"answers": {"text": ["cat"], "answer_start": [2]}}
    rows, problems = read(
        f"{json.dumps(line)}\n{json.dumps(hub)}\n{json.dumps(line | {'answers': []})}",
        tmp_path,
        {"fields": dict.fromkeys(fields)},
    )
    assert not problems
    assert [row["answers"] for row in rows] == [answers, answers, []]


def test_single_answer_is_in_two_columns(tmp_path: Path) -> None:
    options = {
        "fields": {"context": None, "question": None, "answer": "span", "answer_start": "at"}
    }
    shared = {"context": "A cat.", "question": "Who?"}
    lines = [
        shared | {"span": "cat", "at": 2},
        shared | {"span": "", "at": -1},
        shared | {"span": None, "at": None},
    ]
    rows, problems = read("\n".join(map(json.dumps, lines)), tmp_path, options)
    assert not problems
    assert [row["answers"] for row in rows] == [[{"text": "cat", "answer_start": 2}], [], []]
    assert rows[0].keys() - {"where"} == keys(parse(Options, options, "r"))
    rows, problems = read(
        "context,question,span,at\nA cat.,Who?,cat,2\nA cat.,Who?,,\n",
        tmp_path,
        options,
        "corpus.csv",
    )
    assert not problems
    assert [row["answers"] for row in rows] == [[{"text": "cat", "answer_start": 2}], []]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"answers": "cat"}, "answers: found text 'cat', expected a list"),
        (
            {"answers": [{"text": "cat", "start": 2}]},
            "answers[0]: key 'answer_start' is missing; found text, start",
        ),
        (
            {"answers": [{"text": "cat", "answer_start": True}]},
            "answers[0]: answer_start: found true, expected an integer",
        ),
        (
            {"answers": [{"text": "cat", "answer_start": "2"}]},
            "answers[0]: answer_start: found text '2', expected an integer; write 2 without quotes",
        ),
        ({"answers": None}, "answers: found nothing, expected a list; write [...], or [] for none"),
        ({"answers": ["cat"]}, "answers[0]: found text 'cat', expected a mapping; write {...}"),
        (
            {"answers": {"text": ["cat"], "answer_start": []}},
            "answers: 1 text with 0 offsets; give each answer one text and one offset",
        ),
        ({"answers": {"text": ["cat"]}}, "answers: key 'answer_start' is missing; found text"),
        ({"question": "q"}, "key 'answers' is missing; found question: add it"),
    ],
)
def test_invalid_answers_are_reported(
    line: dict[str, object], message: str, tmp_path: Path
) -> None:
    rows, problems = read(json.dumps(line), tmp_path, {"fields": {"answers": None}})
    assert rows == []
    assert problems[0].startswith(f"corpus:1: {message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ({"a": "cat", "s": None}, "answer 'cat' has no answer_start; correct it"),
        ({"a": "cat", "s": "2"}, "s: found text '2', expected an integer; correct it"),
        ({"a": 7, "s": 2}, "a: found an integer 7, expected text; correct it"),
        ({"a": 0, "s": 2}, "a: found an integer 0, expected text; correct it"),
        ({"a": False, "s": None}, "a: found false, expected text; correct it"),
    ],
)
def test_invalid_single_answer_is_reported(
    line: dict[str, object], message: str, tmp_path: Path
) -> None:
    rows, problems = read(
        json.dumps(line), tmp_path, {"fields": {"answer": "a", "answer_start": "s"}}
    )
    assert rows == []
    assert problems[0].startswith(f"corpus:1: {message}")


def test_tags_are_renamed_and_converted_to_iob2(tmp_path: Path) -> None:
    fields = {"tokens": "words", "tags": "ner", "predicate": None}
    line = json.dumps({"words": ["Ada", "ran"], "ner": [1, 0], "predicate": 1})
    rows, problems = read(
        line, tmp_path, {"fields": fields, "names": {"0": "O", "1": "I-PER"}, "tag_scheme": "auto"}
    )
    assert not problems
    assert without_where(rows) == [
        {"tokens": ["Ada", "ran"], "tags": ["B-PER", "O"], "predicate": 1}
    ]
    rows, problems = read(line, tmp_path, {"fields": fields, "names": {"0": "O", "1": "I-PER"}})
    assert not problems
    (problem,) = rows[0][TAG_PROBLEMS]
    assert problem.message.startswith("token 0: tag 'I-PER' continues a span that has not begun")


CSV = {"fields": {"id": None, "text": "a text", "label": None}, "names": {"1": "yes"}}


def test_csv_has_quotes_and_line_breaks_in_cells(tmp_path: Path) -> None:
    text = (
        '\ufeffid,label,more,a text\r\n1,1,,"Good, ""very"".\r\nYes."\r\n\r\n2,no,x,Bad\u2028.\r\n'
    )
    rows, problems = read(text, tmp_path, CSV, "corpus.csv")
    assert not problems
    assert rows == [
        {"where": "corpus.csv:2", "id": "1", "text": 'Good, "very".\r\nYes.', "label": "yes"},
        {"where": "corpus.csv:5", "id": "2", "text": "Bad\u2028.", "label": "no"},
    ]


def test_columns_delimiter_and_quote_are_options(tmp_path: Path) -> None:
    options = CSV | {"columns": ["label", "a text", "id"]}
    expected = [{"id": "1", "text": '"So," he said.', "label": "yes"}]
    for content, more, name in (
        ('1\t"So," he said.\t1\n', {}, "corpus.tsv"),
        ('1;"""So,"" he said.";1\n', {"delimiter": ";"}, "a.csv"),
        ('1\t"""So,"" he said."\t1\n', {"quote": "double"}, "a.tsv"),
        ('1|"So," he said.|1\n', {"delimiter": "|", "quote": "none", "format": "csv"}, "corpus"),
    ):
        rows, problems = read(content, tmp_path, options | more, name)
        assert not problems
        assert without_where(rows) == expected


def test_lists_in_cells_are_json_or_separated(tmp_path: Path) -> None:
    fields = dict.fromkeys(["tokens", "tags", "predicate"])
    expected = [{"tokens": ["Ada", "ran"], "tags": ["B-PER", "O"], "predicate": 1}]
    rows, problems = read(
        'tokens\ttags\tpredicate\n["Ada", "ran"]\t["B-PER", "O"]\t1\n',
        tmp_path,
        {"fields": fields},
        "a.tsv",
    )
    assert (without_where(rows), problems) == (expected, [])
    options = {"fields": fields, "list_separator": " "}
    rows, problems = read("predicate,tags,tokens\n1,B-PER O,Ada ran\n", tmp_path, options, "a.csv")
    assert (without_where(rows), problems) == (expected, [])
    rows, problems = read(
        "predicate,tags,tokens\n1.5,B-PER,Ada ran\n", tmp_path, {"fields": fields}, "a.csv"
    )
    assert rows == []
    assert [problem.split("; ")[0] for problem in problems] == [
        "a.csv:2: tokens: found text 'Ada ran', expected a list of texts",
        "a.csv:2: tags: found text 'B-PER', expected a list of texts or integers",
        "a.csv:2: predicate: found text '1.5', expected an integer",
    ]


def test_references_in_a_cell_are_a_text_or_a_list_of_texts(tmp_path: Path) -> None:
    cells = [json.dumps(["one", "two"]), "one", "[laughs] one", "[1]"]
    text = "source\treferences\n" + "".join(f"a\t{cell}\n" for cell in cells)
    fields = dict.fromkeys(["source", "references"])
    rows, problems = read(text, tmp_path, {"fields": fields}, "a.tsv")
    assert not problems
    assert [row["references"] for row in rows] == [
        ["one", "two"],
        ["one"],
        ["[laughs] one"],
        ["[1]"],
    ]


def test_another_delimiter_is_named(tmp_path: Path) -> None:
    for delimiter, escaped in ((";", '";"'), ("\t", r'"\t"')):
        text = delimiter.join(["text", "label"])
        _, problems = read(text, tmp_path, name="corpus.csv")
        assert len(problems) == 1, "one for both columns"
        assert problems[0].endswith(f"set delimiter: {escaped} in the recipe's options")


def test_an_empty_answer_with_an_offset_is_refused(tmp_path: Path) -> None:
    options = {"fields": {"context": None, "question": None, "answer": "a", "answer_start": "s"}}
    text = "context,question,a,s\nBo ran,Who ran?,,5\nBo ran,Who ran?,,\nBo ran,Who?,,-1\n"
    rows, problems = read(text, tmp_path, options, "corpus.csv")
    assert [row["answers"] for row in rows] == [[], []]
    assert problems == [
        "corpus.csv:2: answer_start is 5, but the answer is empty; fill it in, or empty "
        "answer_start if the context has no answer"
    ]


def test_a_repeated_key_is_refused(tmp_path: Path) -> None:
    rows, problems = read('{"text": "a", "label": "b", "text": "c"}\n', tmp_path)
    assert rows == []
    assert "key 'text' occurs twice in a mapping; remove one of them" in problems[0]
    text = '[\n{"text": "a", "label": "b"},\n {"text": "a", "label": "b", "text": "c"}]'
    rows, problems = read(text, tmp_path, name="corpus.json")
    assert len(rows) == 1
    assert problems == [
        "corpus.json:3: column 2: key 'text' occurs twice in a mapping; remove one of them"
    ]


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        (
            "text,label\na,b,c\n",
            "csv",
            "2: 3 columns, expected 2: \"['a', 'b', 'c']\"; "
            "correct the line, or the recipe's delimiter",
        ),
        ("text,label\na\n", "csv", "2: 1 column, expected 2"),
        (
            'text,label\n"a" b,c\n',
            "csv",
            "2: not valid CSV: ',' expected after '\"'; put cells with quotes",
        ),
        ('text,label\n"a,b\nc,d\n', "csv", "2: not valid CSV: unexpected end of data"),
        (
            "txt,label\na,b\n",
            "csv",
            "1: column 'text' is missing: add it, or set its name in the recipe's fields; "
            "did you mean 'txt'?",
        ),
        (
            "Ada ran,,pos\n",
            "csv",
            "1: columns 'label', 'text' are missing: add them, or set their names in the recipe's "
            "fields; the columns are Ada ran, pos; if the file has no header, set columns in the "
            "options, e.g. [label, text]",
        ),
        (
            "sep=;\ntext;label\na;b\n",
            "csv",
            "1: the line 'sep=;' tells Excel the delimiter and is not a header; remove it; the",
        ),
        (
            'text\t"label"\n"a"\t"b"\n',
            "tsv",
            "1: column 'label' is missing: the header has it in quotes; set quote: double in the "
            "recipe's options",
        ),
        ("text,label,text\na,b,c\n", "csv", "1: two columns have the name text; rename one"),
        (
            'text\tlabel\n"a"\tb\n',
            "tsv",
            "2: cell '\"a\"' seems to be in quotes; set quote in the recipe's options: double",
        ),
        (
            "text\tlabel\na\rb\tc\n",
            "tsv",
            "2: not valid TSV: new-line character seen in unquoted field",
        ),
        ("PAR1 text", "parquet", " row 1: not valid Parquet: "),
        ("", "parquet", " row 1: not valid Parquet: "),
        (
            "text,label\na,b\n",
            "txt",
            " the file extension is not that of a known format; "
            "set format in the recipe's options: jsonl, csv",
        ),
        ("text,label\ra,b\rc,d\r", "csv", "1: the lines end with a carriage return (CR) only"),
        ("PK\x03\x04", "csv", "1: the file is a zip archive; unpack it"),
        ("text,label\na,b\n", "arrow", " row 1: not valid Arrow: "),
    ],
)
def test_invalid_tables_are_reported(text: str, name: str, message: str, tmp_path: Path) -> None:
    rows, problems = read(text, tmp_path, name=f"corpus.{name}")
    assert rows == []
    assert len(problems) == 1
    assert problems[0].startswith(f"corpus.{name}:{message}")


@pytest.mark.parametrize("extension", ["", ".gz"])
@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("text,label\na,b".encode("utf-16"), "UTF-16; convert it with iconv -f utf-16 -t utf-8"),
        ("text,label\na,b".encode("utf-16-le"), "UTF-16 without a mark; convert it with iconv -f"),
        ("text,label\na,b".encode("utf-16-be"), "UTF-16 without a mark; convert it with iconv -f"),
        ("text,label\na,b".encode("utf-32"), "UTF-32; convert it with iconv -f utf-32 -t utf-8"),
        (bz2.compress(b"text,label\na,b"), "compressed with bzip2; unpack it with bunzip2"),
        (b"PK\x03\x04more", "a zip archive; unpack it"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "a Git LFS pointer, not the file"),
        (b"<!DOCTYPE html><html>", "a web page, not the file; download the file again"),
    ],
)
def test_file_that_is_not_text_is_named_by_its_first_bytes(
    content: bytes, found: str, extension: str, tmp_path: Path
) -> None:
    for name in ("a.csv", "a.jsonl", "a.json"):
        for compressed in {content, compress(content, extension)}:
            rows, problems = read(compressed, tmp_path, name=f"{name}{extension}")
            assert (rows, len(problems)) == ([], 1)
            assert f"the file is {found}" in problems[0]
    rows, problems = read(content, tmp_path, name="a.parquet")
    assert f"the file is {found}" in problems[0]


def test_json_list_with_the_extension_of_json_lines_is_one_problem(tmp_path: Path) -> None:
    rows, problems = read('[\n{"text": "a", "label": 1}\n]', tmp_path)
    assert (rows, len(problems)) == ([], 1)
    assert problems[0].startswith("corpus:1: the file is one JSON list, not JSON lines; convert it")
    assert problems[0].endswith("set format: json")


def test_valid_lines_of_a_table_are_kept(tmp_path: Path) -> None:
    rows, problems = read('text,label\na,b\n"x"y,b\nc,b\nd\n', tmp_path, name="corpus.csv")
    assert [row["text"] for row in rows] == ["a", "c"]
    assert [problem.split(": ")[0] for problem in problems] == ["corpus.csv:3", "corpus.csv:5"]


def parquet(table: pa.Table) -> bytes:
    file = io.BytesIO()
    pq.write_table(table, file)
    return file.getvalue()


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_parquet_is_read_in_any_compression(extension: str, tmp_path: Path) -> None:
    records = [
        {"passage": {"text": f"t{number}", "more": None}, "label": number % 2 == 0, "x": [1]}
        for number in range(3000)
    ]
    options = {"fields": {"text": "passage.text", "label": None}, "names": {"true": "even"}}
    rows, problems = read(
        compress(parquet(pa.Table.from_pylist(records)), extension),
        tmp_path,
        options,
        f"a.parquet{extension}",
    )
    assert not problems
    assert len(rows) == 3000
    assert rows[2999] == {
        "where": f"a.parquet{extension}: row 3000",
        "text": "t2999",
        "label": "false",
    }


def test_invalid_parquet_is_reported(tmp_path: Path) -> None:
    whole = parquet(pa.table({"text": ["a", "b"] * 500, "label": ["x", None] * 500}))
    rows, problems = read(whole, tmp_path, name="a.parquet")
    assert (len(rows), len(problems)) == (500, 21)
    assert problems[0].startswith(
        "a.parquet: row 2: label: found nothing, expected text, an integer, or true or false"
    )
    rows, problems = read(whole, tmp_path, {"fields": {"text": "txt"}}, "a.parquet")
    assert problems == [
        "a.parquet: column 'txt' is missing: add it, or set its name in the recipe's fields; "
        "did you mean 'text'?"
    ]
    for damaged in (whole[:-20], whole[20:], gzip.compress(whole)[:-20]):
        rows, problems = read(damaged, tmp_path, name="a.parquet")
        assert (rows, len(problems)) == ([], 1)
        assert problems[0].startswith("a.parquet: row 1: ")


@pytest.mark.parametrize(
    "text", ['{"text": "\\ud83d", "label": 1}', '{"text": "\\uDE00\\uD83D", "label": 1}']
)
def test_lone_surrogates_are_reported(text: str, tmp_path: Path) -> None:
    rows, problems = read(text, tmp_path)
    assert rows == []
    assert problems[0].startswith(
        "corpus:1: an escape \\ud8.. to \\udf.. is half of a character; the other half is missing"
    )
    rows, problems = read('{"text": "\\ud83d\\ude00", "label": 1}', tmp_path)
    assert (rows[0]["text"], problems) == ("\U0001f600", [])


@pytest.mark.parametrize("text", ["[" * 100_000, '{"text": ' + "1" * 5000])
def test_json_beyond_the_limits_of_python_is_reported(text: str, tmp_path: Path) -> None:
    rows, problems = read(text, tmp_path)
    assert rows == []
    assert problems[0].startswith("corpus:1: cannot be read as JSON: ")


@pytest.mark.parametrize(
    "options",
    [
        {"fields": {"answer": None}},
        {"fields": {"answer": None, "answer_start": None, "answers": None}},
        {"delimiter": "::"},
        {"delimiter": '"'},
        {"list_separator": ""},
        {"format": "xml"},
        {"quote": "single"},
    ],
)
def test_conflicting_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UserError):
        parse(Options, options, "r")


def test_only_json_lines_are_split_into_chunks() -> None:
    def boundary(name: str, options: Options) -> str | None:
        return READERS["records"].chunk_boundary(Path(name), raw.for_task("records", options))

    names = ("a.jsonl", "a.csv", "a.tsv", "a.parquet", "a")
    assert [boundary(name, Options()) for name in names] == ["lines", *[None] * 4]
    assert boundary("a", Options(format="jsonl")) == "lines"


@pytest.mark.parametrize("extension", ["", ".gz"])
@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("form", ["list", "data"])
def test_one_json_value_is_read_as_records(
    form: str, indent: int | None, extension: str, tmp_path: Path
) -> None:
    records: Any = [{"text": "a", "label": 1}, 5, {"text": "b", "label": 2}]
    value = {"version": 1, "data": records, "more": {}} if form == "data" else records
    text = json.dumps(value, indent=indent)
    name = f"a.json{extension}"
    rows, problems = read(compress(text.encode(), extension), tmp_path, name=name)
    assert [(row["text"], row["label"]) for row in rows] == [("a", "1"), ("b", "2")]
    assert len(problems) == 1
    assert "found an integer 5, expected a mapping" in problems[0]
    lines = text.split("\n")
    for row in rows if indent else []:
        number = int(row["where"].removeprefix(f"{name}:"))
        assert f'"text": "{row["text"]}"' in lines[number]  # the line after the brace
    mapping = raw.for_task("records", Options())
    if not extension:
        assert READERS["records"].chunk_boundary(tmp_path / name, mapping) is None


@pytest.mark.parametrize(
    "text",
    [
        '{"text": "a", "label": 1, "data": [{}]}\n{"text": "b", "label": 2}\n',
        '{"data": [1, 2], "text": "a", "label": 1}\n{"text": "b", "label": 2}\n',
    ],
)
def test_json_lines_may_have_the_extension_json(text: str, tmp_path: Path) -> None:
    rows, problems = read(text, tmp_path, name="a.json")
    assert (len(rows), problems) == (2, [])
    mapping = raw.for_task("records", Options())
    assert READERS["records"].chunk_boundary(tmp_path / "a.json", mapping) == "lines"


def test_damaged_json_list_is_reported_after_its_records(tmp_path: Path) -> None:
    rows, problems = read('[{"text": "a", "label": 1},\n{"text": ', tmp_path, name="a.json")
    assert [row["text"] for row in rows] == ["a"]
    assert [problem[:24] for problem in problems] == ["a.json:2: not valid JSON"]


TAGS = {"fields": {"tokens": None, "tags": "ner"}}


def tagged(folder: Path, name: str, names: list[str] | None = None) -> None:
    """Two tagged sentences, as the library `datasets` writes them."""
    from datasets import ClassLabel, Dataset, List, disable_progress_bars

    disable_progress_bars()
    records = [{"tokens": ["Ada", "ran"], "ner": [1, 0]}, {"tokens": ["Bonn"], "ner": [2]}]
    data = Dataset.from_list(records)
    if names:
        data = data.cast_column("ner", List(ClassLabel(names=names)))
    if name.endswith(".parquet"):
        data.to_parquet(folder / name)
    else:
        data.save_to_disk(folder / "saved")
        (folder / "saved/data-00000-of-00001.arrow").rename(folder / name)


@pytest.mark.parametrize("name", ["a.parquet", "a.arrow"])
def test_class_names_come_from_the_metadata(name: str, tmp_path: Path) -> None:
    tagged(tmp_path, name, ["O", "B-PER", "B-LOC"])
    content = (tmp_path / name).read_bytes()
    for options in (TAGS, TAGS | {"names": {"B-LOC": "B-GPE"}, "tag_scheme": "auto"}):
        rows, problems = read(content, tmp_path, options, name)
        expected = "B-GPE" if "names" in options else "B-LOC"
        assert problems == []
        assert [row["tags"] for row in rows] == [["B-PER", "O"], [expected]]
        assert rows[1]["where"] == f"{name}: row 2"


def test_names_that_contradict_the_metadata_are_an_error(tmp_path: Path) -> None:
    tagged(tmp_path, "a.parquet", ["O", "B-PER", "B-LOC"])
    content = (tmp_path / "a.parquet").read_bytes()
    names = {"0": "O", "1": "B-LOC", "2": "B-PER"}
    rows, problems = read(content, tmp_path, TAGS | {"names": names}, "a.parquet")
    assert rows == []
    assert problems == [
        "a.parquet: names: the class numbers have other names in the file's metadata: "
        "1 is 'B-PER' in the file and 'B-LOC' in the recipe, "
        "2 is 'B-LOC' in the file and 'B-PER' in the recipe; "
        "remove these numbers from names in the recipe's options, "
        "or rename the file's names instead of its numbers"
    ]
    agreeing = {"0": "O", "1": "B-PER", "2": "B-LOC"}
    assert read(content, tmp_path, TAGS | {"names": agreeing}, "a.parquet")[1] == []


@pytest.mark.parametrize(
    "metadata", [b"{", b"[]", b'{"info": 3}', b'{"info": {"features": [1]}}', b"\xff"]
)
def test_other_metadata_is_ignored(metadata: bytes, tmp_path: Path) -> None:
    table = pa.table({"text": ["a"], "label": ["b"]})
    content = parquet(table.replace_schema_metadata({b"huggingface": metadata}))
    rows, problems = read(content, tmp_path, name="a.parquet")
    assert (len(rows), problems) == (1, [])


def test_damaged_arrow_is_reported(tmp_path: Path) -> None:
    """pyarrow does not check the offsets of texts; they would point outside the buffer."""
    file, size = io.BytesIO(), 40
    table = pa.table({"text": [f"text {n}" for n in range(size)], "label": ["x"] * size})
    with pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    offset = (len("text 10") * 5 + len("text 1") * 10).to_bytes(4, "little")
    content = file.getvalue()
    assert content.count(offset)
    damaged = content.replace(offset, (1 << 30).to_bytes(4, "little"))
    rows, problems = read(damaged, tmp_path, name="a.arrow")
    assert (rows, len(problems)) == ([], 1)
    assert problems[0].startswith("a.arrow: row 1: not valid Arrow: ")


def test_arrow_files_are_read_in_both_forms_and_any_batch_size(tmp_path: Path) -> None:
    table = pa.table({"text": [f"t{n}" for n in range(2500)], "label": [1] * 2500, "x": [0] * 2500})
    for open_writer in (pa.ipc.new_stream, pa.ipc.new_file):
        file = io.BytesIO()
        with open_writer(file, table.schema) as writer:
            writer.write_table(table)
        for content, name in (
            (file.getvalue(), "a.arrow"),
            (gzip.compress(file.getvalue()), "a.arrow.gz"),
        ):
            rows, problems = read(content, tmp_path, name=name)
            assert (len(rows), problems) == (2500, [])
            assert rows[-1]["text"] == "t2499"
    rows, problems = read(file.getvalue(), tmp_path, {"format": "parquet"}, "a")
    assert (
        "the file is Arrow; read it with the reader records and the option format: arrow"
        in (problems[0])
    )


@pytest.mark.parametrize(
    ("cell", "tokens"),
    [
        ("['Ada', \"isn't\", 'here']", ["Ada", "isn't", "here"]),
        ("('Ada', 'ran')", ["Ada", "ran"]),
        ("['Ada' 'Lee'\n 'ran']", ["Ada", "Lee", "ran"]),
        ("['a\\'b' \"c\"]", ["a'b", "c"]),
        ("[ 1  2 10]", ["1", "2", "10"]),
        ("[]", []),
        ("['Ada' 'Lee', 'ran']", None),  # Python would join the first two
        ("['a', f'{1+1}']", None),
        ("[__import__('os')]", None),
        ("['a' ... 'b']", None),
        ("['a'", None),
        ("[" * 500, None),
    ],
)
def test_lists_in_the_notation_of_python_and_numpy_are_read(
    cell: str, tokens: list[str] | None, tmp_path: Path
) -> None:
    quoted = cell.replace('"', '""')
    options = {"fields": {"tags": None}, "tag_scheme": "brackets"}
    _, problems = read(f'tags\n"{quoted}"\n', tmp_path, options, "a.csv")
    raw_rows, found = cells(cell)
    assert raw_rows == (cell if tokens is None else [str(item) for item in tokens])
    assert found == ({} if tokens in (None, []) else {"list-notation": 1})
    if tokens is None:
        assert "expected a list of texts or integers" in problems[0]


def cells(cell: str) -> tuple[Any, dict[str, int]]:
    problems = Problems()
    value = parse_list(cell, "a.csv:2", problems)
    texts = [str(item) for item in value] if isinstance(value, list) else value
    return texts, dict(problems.counts)


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl"])
def test_integers_with_a_decimal_point_are_integers(name: str, tmp_path: Path) -> None:
    """pandas writes the integers of a column with missing values as 2.0."""
    options = {"fields": {"text": None, "label": None}, "names": {"2": "good"}}
    text = "text,label\na,2.0\n" if name == "a.csv" else '{"text": "a", "label": 2.0}\n'
    rows, problems = read(text, tmp_path, options, name)
    assert ([row["label"] for row in rows], problems) == (["good"], [])
    fields = {"fields": dict.fromkeys(["tokens", "tags", "predicate"])}
    text = 'tokens,tags,predicate\n"[""a""]","[""O""]",0.0\n'
    if name == "a.jsonl":
        text = '{"tokens": ["a"], "tags": ["O"], "predicate": 0.0}'
    rows, problems = read(text, tmp_path, fields, name)
    assert ([row["predicate"] for row in rows], problems) == ([0], [])


def test_one_token_per_record_is_grouped(tmp_path: Path) -> None:
    """A record that could not be read may belong to the group before it or after it."""
    options = {
        "fields": {"id": "Sentence #", "tokens": "Word", "tags": "Tag"},
        "group_by": "Sentence #",
    }
    text = (
        'Sentence #,Word,Tag\nS 1,Ada,B-PER\n,"ran, too",O\nS 2,null,O\nS 2,sat,O\n'
        "S 3,lost,O\n,damaged\nS 4,lost,O\nS 5,end,O\n"
    )
    rows, problems = read(text, tmp_path, options, "a.csv")
    assert rows == [
        {"where": "a.csv:2", "id": "S 1", "tokens": ["Ada", "ran, too"], "tags": ["B-PER", "O"]},
        {"where": "a.csv:4", "id": "S 2", "tokens": ["null", "sat"], "tags": ["O", "O"]},
        {"where": "a.csv:9", "id": "S 5", "tokens": ["end"], "tags": ["O"]},
    ]
    assert [problem.split(":")[1] for problem in problems] == ["7"]
    rows, problems = read("Sentence #,Word,Tag\n,Ada,O\nS 2,a,O\n", tmp_path, options, "a.csv")
    assert [row["tokens"] for row in rows] == [["a"]]
    assert problems[0].startswith("a.csv:2: Sentence # is empty in the first record")
    lines = [{"Sentence #": 1, "Word": "a", "Tag": "O"}, {"Word": "b", "Tag": "O"}]
    content = "\n".join(map(json.dumps, lines))
    rows, problems = read(content, tmp_path, options, "a.jsonl")
    assert ([(row["id"], row["tokens"]) for row in rows], problems) == ([("1", ["a", "b"])], [])
    mapping = raw.for_task("records", parse(Options, options, "r"))
    assert READERS["records"].chunk_boundary(tmp_path / "a.jsonl", mapping) is None


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json"])
def test_groups_in_several_parts_are_one_problem_of_the_file(name: str, tmp_path: Path) -> None:
    """The tokens of a shuffled table would become sentences of one token."""
    options = {"fields": {"tokens": None, "tags": None}, "group_by": "n"}
    values = ["1", "1", "", "2", "3", "2", "1", "3"]
    records = [{"n": value, "tokens": "a", "tags": "O"} for value in values]
    text = {
        "a.csv": "n,tokens,tags\n" + "".join(f"{value},a,O\n" for value in values),
        "a.jsonl": "\n".join(map(json.dumps, records)),
        "a.json": json.dumps(records),
    }[name]
    first, second = {
        "a.csv": ("a.csv:5", "a.csv:7"),
        "a.jsonl": ("a.jsonl:4", "a.jsonl:6"),
        "a.json": ("a.json:1: [3]", "a.json:1: [5]"),
    }[name]
    _, problems = read(text, tmp_path, options, name)
    assert problems == [
        f"{second}: the group '2' of n began at {first} and begins again after other groups, so "
        "each part would be a row (such groups in the file: 3); sort the file by n, with the "
        "records of a group in their order; if its values begin again in each document, set "
        "allow: [split-group] in the recipe"
    ]


def test_token_instead_of_a_list_names_group_by(tmp_path: Path) -> None:
    _, problems = read("tokens,tags\nAda,O\n", tmp_path, {"fields": {"tokens": None}}, "a.csv")
    assert "if each record is one token, set group_by" in problems[0]


def test_offsets_are_converted(tmp_path: Path) -> None:
    context = "😀 né: a cat"
    line = json.dumps(
        {"context": context, "question": "q", "answers": [{"text": "cat", "answer_start": 9}]}
    )
    fields = dict.fromkeys(["context", "question", "answers"])
    options = {"fields": fields, "offsets": "utf16"}
    rows, problems = read(line, tmp_path, options)
    assert (rows[0]["answers"], problems) == ([{"text": "cat", "answer_start": 8}], [])
    line = json.dumps({"text": context, "spans": [{"segment": 0, "start": 12, "end": 15}]})
    fields = dict.fromkeys(["text", "spans"])
    rows, problems = read(line, tmp_path, {"fields": fields, "offsets": "bytes"})
    assert (rows[0]["spans"], problems) == ([{"segment": 0, "start": 8, "end": 11}], [])
    rows, problems = read(line.replace("12", "1"), tmp_path, {"fields": fields, "offsets": "bytes"})
    assert rows == []
    assert "spans[0].start: offset 1 is inside a character if it counts bytes" in problems[0]
    choices = {"context": context, "question": "q", "choices": ["cat"], "starts": [9]}
    options = {"fields": dict.fromkeys(choices), "offsets": "utf16"}
    rows, problems = read(json.dumps(choices), tmp_path, options)
    assert (rows[0]["starts"], problems) == ([8], [])


def test_null_id_is_a_warning_and_null_title_is_none(tmp_path: Path) -> None:
    fields = dict.fromkeys(["id", "title", "text", "label"])
    (tmp_path / "a.jsonl").write_text(
        '{"id": null, "title": null, "text": "a", "label": 1}\n'
        '{"id": 0, "title": 0, "text": "", "label": false}\n'
        '{"id": false, "title": "", "text": "a", "label": 1}\n'
    )
    mapping = raw.for_task("records", Options(fields))
    problems = Problems()
    rows = without_where(list(READERS["records"].read(tmp_path / "a.jsonl", mapping, problems)))
    assert rows == [
        {"text": "a", "label": "1"},
        {"id": "0", "title": "0", "text": "", "label": "false"},
    ]
    assert problems.counts == {"missing-id": 1, "wrong-type": 1}
    assert "id: found false, expected text or an integer" in problems.kept[-1].message
    rows, found = read("id,text,label\n,a,1\n", tmp_path, {"fields": {"id": None}}, "a.csv")
    assert (without_where(rows), found) == ([{}], [])


@pytest.mark.parametrize(
    "options",
    [
        {"fields": {"text": None}, "group_by": "n"},
        {"fields": {"tokens": None}, "group_by": "n", "list_separator": " "},
        {"offsets": "utf8"},
    ],
)
def test_options_of_groups_and_offsets_are_checked(options: dict[str, Any]) -> None:
    with pytest.raises((UserError, ValueError)):
        raw.for_task("records", parse(Options, options, "r"))

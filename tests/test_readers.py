"""Each format: what is read, and what is refused with its file, line, value and remedy."""

import json
from pathlib import Path

import pytest

from pipeline.config import parse
from pipeline.errors import Problems, UserError
from pipeline.readers import READERS
from pipeline.readers.base import Row, Splits
from pipeline.readers.hub import Hub
from pipeline.readers.hub import read as read_hub
from pipeline.readers.tags import Scheme, to_iob2

IOB2 = {"columns": 2, "token": 0, "tag": 1, "tag_scheme": "iob2", "separator": "\t"}
PROPS = {"token": 1, "first_predicate": 2, "id_columns": [0], "separator": "\t"}


def read(reader: str, content: str | bytes, folder: Path,
         options: dict[str, object] | None = None) -> tuple[list[Row], list[str]]:
    """The rows of a file with this content, and its problems without the folder's name."""
    path = folder / "corpus"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    problems = Problems()
    rows = list(READERS[reader].read(path, parse(READERS[reader].options, options or {}, "recipe"), problems))
    try:
        problems.raise_if_any()
    except UserError as error:
        return rows, [problem.replace(f"{path}", "corpus") for problem in error.problems]
    return rows, []


def test_columns(tmp_path: Path) -> None:
    text = "-DOCSTART-\tO\n\nAda\tB-PER\nByron\tI-PER\n \t \nran\tO\n-DOCSTART-\tO\nhome\tB-LOC"
    rows, problems = read("conll_columns", text, tmp_path, IOB2)
    assert not problems
    assert [(row["where"][-2:], row["tokens"], row["tags"]) for row in rows] == [
        (":3", ["Ada", "Byron"], ["B-PER", "I-PER"]), (":6", ["ran"], ["O"]), (":8", ["home"], ["B-LOC"])]


def test_only_newlines_end_lines(tmp_path: Path) -> None:
    text = "\ufeffa\u2028b\tO\r\nc\x85\tO\r\n\xa0d\tO\r\n"
    rows, problems = read("conll_columns", text, tmp_path, IOB2)
    assert not problems
    assert rows[0]["tokens"] == ["a\u2028b", "c\x85", "\xa0d"]


def test_whitespace_separator_keeps_no_break_spaces(tmp_path: Path) -> None:
    rows, problems = read("conll_columns", "10\xa0000 \t O\n", tmp_path, IOB2 | {"separator": None})
    assert not problems
    assert rows[0]["tokens"] == ["10\xa0000"]


def test_empty_file(tmp_path: Path) -> None:
    assert read("conll_columns", "", tmp_path, IOB2) == ([], [])


def test_wrong_columns_are_all_reported_and_good_sentences_kept(tmp_path: Path) -> None:
    rows, problems = read("conll_columns", "a O\n\nb\tO\n\nc\tO\tO\n\tO\n", tmp_path, IOB2)
    assert [row["tokens"] for row in rows] == [["b"]]
    assert problems == [
        "corpus:1: 1 columns, expected 2: 'a O'; correct the line, or the recipe's separator or columns",
        "corpus:5: 3 columns, expected 2: 'c\\tO\\tO'; correct the line, or the recipe's separator or columns",
        "corpus:6: column 0, the token, is empty: '\\tO'; remove the line or fill it in"]


def test_not_utf8(tmp_path: Path) -> None:
    _, problems = read("conll_columns", b"a\tO\ncaf\xe9\tO\n", tmp_path, IOB2)
    assert problems == ["corpus:2: byte 4, 0xe9, is not UTF-8; convert the file, e.g. with iconv -f latin1 -t utf-8"]
    _, problems = read("records", b'\n{"id": "\xff"}\n', tmp_path)
    assert problems[0].startswith("corpus:2: byte 9, 0xff, is not UTF-8; convert")
    _, problems = read("squad_json", b'{\n"data": "\xff"}\n', tmp_path)
    assert problems[0].startswith("corpus:2: byte 12, 0xff, is not UTF-8; convert")


@pytest.mark.parametrize(("scheme", "tags", "expected"), [
    ("iob1", "I-A I-A B-A I-B O I-B", "B-A I-A B-A B-B O B-B"),
    ("iob2", "B-A I-A B-A B-B O B-B", "B-A I-A B-A B-B O B-B"),
    ("bioes", "B-A I-A E-A S-A S-A O S-creative-work", "B-A I-A I-A B-A B-A O B-creative-work"),
    ("bilou", "B-A I-A L-A U-A", "B-A I-A I-A B-A"),
])
def test_tag_schemes(scheme: Scheme, tags: str, expected: str) -> None:
    assert to_iob2(tags.split(), scheme) == (expected.split(), [])


@pytest.mark.parametrize(("scheme", "tags", "position", "message"), [
    ("iob2", "O I-A", 1, "tag 'I-A' continues a span that was not begun, which IOB2 does not allow; begin it with B-A, or set "
                         "tag_scheme: iob1 if the file is IOB1"),
    ("iob2", "B-A I-B", 1, "tag 'I-B' continues a span that was not begun"),
    ("iob2", "S-A", 0, "tag 'S-A' is not IOB2, which has O, B-TYPE, I-TYPE; correct the tag, or the recipe's tag_scheme"),
    ("iob2", "PER", 0, "tag 'PER' is not IOB2"),
    ("iob1", "B-", 0, "tag 'B-' is not IOB1"),
    ("iob2", "", 0, "tag '' is not IOB2"),
    ("bioes", "B-A O", 0, "the span of type 'A' is not ended by E-A, as BIOES does; correct the tag or the tag_scheme"),
    ("bioes", "B-A", 0, "the span of type 'A' is not ended by E-A"),
    ("bilou", "O L-A", 1, "tag 'L-A' continues a span that was not begun"),
])
def test_broken_tags(scheme: Scheme, tags: str, position: int, message: str) -> None:
    _, wrong = to_iob2(tags.split(" "), scheme)
    assert [where for where, _, _ in wrong] == [position]
    assert wrong[0].message.startswith(message)


def test_broken_tag_names_its_own_line(tmp_path: Path) -> None:
    rows, problems = read("conll_columns", "a\tO\nb\tI-PER\n\nc\tO\n", tmp_path, IOB2)
    assert [row["tokens"] for row in rows] == [["c"]]
    assert problems[0].startswith("corpus:2: tag 'I-PER' continues a span that was not begun")


def test_props(tmp_path: Path) -> None:
    text = "d1\tShe\t(ARG0*)\t(ARG0*)\nd1\thas\t(V*)\t*\nd1\tto\t(ARG1*\t*\nd1\tgive\t*)\t(V*\nd1\tup\t*\t*)\n\nd2\tyes\n"
    rows, problems = read("conll_props", text, tmp_path, PROPS)
    assert not problems
    assert [row["id"] for row in rows] == ["d1/0", "d1/1"]
    assert [row["predicate"] for row in rows] == [1, 3]
    assert rows[0]["tokens"] == ["She", "has", "to", "give", "up"]
    assert rows[0]["tags"] == ["B-ARG0", "B-V", "B-ARG1", "I-ARG1", "O"]
    assert rows[1]["tags"] == ["B-ARG0", "O", "O", "B-V", "I-V"]


def test_props_with_trailing_column_and_comments(tmp_path: Path) -> None:
    text = "#begin document (a); part 000\na   go   (V*)   -\n\n#end document\n"
    rows, problems = read("conll_props", text, tmp_path, {"token": 1, "first_predicate": 2, "trailing": 1})
    assert not problems
    assert [(row["tags"], "id" in row) for row in rows] == [(["B-V"], False)]


@pytest.mark.parametrize(("column", "line", "message"), [
    ("(ARG0* *) (V*", 3, "bracket '(V*' is not closed by the end of its sentence; add the '*)'"),
    ("(ARG0* (V*) *)", 2, "bracket '(V*)' opens inside (ARG0*; the spans of a column cannot overlap: correct it"),
    ("*) (V*) *", 1, "bracket '*)' closes what was not opened"),
    ("(ARG0(ARG1*) (V*) *", 1, "brackets '(ARG0(ARG1*)' are not of the form (ROLE*), (ROLE*, *) or *; correct them"),
    ("(ARG0*) - *", 2, "brackets '-' are not of the form"),
    ("(ARG0*) * *", 1, "predicate column 2 has 0 spans (V*), expected exactly one; correct it, or remove the column"),
    ("(V*) (V*) *", 1, "predicate column 2 has 2 spans (V*), expected exactly one"),
])
def test_broken_props(tmp_path: Path, column: str, line: int, message: str) -> None:
    text = "".join(f"d\tw\t{cell}\n" for cell in column.split())
    rows, problems = read("conll_props", text, tmp_path, PROPS)
    assert rows == []
    assert len(problems) == 1
    assert problems[0].startswith(f"corpus:{line}: {message}")


def test_props_with_ragged_columns(tmp_path: Path) -> None:
    rows, problems = read("conll_props", "d\ta\t(V*)\nd\tb\n\nd\n", tmp_path, PROPS)
    assert rows == []
    assert [problem.split(":", 2)[1] for problem in problems] == ["2", "4"]
    assert "2 columns, expected 3 as in the rest of its sentence: 'd\\tb'; correct the line, or the recipe's" in problems[0]


def test_column_options() -> None:
    with pytest.raises(UserError, match="tag: 2 is no column of 2; they are counted from 0"):
        parse(READERS["conll_columns"].options, IOB2 | {"tag": 2}, "r")
    with pytest.raises(UserError, match="come before first_predicate"):
        parse(READERS["conll_props"].options, PROPS | {"token": 2}, "r")


def qa(**changes: object) -> dict[str, object]:
    return {"id": "1", "context": "A cat.", "question": "Who?", "answers": [{"text": "cat", "answer_start": 2}]} | changes


def test_qa_jsonl(tmp_path: Path) -> None:
    text = "\n".join(json.dumps(value) for value in (qa(), qa(id=2, title="T", answers=[])))
    rows, problems = read("records", f"{text}\n\n", tmp_path)
    assert not problems
    assert [(row["id"], row.get("title"), row["answers"]) for row in rows] == [
        ("1", None, [{"text": "cat", "answer_start": 2}]), ("2", "T", [])]
    assert rows[1]["where"].endswith(":2")


@pytest.mark.parametrize(("line", "message"), [
    ("{", "corpus:1: not valid JSON at column 2: Expecting property name"),
    ("[]", "corpus:1: found list '[]', expected a mapping"),
    (json.dumps({"context": "", "answers": []}), "corpus:1: key 'question' is missing; found context, answers"),
    (json.dumps(qa(answers="cat")), "corpus:1: answers: found str 'cat', expected a list"),
    (json.dumps(qa(answers=[{"text": "cat", "start": 2}])), "corpus:1: answers[0]: key 'answer_start' is missing; found text"),
    (json.dumps(qa(answers=[{"text": "cat", "answer_start": True}])), "corpus:1: answers[0]: answer_start: found bool 'True'"),
])
def test_broken_qa_jsonl(tmp_path: Path, line: str, message: str) -> None:
    rows, problems = read("records", line, tmp_path)
    assert rows == []
    assert problems[0].startswith(message)


def squad(*qas: dict[str, object]) -> str:
    return json.dumps({"version": "v2.0", "data": [{"title": "T", "paragraphs": [{"context": "A cat.", "qas": list(qas)}]}]})


def test_squad(tmp_path: Path) -> None:
    impossible = qa(id="2", answers=[], is_impossible=True, plausible_answers=[{"text": "A", "answer_start": 0}])
    rows, problems = read("squad_json", squad(qa(), qa(id="3", is_impossible=False), impossible), tmp_path)
    assert not problems
    assert [(row["id"], row["title"], row["context"], len(row["answers"])) for row in rows] == [
        ("1", "T", "A cat.", 1), ("3", "T", "A cat.", 1), ("2", "T", "A cat.", 0)]
    assert rows[0]["where"].endswith("corpus: data[0].paragraphs[0].qas[0] (1)")


@pytest.mark.parametrize(("text", "message"), [
    ("{\n]", "corpus:2: not valid JSON at column 1"),
    ("{}", "corpus: key 'data' is missing; found none"),
    ('{"data": [{}, 1]}', "corpus: data[0]: key 'paragraphs' is missing"),
    (squad({"id": "7"}), "corpus: data[0].paragraphs[0].qas[0]: key 'question' is missing; found id"),
    (squad(qa(answers=[])), "corpus: data[0].paragraphs[0].qas[0] (1): the question has no answer, and is_impossible is not"),
    (squad(qa(is_impossible=True)), "corpus: data[0].paragraphs[0].qas[0] (1): the question has answers although is_impossible"),
])
def test_broken_squad(tmp_path: Path, text: str, message: str) -> None:
    rows, problems = read("squad_json", text, tmp_path)
    assert rows == []
    assert problems[0].startswith(message)


def test_hub_needs_a_commit() -> None:
    for revision in ("main", "v1.0", "7b6d24c", "G" * 40):
        with pytest.raises(UserError, match=f"revision: '{revision}' is not a commit"):
            parse(Hub, {"id": "a/b", "revision": revision, "splits": {"train": "train", "test": "test"}}, "r")


@pytest.fixture
def hub_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data set as the hub has them: Parquet files named by split, read without network."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    answers = [{"text": ["cat"], "answer_start": [2]}, {"text": [], "answer_start": []}]
    table = pa.table({"qid": [1, 2], "context": ["A cat."] * 2, "question": ["Who?"] * 2, "answers": answers,
                      "tokens": [["a"], ["b", "c"]], "tags": [["O"], ["I-A", "I-A"]]})
    (tmp_path / "set").mkdir()
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    return tmp_path / "set"


def test_hub(hub_folder: Path) -> None:
    problems = Problems()
    hub = Hub(str(hub_folder), "0" * 40, Splits("train", "test"), fields={"id": "qid"}, tag_scheme="iob1")
    rows = list(read_hub(hub, "train", ("question", "context", "answers"), problems))
    assert [(row["id"], row["answers"]) for row in rows] == [("1", [{"text": "cat", "answer_start": 2}]), ("2", [])]
    rows = list(read_hub(hub, "train", ("tokens", "tags"), problems))
    assert [row["tags"] for row in rows] == [["O"], ["B-A", "I-A"]]
    assert not len(problems)


def test_broken_hub(hub_folder: Path) -> None:
    hub = Hub(str(hub_folder), "0" * 40, Splits("train", "test"), fields={"question": "query"})
    problems = Problems()
    for split in ("train", "test"):
        assert list(read_hub(hub, split, ("question", "tags"), problems)) == []
    with pytest.raises(UserError) as caught:
        problems.raise_if_any()
    assert "train:0: no column query; found qid, context" in caught.value.problems[0]
    assert "test: cannot be read: Bad split: test" in caught.value.problems[1]
    problems = Problems()
    assert list(read_hub(Hub(str(hub_folder), "0" * 40, Splits("train", "test")), "train", ("tokens", "tags"), problems)) == [
        {"tokens": ["a"], "tags": ["O"], "where": f"hub:{hub_folder}@00000000:train:0"}]
    assert len(problems) == 1  # an orphan I- tag is not IOB2

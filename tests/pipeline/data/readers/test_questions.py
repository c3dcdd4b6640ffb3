"""SQuAD's nested JSON (as a stream) and MRQA's lines: rows, and errors with position and remedy."""

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.data.readers import READERS
from pipeline.data.readers.json_stream import BUFFER_BYTES, JsonStream, NotJsonError
from pipeline.data.readers.mrqa_jsonl import Options as MrqaOptions
from pipeline.data.readers.squad_json import Options
from pipeline.errors import Problems
from tests.support.paths import DATA
from tests.support.raw import EXTENSIONS, compress, read, without_where


def qa(**changes: object) -> dict[str, object]:
    return {
        "id": "1",
        "context": "A cat.",
        "question": "Who?",
        "answers": [{"text": "cat", "answer_start": 2}],
    } | changes


def squad(*qas: dict[str, object]) -> str:
    return json.dumps(
        {
            "version": "v2.0",
            "data": [{"title": "T", "paragraphs": [{"context": "A cat.", "qas": list(qas)}]}],
        }
    )


def test_squad_has_one_row_per_question(tmp_path: Path) -> None:
    impossible = qa(
        id="2", answers=[], is_impossible=True, plausible_answers=[{"text": "A", "answer_start": 0}]
    )
    rows, problems = read(
        "squad_json", squad(qa(), qa(id="3", is_impossible=False), impossible), tmp_path
    )
    assert not problems
    assert [(row["id"], row["title"], row["context"], len(row["answers"])) for row in rows] == [
        ("1", "T", "A cat.", 1),
        ("3", "T", "A cat.", 1),
        ("2", "T", "A cat.", 0),
    ]
    assert rows[0]["where"] == "corpus:1: data[0].paragraphs[0].qas[0] (1)"


def test_title_may_be_last_or_absent(tmp_path: Path) -> None:
    paragraphs = [{"context": "A cat.", "qas": [qa(id=str(number))]} for number in range(2)]
    text = json.dumps(
        {
            "data": [{"paragraphs": paragraphs, "title": "T"}, {"paragraphs": paragraphs}],
            "version": 1,
        },
        indent=1,
    )
    rows, problems = read("squad_json", "\ufeff" + text, tmp_path)
    assert not problems
    assert [row.get("title") for row in rows] == ["T", "T", None, None]
    lines = text.split("\n")
    first_lines = [lines[int(row["where"].split(":")[1]) - 1].strip() for row in rows]
    assert first_lines == ["{"] * 4  # the first line of each paragraph


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "{\n]",
            "corpus:2: not valid JSON at column 1: Expecting property name enclosed in double "
            "quotes; download the file again",
        ),
        ("{}", "corpus: key 'data' is missing; found none"),
        ("[1]", "corpus: found a list [1], expected a mapping"),
        ('{"data": 3, "n": 1}', "corpus: data: found an integer 3, expected a list"),
        ('{"data": [{}, 1]}', "corpus:1: data[0]: key 'paragraphs' is missing"),
        (
            '{"data": [{"paragraphs": [{"qas": [], "n": 1}]}]}',
            "corpus:1: data[0].paragraphs[0]: key 'context' is missing; found qas, n; add it",
        ),
        (
            squad({"id": "7"}),
            "corpus:1: data[0].paragraphs[0].qas[0]: key 'question' is missing; found id",
        ),
        (
            squad(qa(answers=[])),
            "corpus:1: data[0].paragraphs[0].qas[0] (1): the question has no answer, "
            "and is_impossible is not",
        ),
        (
            squad(qa(is_impossible=True)),
            "corpus:1: data[0].paragraphs[0].qas[0] (1): the question has answers "
            "although is_imposs",
        ),
        (
            squad(qa(answers=[{"text": "cat", "answer_start": "2"}])),
            "corpus:1: data[0].paragraphs[0].qas[0] (1): answers[0]: "
            "answer_start: found text '2', expected an integer",
        ),
        (
            '{"data": [{"paragraphs": [{"context": "\\ud83d", "qas": []}]}]}',
            "corpus:1: not valid JSON at column 39: an escape",
        ),
        ('{"data": ' + "[" * 100_000, "corpus:1: not valid JSON at column 11: "),
        (
            '{"data": [{"n": ' + "1" * 5000 + "}]}",
            "corpus:1: not valid JSON at column 17: Exceeds the limit",
        ),
        ("", "corpus:1: not valid JSON at column 1: Expecting value"),
        ('{"data": [],\n "data": []}', "corpus:2: column 2: key 'data' occurs twice in a mapping"),
        (
            '{"data": [{"paragraphs": [], "title": "a", "title": "b"}]}',
            "corpus:1: column 44: key 'title' occurs twice in a mapping",
        ),
    ],
)
def test_invalid_squad_is_reported(tmp_path: Path, text: str, message: str) -> None:
    rows, problems = read("squad_json", text, tmp_path)
    assert rows == []
    assert problems[0].startswith(message)


def test_ids_are_text_or_integers_and_may_be_missing(tmp_path: Path) -> None:
    unnumbered = {key: value for key, value in qa().items() if key != "id"}
    questions = [qa(id=51), qa(id=0), unnumbered, qa(id=None), qa(id=True), qa(id=[1])]
    rows, problems = read("squad_json", squad(*questions), tmp_path)
    assert [row.get("id") for row in rows] == ["51", "0", None, None]
    assert rows[0]["where"].endswith("qas[0] (51)")
    assert [problem.split("; ")[0] for problem in problems] == [
        f"corpus:1: data[0].paragraphs[0].qas[{number}]: id: found {found}, "
        "expected text or an integer"
        for number, found in ((4, "true"), (5, "a list [1]"))
    ]
    text = lines(mrqa(qid=7), mrqa(qid=None))
    rows, problems = read("mrqa_jsonl", text, tmp_path)
    assert ([row.get("id") for row in rows], problems) == (["7", None], [])
    collected = Problems()
    list(READERS["mrqa_jsonl"].read(tmp_path / "corpus", MrqaOptions(), collected))
    assert collected.counts == {"missing-id": 1}


@pytest.mark.parametrize(
    ("title", "titles"), [(None, [None]), (0, ["0"]), ("", [""]), ("None", ["None"]), (False, [])]
)
def test_title_is_what_it_is(tmp_path: Path, title: object, titles: list[object]) -> None:
    paragraph = {"context": "A cat.", "qas": [qa()]}
    text = json.dumps({"data": [{"title": title, "paragraphs": [paragraph]}]})
    rows, problems = read("squad_json", text, tmp_path)
    assert [row.get("title") for row in rows] == titles
    assert bool(problems) == (not titles)
    if problems:
        assert "title: found false, expected text; correct it" in problems[0]


@pytest.mark.parametrize(
    ("flag", "answers", "message"),
    [
        (None, True, ""),
        (False, True, ""),
        (True, False, ""),
        ("False", True, "is_impossible: found text 'False', expected true or false; write it"),
        ("", False, "is_impossible: found text '', expected true or false"),
        (0, True, "is_impossible: found an integer 0, expected true or false"),
    ],
)
def test_flag_is_checked_by_type(tmp_path: Path, flag: object, answers: bool, message: str) -> None:
    question = qa(is_impossible=flag, answers=qa()["answers"] if answers else [])
    rows, problems = read("squad_json", squad(question), tmp_path)
    assert (len(rows), len(problems)) == ((0, 1) if message else (1, 0))
    assert not message or message in problems[0]


def test_line_is_that_of_the_question(tmp_path: Path) -> None:
    text = json.dumps(json.loads(squad(qa(id="1"), qa(id="2"), qa(id="3", question=5))), indent=1)
    rows, problems = read("squad_json", text, tmp_path)
    lines = text.split("\n")
    places = [*(row["where"] for row in rows), problems[0]]
    assert [lines[int(place.split(":")[1])].strip() for place in places] == [
        f'"id": "{number}",' for number in (1, 2, 3)
    ]


def test_all_problems_of_a_question_are_reported(tmp_path: Path) -> None:
    answers = [{"text": "cat", "answer_start": "2"}, {"text": 3, "answer_start": 1}]
    question = qa(id=[], question=None, is_impossible=1, answers=answers)
    _, problems = read("squad_json", squad(question), tmp_path)
    assert [problem.split(": ")[2] for problem in problems] == [
        "id",
        "question",
        "is_impossible",
        "answers[0]",
        "answers[1]",
    ]


def test_question_instead_of_an_article_has_a_remedy(tmp_path: Path) -> None:
    _, problems = read("squad_json", json.dumps({"data": [qa()]}), tmp_path)
    assert problems[0].startswith("corpus:1: data[0]: the item is one question, not an article")
    assert "reader: records" in problems[0]


def test_offsets_are_converted(tmp_path: Path) -> None:
    context, text = "😀 né: a cat.", {"text": "cat", "answer_start": 9}
    paragraph = {"context": context, "qas": [qa(answers=[text])]}
    content = json.dumps({"data": [{"title": "T", "paragraphs": [paragraph]}]})
    rows, problems = read("squad_json", content, tmp_path, {"offsets": "utf16"})
    assert (rows[0]["answers"], problems) == ([{"text": "cat", "answer_start": 8}], [])
    content = content.replace('"answer_start": 9', '"answer_start": 1')
    rows, problems = read("squad_json", content, tmp_path, {"offsets": "utf16"})
    assert rows == []
    assert "answers[0]: offset 1 is inside a character if it counts utf16" in problems[0]
    content = content.replace('"answer_start": 1', '"answer_start": 10')
    rows, problems = read("squad_json", content, tmp_path, {"offsets": "bytes"})
    assert rows[0]["answers"][0]["answer_start"] == 10  # the task reports the offset of the file
    detected = [{"text": "cat", "char_spans": [[12, 14]]}]
    line = json.dumps({"context": context, "qas": [mrqa(detected_answers=detected)]})
    rows, problems = read("mrqa_jsonl", line, tmp_path, {"offsets": "bytes"})
    assert (rows[0]["answers"], problems) == ([{"text": "cat", "answer_start": 8}], [])


@pytest.mark.parametrize(
    ("context", "text", "span"), [("It is -5.", "5", [6, 7]), ("A 3.5 m", "35", [2, 4])]
)
def test_answer_must_equal_its_span_and_not_only_its_letters(
    tmp_path: Path, context: str, text: str, span: list[int]
) -> None:
    detected = [{"text": text, "char_spans": [span]}]
    line = json.dumps({"context": context, "qas": [mrqa(detected_answers=detected)]})
    rows, problems = read("mrqa_jsonl", line, tmp_path)
    assert rows == []
    assert f"answer '{text}' has the char_spans" in problems[0]


def test_questions_before_the_damage_are_read(tmp_path: Path) -> None:
    rows, problems = read("squad_json", squad(qa())[:-1], tmp_path)
    assert (len(rows), len(problems)) == (1, 1)
    assert problems[0].startswith("corpus:1: not valid JSON at column ")
    rows, problems = read("squad_json", squad(qa()) + "}", tmp_path)
    assert problems[0].endswith("Extra data; download the file again")
    _, problems = read("squad_json", b'{\n"data": "\xff"}\n', tmp_path)
    assert problems == [
        "corpus:2: byte 12, 0xff, is not UTF-8; "
        "convert the file, e.g. with iconv -f latin1 -t utf-8"
    ]
    content = compress(squad(*(qa(id=str(number)) for number in range(2000))).encode(), ".gz")
    _, problems = read("squad_json", content[:-9], tmp_path)
    assert problems[0].startswith("corpus: the rest of the file cannot be read: ")


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def walk(stream: JsonStream, depth: int = 0) -> Any:
    """Read a value with items and members, down to depth 3."""
    if depth < 3 and stream.peek() == "[":
        return [walk(stream, depth + 1) for _ in stream.items()]
    if depth < 3 and stream.peek() == "{":
        return {key: walk(stream, depth + 1) for key in stream.members()}
    return stream.value()


class SlowFile(io.BytesIO):
    """A file that returns few bytes at a time, as pipes do."""

    def read(self, size: int | None = -1) -> bytes:
        return super().read(min(size or 3, 3))


def load(file: io.BytesIO) -> Any:
    stream = JsonStream(file)
    value = walk(stream)
    stream.end()
    return value


@settings(deadline=None)
@given(JSON, st.sampled_from([None, 0, 2]), st.booleans())
def test_stream_equals_json_loads(value: Any, indent: int | None, ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii).encode()
    for file in (io.BytesIO(text), SlowFile(text)):
        assert load(file) == value


@settings(deadline=None)
@given(JSON, st.integers(0, 200), st.binary(max_size=2))
def test_stream_refuses_the_same_texts_as_json_loads(
    value: Any, position: int, suffix: bytes
) -> None:
    text = json.dumps(value).encode()
    damaged = text[: position % len(text)] + suffix
    try:
        expected = json.loads(damaged.decode("utf-8-sig"), parse_constant=lambda name: None)
    except ValueError:
        for file in (io.BytesIO(damaged), SlowFile(damaged)):
            with pytest.raises(NotJsonError):
                load(file)
    else:
        assert load(SlowFile(damaged)) == expected


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    def peak(articles: int) -> int:
        path = tmp_path / "corpus"
        path.write_text(
            json.dumps({"data": json.loads(squad(qa(context="A cat." * 99)))["data"] * articles})
        )
        tracemalloc.start()
        rows = READERS["squad_json"].read(path, Options(), Problems())
        assert sum(1 for _ in rows) == articles
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert path.stat().st_size > articles * 100
        return peak_bytes

    assert peak(20_000) < peak(2_000) + BUFFER_BYTES


@pytest.mark.parametrize(
    ("name", "rows", "impossible"),
    [
        ("squad/dev-v1.1.json", 10570, 0),
        ("squad/train-v1.1-part.json", 11877, 0),
        ("squad_v2/dev-v2.0.json", 11873, 5945),
    ],
)
@pytest.mark.parametrize("extension", ["", ".zst"])
def test_official_files_are_read_without_problems(
    name: str, rows: int, impossible: int, extension: str, tmp_path: Path
) -> None:
    if not (DATA / "qa" / name).is_file():
        pytest.skip(f"{DATA / 'qa' / name} is absent")
    content = (DATA / "qa" / name).read_bytes()
    result, problems = read(
        "squad_json", compress(content, extension), tmp_path, name=f"corpus{extension}"
    )
    assert not problems
    assert (len(result), sum(not row["answers"] for row in result)) == (rows, impossible)
    flat = [
        (qa["id"], qa["question"], paragraph["context"], qa["answers"], article["title"])
        for article in json.loads(content)["data"]
        for paragraph in article["paragraphs"]
        for qa in paragraph["qas"]
    ]
    assert [
        tuple(row[key] for key in ("id", "question", "context", "answers", "title"))
        for row in result
    ] == flat


HEADER = '{"header": {"dataset": "ours", "split": "train"}}\n'


def mrqa(**changes: object) -> dict[str, object]:
    return {
        "qid": "a1",
        "id": "x",
        "question": "Who?",
        "answers": ["Cat"],
        "detected_answers": [
            {"text": "Cat", "char_spans": [[2, 4], [9, 11]], "token_spans": [[1, 1], [4, 4]]}
        ],
    } | changes


def lines(*qas: object, context: object = "A cat, a cat.") -> str:
    return (
        HEADER
        + json.dumps(
            {"id": "c", "context": context, "context_tokens": [["A", 0]], "qas": list(qas)}
        )
        + "\n"
    )


def test_mrqa_has_each_span_of_an_answer_once(tmp_path: Path) -> None:
    twice = mrqa(qid="b", detected_answers=mrqa()["detected_answers"] * 2)  # type: ignore[operator]
    rows, problems = read("mrqa_jsonl", lines(mrqa(), twice), tmp_path)
    assert not problems
    shared = {
        "context": "A cat, a cat.",
        "question": "Who?",
        "answers": [{"text": "cat", "answer_start": 2}, {"text": "cat", "answer_start": 9}],
    }
    assert without_where(rows) == [{"id": "a1", **shared}, {"id": "b", **shared}]
    assert rows[1]["where"] == "corpus:2: qas[1] (b)"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (lines(mrqa(), context=3), "2: context: found an integer 3, expected text"),
        (
            lines({"qid": "1", "question": "q"}),
            "2: qas[0]: key 'detected_answers' is missing; found qid, question",
        ),
        (
            lines(mrqa(detected_answers=[])),
            "2: qas[0]: the question has no detected answer, but each MRQA question needs one; "
            "remove",
        ),
        (
            lines(mrqa(detected_answers=[{"text": "cat", "char_spans": [[3, 5]]}])),
            "2: qas[0].detected_answers[0]: answer 'cat' has the char_spans 3 to 5, "
            "but the context has 'at,' there; off by one: count characters from 0",
        ),
        (
            lines(mrqa(detected_answers=[{"text": "cat", "char_spans": [[90, 95]]}])),
            "2: qas[0].detected_answers[0]: answer 'cat' has",
        ),
        (
            lines(mrqa(detected_answers=[{"text": "cat", "char_spans": [["2", 4]]}])),
            "2: qas[0].detected_answers[0]: char_spans: found \"['2', 4]\", "
            "expected pairs of integers",
        ),
        (HEADER + "{", "2: not valid JSON at column 2"),
    ],
)
def test_invalid_mrqa_is_reported(line: str, message: str, tmp_path: Path) -> None:
    rows, problems = read("mrqa_jsonl", line, tmp_path)
    assert rows == []
    assert problems[0].startswith(f"corpus:{message}")


@pytest.mark.parametrize("extension", EXTENSIONS)
def test_mrqa_is_read_in_any_compression(extension: str, tmp_path: Path) -> None:
    content = compress(lines(mrqa()).encode(), extension)
    rows, problems = read("mrqa_jsonl", content, tmp_path, name=f"a.jsonl{extension}")
    assert (len(rows), problems) == (1, [])

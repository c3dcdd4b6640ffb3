"""CoNLL columns: rows, detected options, and errors with file, line, value and remedy."""

import ast
import gzip
import re
from pathlib import Path

import pytest

from pipeline.config import parse
from pipeline.data.readers import READERS
from pipeline.data.readers.base import Slice, Splits, compression, matching_files
from pipeline.errors import Problems, UserError
from pipeline.tasks.base.row import TAG_PROBLEMS
from tests.support.paths import DATA, ROOT
from tests.support.raw import EXTENSIONS, compress, read, without_where

IOB2 = {"columns": 2, "token": 0, "tag": 1, "tag_scheme": "iob2", "separator": "\t"}
PROPS = {"token": 1, "first_predicate": 2, "id_columns": [0], "separator": "\t"}


def test_blank_lines_and_docstart_lines_end_sentences(tmp_path: Path) -> None:
    text = "-DOCSTART-\tO\n\nAda\tB-PER\nByron\tI-PER\n \t \nran\tO\n-DOCSTART-\tO\nhome\tB-LOC"
    rows, problems = read("conll_columns", text, tmp_path, IOB2)
    assert not problems
    assert [(row["where"][-2:], row["tokens"], row["tags"]) for row in rows] == [
        (":3", ["Ada", "Byron"], ["B-PER", "I-PER"]),
        (":6", ["ran"], ["O"]),
        (":8", ["home"], ["B-LOC"]),
    ]


def test_slices_of_a_file_have_its_rows(tmp_path: Path) -> None:
    path, text = tmp_path / "corpus", b"\xef\xbb\xbfa\tO\n\nb\tO\n\n"
    path.write_bytes(text)
    options = parse(READERS["conll_columns"].options, IOB2, "r")
    whole, first, second = (
        list(READERS["conll_columns"].read(source, options, Problems()))
        for source in (path, Slice(path, 0, 8, 1), Slice(path, 8, len(text), 3))
    )
    assert first + second == whole
    assert len(first) == len(second) == 1


def test_only_newlines_end_lines(tmp_path: Path) -> None:
    text = "\ufeffa\u2028b\tO\r\nc\x85\tO\r\n\xa0d\tO\r\n"
    rows, problems = read("conll_columns", text, tmp_path, IOB2)
    assert not problems
    assert rows[0]["tokens"] == ["a\u2028b", "c\x85", "\xa0d"]


def test_default_separator_keeps_no_break_spaces(tmp_path: Path) -> None:
    rows, problems = read("conll_columns", "10\xa0000 \t O\n", tmp_path, IOB2 | {"separator": None})
    assert not problems
    assert rows[0]["tokens"] == ["10\xa0000"]


def test_empty_file_has_no_rows_and_no_problems(tmp_path: Path) -> None:
    assert read("conll_columns", "", tmp_path, IOB2) == ([], [])


def test_wrong_columns_are_reported_and_valid_sentences_kept(tmp_path: Path) -> None:
    rows, problems = read("conll_columns", "a O\n\nb\tO\n\nc\tO\tO\n\tO\n", tmp_path, IOB2)
    assert [row["tokens"] for row in rows] == [["b"]]
    assert problems == [
        "corpus:1: 1 column, expected 2: 'a O'; "
        "correct the line, or the recipe's separator or columns",
        "corpus:5: 3 columns, expected 2: 'c\\tO\\tO'; "
        "correct the line, or the recipe's separator or columns",
        "corpus:6: column 0, the token, is empty: '\\tO'; remove the line or fill it in",
    ]


def test_bytes_that_are_not_utf8_are_reported(tmp_path: Path) -> None:
    _, problems = read("conll_columns", b"a\tO\ncaf\xe9\tO\n", tmp_path, IOB2)
    assert problems == [
        "corpus:2: byte 4, 0xe9, is not UTF-8; convert the file, e.g. with iconv -f latin1 -t utf-8"
    ]


def test_invalid_tag_is_reported_with_its_line(tmp_path: Path) -> None:
    """The task refuses the row after it has checked its labels too."""
    rows, problems = read("conll_columns", "a\tO\nb\tI-PER\n\nc\tO\n", tmp_path, IOB2)
    assert not problems
    assert [row["tokens"] for row in rows if TAG_PROBLEMS not in row] == [["c"]]
    (problem,) = rows[0][TAG_PROBLEMS]
    assert problem.where.endswith("corpus:2")
    assert problem.message.startswith("tag 'I-PER' continues a span that has not begun")


UD = {
    "columns": 10,
    "token": 1,
    "tag": 9,
    "feature": "NER",
    "tag_scheme": "iob2",
    "separator": "\t",
    "comment": "#",
    "token_id": 0,
}
TREE = """# sent_id = 1
# text = Vamonos ya, #Ada Ode!
1-2\tVámonos\t_\t_\t_\t_\t_\t_\t_\tNER=B-X
1\tVamos\tir\tVERB\t_\tMood=Imp\t0\troot\t_\t_
2\tnos\tnosotros\tPRON\t_\t_\t1\tobj\t_\tGloss=us
2.1\tno\tno\t_\t_\t_\t_\t_\t_\tNER=B-X
3\t#Ada\tAda\tPROPN\t_\t_\t1\tvocative\t_\tNER=B-PER|SpaceAfter=No
4\tOde\tOde\tPROPN\t_\t_\t3\tflat\t_\tGloss=x|NER=I-PER

# sent_id = 2
1\t#\t_\t_\t_\t_\t_\t_\t_\t_
"""


def test_tag_is_a_feature_of_conllu(tmp_path: Path) -> None:
    rows, problems = read("conll_columns", TREE, tmp_path, UD)
    assert not problems
    assert without_where(rows) == [
        {"tokens": ["Vamos", "nos", "#Ada", "Ode"], "tags": ["O", "O", "B-PER", "I-PER"]},
        {"tokens": ["#"], "tags": ["O"]},
    ]
    assert rows[0]["where"] == "corpus:4"


def test_tag_is_a_column_of_conllu(tmp_path: Path) -> None:
    text = "# UNER\n1\tAda\tB-PER\t-\tme\n2\tran\tO\t-\tme\n"
    options = {"columns": 5, "token": 1, "tag": 2, "tag_scheme": "auto", "comment": "#"}
    rows, problems = read("conll_columns", text, tmp_path, options)
    assert not problems
    assert without_where(rows) == [{"tokens": ["Ada", "ran"], "tags": ["B-PER", "O"]}]


def test_entities_of_ontonotes_are_in_brackets(tmp_path: Path) -> None:
    text = (
        "#begin document (a); part 000\n"
        "a 0 0 Hong NNP (TOP(NP* - - - - (GPE* (V*) (12\n"
        "a 0 1 Kong NNP *) - - - - *) * 12)\n"
        "a 0 2 . . *) - - - - (X) * -\n\n"
        "#end document\n"
    )
    options = {"columns": 13, "token": 3, "tag": 10, "tag_scheme": "brackets"}
    rows, problems = read("conll_columns", text, tmp_path, options)
    assert not problems
    assert without_where(rows) == [
        {"tokens": ["Hong", "Kong", "."], "tags": ["B-GPE", "I-GPE", "B-X"]}
    ]


AUTO = {"columns": "auto", "token": 0, "tag": -1, "tag_scheme": "auto", "separator": "auto"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "new york\tx\tI-A\n\nb\tx\tB-A\nc\tx\tI-A\n\nd\tx\tI-A\n",
            {"columns": 3, "separator": "\t", "tag_scheme": "iob1"},
        ),
        ("a x B-A\nb\tx O\nc  x\tO\n", {"columns": 3, "separator": None, "tag_scheme": "iob2"}),
        ("a S-A\n\nb O\n\nc O x\n", {"columns": 2, "separator": None, "tag_scheme": "bioes"}),
        (  # one invalid line
            "a b\tx\tI-A\n\nx\tO\nc\tx\tO\nd e\tx\tO\n",
            {"columns": 3, "separator": "\t", "tag_scheme": "iob1"},
        ),
        ("", {"columns": 2, "separator": "\t", "tag_scheme": "iob2"}),
    ],
)
def test_auto_options_are_detected(text: str, expected: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "corpus"
    path.write_text(text)
    options = parse(READERS["conll_columns"].options, AUTO, "r")
    resolved, detected = READERS["conll_columns"].resolve_auto(options, [path])
    assert detected == expected
    assert {name: getattr(resolved, name) for name in expected} == expected


def test_auto_options_are_equal_for_all_files(tmp_path: Path) -> None:
    """The two files alone would have different schemes."""
    files = []
    for number, text in enumerate(["a B-A\n\nb B-A\nc I-A\n", "a I-A\n"]):
        files.append(tmp_path / str(number))
        files[-1].write_text(text)
    options = parse(READERS["conll_columns"].options, AUTO | {"columns": 2, "separator": None}, "r")
    resolved, detected = READERS["conll_columns"].resolve_auto(options, files)
    assert detected == {"tag_scheme": "iob2"}
    (row,) = READERS["conll_columns"].read(files[1], resolved, Problems())
    assert [problem.kind for problem in row[TAG_PROBLEMS]] == ["orphan-tag"]


@pytest.mark.parametrize("extension", EXTENSIONS[1:])
def test_compression_is_detected_by_content(extension: str, tmp_path: Path) -> None:
    rows, problems = read("conll_columns", compress(b"a\tO\n", extension), tmp_path, IOB2)
    assert (len(rows), problems) == (1, [])


@pytest.mark.parametrize("extension", EXTENSIONS[1:])
def test_damaged_file_is_reported_with_the_first_unreadable_line(
    extension: str, tmp_path: Path
) -> None:
    content = compress(b"".join(b"token%d\tO\n\n" % number for number in range(9999)), extension)
    for damaged in (content[: len(content) // 2], content[:5], b"", b"plain\tO\n"):
        rows, messages = read("conll_columns", damaged, tmp_path, IOB2, f"corpus{extension}")
        assert len(rows) < 9999
        assert messages[-1].startswith(f"corpus{extension}:"), messages
        assert "the rest of the file cannot be read: " in messages[-1]
    path = tmp_path / "half.gz"
    path.write_bytes(gzip.compress(b"a\tO\n\n" * 9)[:-4])
    options, problems = parse(READERS["conll_columns"].options, IOB2, "r"), Problems()
    list(READERS["conll_columns"].read(path, options, problems))
    assert (problems.counts, problems.hiding) == ({"damaged-file": 1}, 1)


def test_every_problem_has_a_kind_in_kebab_case() -> None:
    calls: list[ast.Call] = []
    for file in sorted((ROOT / "pipeline/data/readers").glob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("problems.add"):
                calls.append(node)
    assert len(calls) > 40
    for call in calls:
        assert len(call.args) > 2, ast.unparse(call)
        for node in ast.walk(call.args[2]):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                assert re.fullmatch(r"[a-z]+(-[a-z]+)*", node.value), ast.unparse(call)


def test_pattern_matches_files_in_order(tmp_path: Path) -> None:
    for name in ("a-2.txt", "a-1.txt", "b[1].txt", "b1.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in matching_files(tmp_path, "a-*.txt")] == ["a-1.txt", "a-2.txt"]
    assert [path.name for path in matching_files(tmp_path, "b[1].txt")] == ["b[1].txt"]
    assert matching_files(tmp_path, "c*") == []
    assert compression(tmp_path / "b1.txt") is None


@pytest.mark.parametrize("name", ["", ".", "**x", "../a", "/a"])
def test_invalid_file_names_are_refused(name: str) -> None:
    with pytest.raises(UserError):
        parse(Splits, {"train": name, "test": "b"}, "r")


def test_props_have_one_row_per_predicate(tmp_path: Path) -> None:
    text = (
        "d1\tShe\t(ARG0*)\t(ARG0*)\nd1\thas\t(V*)\t*\nd1\tto\t(ARG1*\t*\nd1\tgive\t*)\t(V*\n"
        "d1\tup\t*\t*)\n\nd2\tyes\n"
    )
    rows, problems = read("conll_props", text, tmp_path, PROPS)
    assert not problems
    assert [row["id"] for row in rows] == ["d1/0", "d1/1"]
    assert [row["predicate"] for row in rows] == [1, 3]
    assert rows[0]["tokens"] == ["She", "has", "to", "give", "up"]
    assert rows[0]["tags"] == ["B-ARG0", "B-V", "B-ARG1", "I-ARG1", "O"]
    assert rows[1]["tags"] == ["B-ARG0", "O", "O", "B-V", "I-V"]


def test_trailing_columns_and_boundaries_of_props_are_skipped(tmp_path: Path) -> None:
    text = "#begin document (a); part 000\na   go   (V*)   -\n\n#end document\n"
    rows, problems = read(
        "conll_props", text, tmp_path, {"token": 1, "first_predicate": 2, "trailing": 1}
    )
    assert not problems
    assert [(row["tags"], "id" in row) for row in rows] == [(["B-V"], False)]


@pytest.mark.parametrize(
    ("column", "line", "message"),
    [
        (
            "(ARG0* *) (V*",
            3,
            "bracket '(V*' is not closed in its sentence; add the '*)'",
        ),
        (
            "(ARG0* (V*) *)",
            2,
            "bracket '(V*)' opens inside (ARG0*; the spans of a column cannot overlap: correct it",
        ),
        ("*) (V*) *", 1, "bracket '*)' closes a span that is not open"),
        (
            "(ARG0(ARG1*) (V*) *",
            1,
            "brackets '(ARG0(ARG1*)' do not have the form (ROLE*), (ROLE*, *) or *; correct them",
        ),
        ("(ARG0*) - *", 2, "brackets '-' do not have the form"),
        (
            "(ARG0*) * *",
            1,
            "predicate column 2 has 0 spans (V*), expected exactly 1; "
            "correct it, or remove the column",
        ),
        ("(V*) (V*) *", 1, "predicate column 2 has 2 spans (V*), expected exactly 1"),
    ],
)
def test_invalid_props_are_reported_with_their_line(
    tmp_path: Path, column: str, line: int, message: str
) -> None:
    text = "".join(f"d\tw\t{cell}\n" for cell in column.split())
    rows, problems = read("conll_props", text, tmp_path, PROPS)
    assert rows == []
    assert len(problems) == 1
    assert problems[0].startswith(f"corpus:{line}: {message}")


def test_lines_of_a_sentence_need_the_same_number_of_columns(tmp_path: Path) -> None:
    rows, problems = read("conll_props", "d\ta\t(V*)\nd\tb\n\nd\n", tmp_path, PROPS)
    assert rows == []
    assert [problem.split(":", 2)[1] for problem in problems] == ["2", "4"]
    message = (
        "2 columns, expected 3 as in the rest of its sentence: 'd\\tb'; "
        "correct the line, or the recipe's"
    )
    assert message in problems[0]


def test_invalid_options_are_refused() -> None:
    with pytest.raises(UserError, match="tag: there is no column 2 of 2; count columns from 0"):
        parse(READERS["conll_columns"].options, IOB2 | {"tag": 2}, "r")
    with pytest.raises(UserError, match=r"before first_predicate; .*trailing: -1 is a negative"):
        parse(READERS["conll_props"].options, PROPS | {"token": 2, "trailing": -1}, "r")
    with pytest.raises(UserError, match="files of words and props cannot have comments"):
        parse(READERS["conll_props"].options, SPLIT | {"comment": "#"}, "r")


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        (
            {"token": 5, "tag": -7, "separator": ""},
            "token: there is no column 5 of 2; count columns from 0; "
            "tag: there is no column -7 of 2; count columns from 0; "
            "separator, comment, feature and document_mark must not be empty; remove the empty key",
        ),
        (
            {"token": 1, "tag": -1},
            "token and tag: 1 and -1 are the same column; correct one of them",
        ),
        (
            {"columns": "auto", "token": -1, "tag": -1},
            "token and tag: -1 and -1 are the same column; correct one of them",
        ),
    ],
)
def test_columns_exist_and_differ(changes: dict[str, object], problem: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(READERS["conll_columns"].options, IOB2 | changes, "r")
    assert caught.value.problems == (f"r: {problem}",)


def test_detected_number_of_columns_keeps_token_and_tag_apart(tmp_path: Path) -> None:
    """With two columns, the last column is that of the token."""
    options = parse(READERS["conll_columns"].options, AUTO | {"token": 1}, "r")
    for text, width in (("1 Ada O\n1 Ada\n2 Bo\n", 3), ("1 Ada\n", 3), ("1 Ada x O\n", 4)):
        (tmp_path / "a").write_text(text)
        _, detected = READERS["conll_columns"].resolve_auto(options, [tmp_path / "a"])
        assert detected["columns"] == width


MARKED = {"token": 0, "marks": 1, "first_predicate": 2}


def test_number_of_marks_equals_number_of_predicate_columns(tmp_path: Path) -> None:
    rows, problems = read("conll_props", "She - (A0*)\nran run (V*)\n\nno -\n", tmp_path, MARKED)
    assert not problems
    assert without_where(rows) == [
        {"tokens": ["She", "ran"], "predicate": 1, "tags": ["B-A0", "B-V"]}
    ]
    rows, problems = read("conll_props", "She - (A0*)\nran - (V*)\n\nno no\n", tmp_path, MARKED)
    assert rows == []
    assert problems == [
        f"corpus:{line}: column 1 marks {marks}, but the sentence has {columns}; "
        "correct the sentence, or the recipe's marks, first_predicate or trailing"
        for line, marks, columns in (
            (1, "0 predicates", "1 predicate column"),
            (4, "1 predicate", "0 predicate columns"),
        )
    ]


WORDS = "The DT\nboy NN\nsays VBZ\nno UH\n\nOh UH\n\nGo VB\n"
PROPS_2005 = "-    (A0*\n-    *)\nsay  (V*)\n-    (A1*)\n\n-\n\ngo   (V*)\n"
SPLIT = {"token": 0, "marks": 2, "first_predicate": 3, "words": {"props": "words"}}


@pytest.mark.parametrize(
    ("words", "props", "extension"),
    [
        ("words/train.words", "props/train.props", ""),
        ("words/train.02.words.gz", "props/train.02.props.gz", ".gz"),
        ("words/a", "props/a", ""),
        ("a.words", "a.props", ""),
    ],
)
def test_words_and_props_may_be_in_two_files(
    words: str, props: str, extension: str, tmp_path: Path
) -> None:
    for name in (words, props):
        (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / words).write_bytes(compress(WORDS.encode(), extension))
    rows, problems = read(
        "conll_props", compress(PROPS_2005.encode(), extension), tmp_path, SPLIT, props
    )
    assert not problems
    assert without_where(rows) == [
        {
            "tokens": ["The", "boy", "says", "no"],
            "predicate": 2,
            "tags": ["B-A0", "I-A0", "B-V", "B-A1"],
        },
        {"tokens": ["Go"], "predicate": 0, "tags": ["B-V"]},
    ]
    assert rows[1]["where"] == f"{props}:8"
    options = parse(READERS["conll_props"].options, SPLIT, "r")
    assert READERS["conll_props"].companion_files(tmp_path / props, options) == [tmp_path / words]
    assert READERS["conll_props"].chunk_boundary(tmp_path / props, options) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            None,
            "a.props: its file of words does not exist (options.words {'props': 'words'}); "
            "add the file, or correct words",
        ),
        (
            "The DT\n\nboy NN\n",
            "a.props:2: '-    *)' does not match '' of {}/a.words:2: "
            "only one of them ends a sentence",
        ),
        (WORDS + "\nmore NN\n", "{}/a.words:10: '' does not match 'more NN' of {}/a.words:10"),
        (WORDS[:-6], "a.props:8: 'go   (V*)' does not match '' of "),
    ],
)
def test_files_of_words_and_props_that_do_not_match_are_reported(
    words: str | None, message: str, tmp_path: Path
) -> None:
    if words:
        (tmp_path / "a.words").write_text(words)
    _, problems = read("conll_props", PROPS_2005, tmp_path, SPLIT, "a.props")
    assert problems[0].startswith(message.replace("{}", str(tmp_path)))


CORPORA = [
    ("ner/conll2003/eng.train", "I-", 14041, "iob1"),
    ("ner/wnut17/wnut17train.conll", "B-", 3394, "iob2"),
]


@pytest.mark.parametrize(
    ("name", "prefix", "rows", "scheme"), CORPORA, ids=[name for name, *_ in CORPORA]
)
@pytest.mark.parametrize("extension", EXTENSIONS)
def test_public_corpora_are_read_with_auto_options(
    name: str, prefix: str, rows: int, scheme: str, extension: str, tmp_path: Path
) -> None:
    if not (DATA / name).is_file():
        pytest.skip(f"{DATA / name} is absent")
    path = tmp_path / f"corpus{extension}"
    path.write_bytes(compress((DATA / name).read_bytes(), extension))
    reader = READERS["conll_columns"]
    options, detected = reader.resolve_auto(parse(reader.options, AUTO, "r"), [path])
    assert detected["tag_scheme"] == scheme
    problems = Problems()
    assert sum(1 for _ in reader.read(path, options, problems)) == rows
    assert not len(problems)

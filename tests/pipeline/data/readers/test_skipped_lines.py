"""Lines and columns that a reader skips or joins are counted, and warned of if they may be data."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.config import parse
from pipeline.data.readers import READERS
from pipeline.errors import Problems
from pipeline.tasks import task_named
from pipeline.tasks.base.row import Row

TWO_COLUMNS = {"columns": 2, "token": 0, "tag": 1, "tag_scheme": "iob2", "comment": "#"}
UD = {
    "columns": 4,
    "token": 1,
    "tag": 3,
    "tag_scheme": "iob2",
    "separator": "\t",
    "comment": "#",
    "token_id": 0,
}
PROPS = {"token": 0, "first_predicate": 3, "trailing": 1, "comment": "#"}


def read(
    text: str | bytes, folder: Path, options: dict[str, Any], reader: str = "conll_columns"
) -> tuple[list[Row], Problems]:
    """The rows and the problems of a file, with the file's name as its path."""
    path, problems = folder / "corpus", Problems()
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    parsed = parse(READERS[reader].options, options, "recipe")
    rows = list(READERS[reader].read(path, parsed, problems))
    problems.kept = [
        problem._replace(where=problem.where.replace(str(path), "corpus"))
        for problem in problems.kept
    ]
    assert not len(problems), "there are warnings only"
    return rows, problems


def warnings(problems: Problems) -> list[tuple[str, str]]:
    return [(problem.kind, problem.where) for problem in problems.kept]


# Comments


@pytest.mark.parametrize("separator", [None, "\t"])
def test_line_with_all_columns_inside_a_sentence_is_a_token(
    separator: str | None, tmp_path: Path
) -> None:
    text = "# tweet 1 en\nSee\tO\n#Expo\tB-EVENT\nnow\tO\n\n# tweet 2 en\nin\tO\n#Oslo\tB-LOC\n"
    rows, problems = read(text, tmp_path, TWO_COLUMNS | {"separator": separator})
    assert [row["tokens"] for row in rows] == [["See", "#Expo", "now"], ["in", "#Oslo"]]
    assert rows[1]["tags"] == ["O", "B-LOC"]
    assert warnings(problems) == []
    assert problems.skipped_text() == "comment lines 2"


@pytest.mark.parametrize("ending", ["is\tO\n\n", "\n", ""])
def test_comment_with_all_columns_before_a_sentence_adds_a_warning(
    ending: str, tmp_path: Path
) -> None:
    """It may be a token: also if no other token follows."""
    _, problems = read(f"a\tO\n\n#Oslo\tB-LOC\n{ending}", tmp_path, TWO_COLUMNS)
    assert warnings(problems) == [("comment-or-token", "corpus:3")]
    assert "'#Oslo\\tB-LOC' is skipped as a comment" in problems.kept[0].message
    assert "e.g. '# '" in problems.kept[0].message
    rows, problems = read(
        "# tweet 1 en\n#Oslo B-LOC\nis O\n", tmp_path, TWO_COLUMNS | {"comment": "# "}
    )
    assert rows[0]["tokens"] == ["#Oslo", "is"]
    assert warnings(problems) == []


def test_comment_inside_a_sentence_adds_a_warning(tmp_path: Path) -> None:
    """A mark of a document without blank lines joins two sentences."""
    text = "#doc a 1\nAda\tB-PER\n#doc a 2\nBo\tB-PER\n#doc a 3\n"
    rows, problems = read(text, tmp_path, TWO_COLUMNS)
    assert [row["tokens"] for row in rows] == [["Ada", "Bo"]]
    assert warnings(problems) == [("comment-in-sentence", "corpus:3")]
    assert "document_mark" in problems.kept[0].message
    rows, problems = read(text, tmp_path, TWO_COLUMNS | {"document_mark": "#doc"})
    assert [row["tokens"] for row in rows] == [["Ada"], ["Bo"]]
    assert warnings(problems) == []


def test_comments_of_props_are_compared_with_the_columns_of_their_sentence(tmp_path: Path) -> None:
    text = "# a b c\nin - - * -\n#Oslo - - (V*) -\n\n#Rome - - * -\nfell - - (V*) -\n"
    rows, problems = read(text, tmp_path, PROPS, "conll_props")
    assert [row["tokens"] for row in rows] == [["in", "#Oslo"], ["fell"]]
    assert warnings(problems) == [("comment-or-token", "corpus:5")]
    text = "#doc a\nwent - - (V*) -\n#doc b\n"
    rows, problems = read(text * 2, tmp_path, PROPS | {"document_mark": "#doc"}, "conll_props")
    assert [row["tokens"] for row in rows] == [["went"], ["went"]]


# CoNLL-U's ids


def test_multiword_ranges_and_empty_nodes_are_counted(tmp_path: Path) -> None:
    text = (
        "1-2\tdel\t_\tO\n1\tde\t_\tO\n2\tel\t_\tO\n2.1\tno\t_\t_\n3-4\tAda-Bo\t_\tB-PER\n"
        "3\tAda\t_\tO\n4\tBo\t_\tO\n"
    )
    rows, problems = read(text, tmp_path, UD)
    assert rows[0]["tokens"] == ["de", "el", "Ada", "Bo"]
    assert problems.skipped_text() == "empty nodes (1.1) 1, multiword ranges (1-2) 2"
    assert warnings(problems) == [("skipped-tag", "corpus:5")], "its tag is lost"
    assert "3-4 has the tag 'B-PER'" in problems.kept[0].message


def test_ids_that_begin_again_add_a_warning(tmp_path: Path) -> None:
    text = "1\tAda\t_\tO\n2\tran\t_\tO\n1\tBo\t_\tO\n2\tsat\t_\tO\n"
    rows, problems = read(text, tmp_path, UD)
    assert len(rows) == 1
    assert warnings(problems) == [("repeated-token-id", "corpus:3")]


# Predicates


@pytest.mark.parametrize(
    ("options", "skipped"),
    [
        ({"first_predicate": 3, "trailing": 1}, []),
        ({"first_predicate": 4, "trailing": 1}, [("corpus:1", 3), ("corpus:5", 3)]),
        ({"first_predicate": 3, "trailing": 2}, [("corpus:1", 4), ("corpus:5", 3)]),
    ],
)
def test_columns_of_predicates_that_are_skipped_add_a_warning(
    options: dict[str, int], skipped: list[tuple[str, int]], tmp_path: Path
) -> None:
    """The second column has brackets too, but is not a predicate's."""
    text = (
        "Ada (NP* - (A0*) (A0*) -\ntried (V*) - (V*) * -\nrunning (VP*) - (A1*) (V*) -\n\n"
        "Bo (NP*) - (A0*) -\nran (VP*) - (V*) -\n\n"
    )
    rows, problems = read(text, tmp_path, {"token": 0, **options}, "conll_props")
    assert len(rows) == 3 - len(skipped)
    assert [
        (problem.kind, problem.where, problem.message.split(" has one span")[0])
        for problem in problems.kept
    ] == [("skipped-predicate", where, f"column {column}") for where, column in skipped]
    assert problems.skipped["sentences without predicates"] == bool(skipped)


# Byte-order marks


def test_byte_order_marks_inside_a_file_are_removed_and_counted(tmp_path: Path) -> None:
    first = "\ufeff-DOCSTART- O\n\nAda B-PER\nran O\n\n"
    rows, problems = read(first * 2 + "\ufeff\nBo B-PER\n", tmp_path, TWO_COLUMNS)
    assert [row["tokens"] for row in rows] == [["Ada", "ran"], ["Ada", "ran"], ["Bo"]]
    assert warnings(problems) == [("byte-order-mark", "corpus:6"), ("byte-order-mark", "corpus:11")]


@pytest.mark.parametrize("reader", ["mrqa_jsonl", "records"])
def test_byte_order_marks_inside_json_lines_are_removed(reader: str, tmp_path: Path) -> None:
    qas = '[{"qid": "a", "question": "Who?", "detected_answers": []}]'
    line = {
        "records": '{"text": "a", "label": "b"}\n',
        "mrqa_jsonl": '{"id": "", "context": "A cat", "qas": ' + qas + "}\n",
    }[reader]
    path, problems = tmp_path / "a.jsonl", Problems()
    path.write_text(f"\ufeff{line}\ufeff{line}", encoding="utf-8")
    options = parse(READERS[reader].options, {}, "recipe")
    if reader == "records":
        options = READERS[reader].for_task(options, task_named("sequence_classification").row_keys)
    list(READERS[reader].read(path, options, problems))
    assert problems.counts["byte-order-mark"] == 1
    assert "not-json" not in problems.counts


def test_comments_with_a_sign_alone_are_no_tokens(tmp_path: Path) -> None:
    """Comments of four words, in a file of four columns."""
    options = TWO_COLUMNS | {"columns": 4, "tag": 3}
    text = "# id 7 en\nAda _ _ B-PER\n\n#Oslo _ _ B-LOC\nis _ _ O\n"
    rows, problems = read(text, tmp_path, options)
    assert [row["tokens"] for row in rows] == [["Ada"], ["is"]]
    assert warnings(problems) == [("comment-or-token", "corpus:4")]


def test_mark_of_a_damaged_first_line_is_not_inside_the_file(tmp_path: Path) -> None:
    path, problems = tmp_path / "corpus", Problems()
    path.write_bytes(b"\xef\xbb\xbfA\xff\tO\n")
    parsed = parse(READERS["conll_columns"].options, TWO_COLUMNS, "recipe")
    list(READERS["conll_columns"].read(path, parsed, problems))
    assert dict(problems.counts) == {"undecodable-bytes": 1}

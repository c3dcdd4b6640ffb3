"""Files of rows: their formats, and errors of the input and of the output."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deep_prompt.cli.row_files import open_output, parse_rows
from pipeline.errors import UserError


def test_an_error_of_the_input_is_not_one_of_the_output(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"

    def read_input() -> None:
        raise PermissionError(13, "Permission denied", "rows")

    def write_to(name: str, then: Callable[[], None]) -> None:
        with open_output(name) as write_line:
            write_line("a\n")
            then()

    with pytest.raises(PermissionError, match="rows"):
        write_to(str(path), read_input)
    assert not list(tmp_path.iterdir())
    write_to(str(path), lambda: None)
    assert path.read_text(encoding="utf-8") == "a\n"
    with pytest.raises(UserError, match=r"--output: /dev/full cannot be written: No space left"):
        write_to("/dev/full", lambda: None)


def parsed(name: str, content: bytes) -> list[Any]:
    """The rows of a file without their default, and the messages of its errors."""
    rows = parse_rows(content.splitlines(keepends=True), name, {"task": "ner"})
    return [
        str(row) if isinstance(row, UserError) else {key: row[key] for key in row.keys() - {"task"}}
        for row in rows
    ]


def test_the_extension_selects_the_format() -> None:
    question = 'Who said \u201eno, "never"\u201c?'
    table = f'question,context\r\n"{question.replace(chr(34), chr(34) * 2)}","Ada\nLovelace"\r\n'
    expected = {"question": question, "context": "Ada\nLovelace", "where": "rows.csv:3"}
    assert parsed("rows.csv", b"\xef\xbb\xbf" + table.encode()) == [expected]
    assert parsed("rows.CSV.gz", table.encode())[0]["context"] == "Ada\nLovelace"
    tsv = b'text\ttask\n"Ada, her\tx\n\nBob\t\n'
    rows = list(parse_rows(tsv.splitlines(keepends=True), "rows.tsv", {"task": "ner"}))
    assert rows == [
        {"text": '"Ada, her', "task": "x", "where": "rows.tsv:2"},
        {"text": "Bob", "task": "ner", "where": "rows.tsv:4"},
    ]
    assert parsed("rows.txt", b"Ada went.\r\n\n  Bob too \n") == [
        {"text": "Ada went.", "where": "rows.txt:1"},
        {"text": "Bob too", "where": "rows.txt:3"},
    ]
    assert parsed("stdin", b'{"text": "Ada"}\n') == [{"text": "Ada", "where": "stdin:1"}]


def test_a_long_context_is_a_cell() -> None:
    """The csv module limits a cell to 131,072 characters by default."""
    limit = csv.field_size_limit(131_072)
    try:
        (row,) = parsed("rows.csv", b"context\n" + b"a" * 200_000 + b"\n")
    finally:
        csv.field_size_limit(limit)
    assert len(row["context"]) == 200_000


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"text,id\nAda\n", "a.csv:2: has 1 cell, but the first line names 2 keys;"),
        ("a.csv", b"text,text\n", "a.csv:1: names the key 'text' twice; rename one"),
        ("a.csv", b'text\n"Ada\n', "a.csv:2: not valid CSV: unexpected end of data; put cells"),
        ("a.tsv", b'text\n"Ada, her"\n', "a.tsv:2: cell '\"Ada, her\"' is in quotes, which a TSV"),
        ("a.tsv", b"text\n\xff\n", "a.tsv:2: byte 1, 0xff, is not UTF-8"),
        (
            "a.json",
            b"[\n",
            "a.json:1: not valid JSON at column 2: Expecting value; write one JSON "
            "object per line, for example with jq -c '.[]'",
        ),
    ],
)
def test_malformed_files_are_reported_with_their_line(
    name: str, content: bytes, message: str
) -> None:
    try:
        (found,) = parsed(name, content)
    except UserError as error:
        found = str(error)
    assert found.startswith(message)

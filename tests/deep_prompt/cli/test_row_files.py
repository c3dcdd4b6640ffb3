"""Files of rows: errors of the input and of the output."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deep_prompt.cli.row_files import open_output
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

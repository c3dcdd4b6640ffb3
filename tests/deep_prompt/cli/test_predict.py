"""`deep-prompt predict`: generated texts on a terminal, and errors of the output."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from deep_prompt.cli.main import main
from deep_prompt.cli.predict import _open_output
from pipeline.errors import UserError
from tests.support.serving import TEXT, make_text_artifacts


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_generated_text_appears_on_a_terminal_before_the_result(
    is_terminal: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    artifact = make_text_artifacts(tmp_path)["story"]
    rows = tmp_path / "rows.jsonl"
    rows.write_text(2 * (json.dumps({"source": TEXT}) + "\n"), encoding="utf-8")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal)
    main(["predict", "--artifact", str(artifact), "--input", str(rows)])
    captured = capsys.readouterr()
    # A process that imports DeepSpeed for the first time logs a line.
    lines = [line for line in captured.out.split("\n") if line.startswith("{")]
    text, again = (json.loads(line)["result"]["text"] for line in lines)
    assert text == again != ""
    assert captured.err.count(f"{text}\n") == 2 * is_terminal


def test_an_error_of_the_input_is_not_one_of_the_output(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"

    def read_input() -> None:
        raise PermissionError(13, "Permission denied", "rows")

    def write_to(name: str, then: Callable[[], None]) -> None:
        with _open_output(name) as write_line:
            write_line("a\n")
            then()

    with pytest.raises(PermissionError, match="rows"):
        write_to(str(path), read_input)
    assert not list(tmp_path.iterdir())
    write_to(str(path), lambda: None)
    assert path.read_text(encoding="utf-8") == "a\n"
    with pytest.raises(UserError, match=r"--output: /dev/full cannot be written: No space left"):
        write_to("/dev/full", lambda: None)

"""`deep-prompt predict` shows a generated text as it comes, if its output is a terminal."""

import json
import sys
from pathlib import Path

import pytest

from deep_prompt.cli.main import main
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

"""`deep-prompt predict`: generated texts on a terminal, and compressed or foreign input."""

import gzip
import io
import json
import sys
from pathlib import Path

import pytest

from deep_prompt.cli.main import main
from tests.support.serving import TEXT, make_artifacts, make_text_artifacts


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


def test_compressed_rows_are_read_and_other_files_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["predict", "--artifact", str(make_artifacts(tmp_path, versions=1) / "ner-0")]
    line = (json.dumps({"text": TEXT}) + "\n").encode()
    file = tmp_path / "rows.jsonl.gz"
    file.write_bytes(gzip.compress(line))
    main([*arguments, "--input", str(file)])
    assert '"result"' in capsys.readouterr().out
    utf16 = b"\xff\xfe" + line.decode().encode("utf-16-le")
    for name, content, message in (
        ("rows.gz", gzip.compress(line)[:-9], "the rest of the file cannot be read"),
        ("rows", utf16, "is UTF-16; convert it with iconv -f utf-16 -t utf-8"),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(SystemExit):
            main([*arguments, "--input", str(tmp_path / name)])
        assert message in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(line))))
    with pytest.raises(SystemExit):
        main(arguments)
    assert "stdin is compressed with gzip; unpack it" in capsys.readouterr().err


def test_the_columns_of_a_table_are_checked_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["predict", "--artifact", str(make_artifacts(tmp_path, versions=1) / "ner-0")]
    file = tmp_path / "rows.csv"
    arguments += ["--input", str(file), "--skip-bad"]
    file.write_text("Text\n" + f"{TEXT}\n" * 3, encoding="utf-8")
    with pytest.raises(SystemExit):
        main(arguments)
    error = capsys.readouterr().err
    assert error.count("did you mean 'text' by 'Text'?") == 1
    assert f"error: {file}:1: 'tokens' missing; rows of task" in error
    file.write_text(f"id,text\n1,\n2,{TEXT}\n", encoding="utf-8")
    main(arguments)
    assert "rows skipped: 1" in capsys.readouterr().err
    file.write_text("id,text\n1,\n2,\n", encoding="utf-8")
    with pytest.raises(SystemExit):
        main(arguments)
    assert f"error: {file}: all rows (2) were skipped" in capsys.readouterr().err

"""Atomic writes leave the complete new file or folder, or the old one."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.files import (
    atomic_folder,
    atomic_stream,
    atomic_write,
    copy_file,
    in_project,
    write_json,
)
from tests.support.paths import ROOT


def test_write_creates_folders_and_replaces_files(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    atomic_write(path, "é\r\n")
    assert path.read_bytes() == b"\xc3\xa9\r\n"
    atomic_write(path, b"\x00")
    assert path.read_bytes() == b"\x00"
    assert os.listdir(path.parent) == ["b.txt"]


def test_permissions_are_those_of_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").write_text("")
    atomic_write(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode
    (tmp_path / "folder").mkdir()
    with atomic_folder(tmp_path / "our_folder"):
        pass
    assert (tmp_path / "our_folder").stat().st_mode == (tmp_path / "folder").stat().st_mode


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.txt"
    atomic_write(path, "old")

    def fail(handle: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_stream_replaces_the_file_when_it_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b.txt"
    for content in ("one", "two\r\n\ud800"):
        with atomic_stream(path) as file:
            file.write(content)
            assert not path.exists() or path.read_text() == "one"
    assert path.read_bytes() == b"two\r\n\\ud800"
    assert os.listdir(path.parent) == ["b.txt"]
    (tmp_path / "ordinary").write_text("")
    assert path.stat().st_mode == (tmp_path / "ordinary").stat().st_mode


@pytest.mark.parametrize(("keep_partial", "content"), [(False, "old"), (True, "new")])
def test_a_stream_whose_block_raises(keep_partial: bool, content: str, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    atomic_write(path, "old")

    def fill() -> None:
        with atomic_stream(path, keep_partial) as file:
            file.write("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert path.read_text() == content
    assert os.listdir(tmp_path) == ["a.txt"]


def test_json_has_equal_bytes_for_equal_values(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"b": 1, "a": ["é"]})
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert text == '{\n  "a": [\n    "é"\n  ],\n  "b": 1\n}\n'
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"a": float("nan")})
    assert "é" in (tmp_path / "a.json").read_text(encoding="utf-8")


def test_folder_appears_complete_and_replaces_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "out" / "corpus"
    for content in ("one", "two"):
        with atomic_folder(target) as folder:
            (folder / "deep").mkdir()
            (folder / "deep" / content).write_text(content)
            assert not (target / "deep" / content).exists()
        assert os.listdir(target / "deep") == [content]
    assert os.listdir(tmp_path / "out") == ["corpus"]


def test_failed_block_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "corpus"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("old")

    def fill() -> None:
        with atomic_folder(target) as folder:
            (folder / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill()
    assert (target / "a").read_text() == "old"
    assert os.listdir(tmp_path) == ["corpus"]


def test_failed_rename_restores_the_old_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "corpus"
    with atomic_folder(target) as folder:
        (folder / "a").write_text("old")
    replace = os.replace

    def fail_once(source: Path, destination: Path) -> None:
        if Path(source).name == "new":
            raise OSError("no")
        replace(source, destination)

    monkeypatch.setattr(os, "replace", fail_once)
    with pytest.raises(OSError, match="no"), atomic_folder(target) as folder:
        (folder / "a").write_text("new")
    assert (target / "a").read_text() == "old"


@pytest.mark.parametrize("folder", [".dvc/tmp/exps/tmpa", ".dvc/tmp/exps/standalone/tmpb"])
def test_a_file_is_taken_from_the_project_of_an_experiment(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert in_project(Path("models/a")) == Path("models/a")
    (tmp_path / folder / "there").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / folder)
    assert in_project(Path("models/a")) == tmp_path / "models/a"
    assert in_project(Path("../models/a")) == tmp_path / "../models/a"
    assert in_project(Path("there")) == Path("there")
    assert in_project(Path("/models/a")) == Path("/models/a")


def test_next_write_removes_the_folder_of_a_killed_writer(tmp_path: Path) -> None:
    stale, unrelated = tmp_path / ".tmp-run.abcd_123", tmp_path / ".tmp-run.json.abcd_123"
    for folder in (stale, unrelated):
        (folder / "new").mkdir(parents=True)
    with atomic_folder(tmp_path / "run") as new:
        (new / "a").write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [unrelated.name, "run"]


KILLED = """
import os, signal, sys
from pathlib import Path
from pipeline import files
path = Path(sys.argv[1])
if sys.argv[2] == "file":
    with files.atomic_stream(path) as file:
        os.kill(os.getpid(), signal.SIGKILL)
with files.atomic_folder(path) as new:
    (new / "a").write_text("2")
    # Kill between the two renames.
    replace = os.replace
    os.replace = lambda *paths: (replace(*paths), os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_next_write_cleans_up_after_a_killed_process(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    if kind == "folder":
        with atomic_folder(path) as new:
            (new / "a").write_text("1")
    done = subprocess.run([sys.executable, "-c", KILLED, path, kind], check=False, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    (left,) = (file.name for file in tmp_path.iterdir())
    assert left.startswith(".tmp-run.")
    if kind == "file":
        atomic_write(path, "3")
    else:
        with atomic_folder(path):
            assert (path / "a").read_text() == "1", "the old folder is back"
    assert os.listdir(tmp_path) == ["run"]


def test_a_writer_does_not_remove_what_another_one_writes(tmp_path: Path) -> None:
    path = tmp_path / "run"
    with atomic_stream(path) as first:
        first.write("1")
        atomic_write(path, "2")
        first.write("3")
    assert path.read_text() == "13"
    path.unlink()
    with atomic_folder(path) as outer:
        (outer / "a").write_text("1")
        with atomic_folder(path) as inner:
            (inner / "b").write_text("2")
    assert os.listdir(path) == ["a"]
    assert os.listdir(tmp_path) == ["run"]


def test_a_file_system_without_locks_is_written_and_not_cleaned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(handle: int, flags: int) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refuse)
    stale = tmp_path / ".tmp-run.abcd_123"
    stale.mkdir()
    with atomic_folder(tmp_path / "run") as new:
        (new / "a").write_text("1")
    atomic_write(tmp_path / "b", "2")
    assert sorted(os.listdir(tmp_path)) == [stale.name, "b", "run"]


def test_a_copy_replaces_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\x01")
    (tmp_path / "b").write_text("old")
    copy_file(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"\x01"

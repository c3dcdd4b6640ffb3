"""Processes of this machine or of a Ray cluster make shards.

A new process repeats the shard of a killed process, and the bytes are always equal.
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.features.table import FeatureTable, join_shards, write_shard
from pipeline.sharding import Executor, Shard, finish, in_this_process, key_of
from stages.workers import processes as workers
from stages.workers.processes import Processes, executor
from tests.support.paths import ROOT
from tests.support.tiny_features import features

ROWS = 200


def features_of(target: Path, first: int, last: int, marks: str | None) -> dict[str, int]:
    """Write a shard of a table.

    The first process that reaches row 50 writes a mark and kills itself; later processes see the
    mark and continue.
    """
    if marks is not None and first <= 50 < last and not Path(marks).exists():
        Path(marks).write_text("killed")
        os.kill(os.getpid(), signal.SIGKILL)
    return write_shard(features("classes", ROWS, 0)[first:last], target / "features.arrow")


def broken(target: Path) -> None:
    raise UserError("a mistake in the data")


def shards_of(count: int, marks: Path | None = None) -> list[Shard]:
    bounds = [(ROWS * i // count, ROWS * (i + 1) // count) for i in range(count)]
    return [
        Shard(key_of(i, bound), features_of, (*bound, marks and str(marks)))
        for i, bound in enumerate(bounds)
    ]


def table_of(shards: Sequence[Shard], folder: Path, run: Executor) -> dict[str, list[Any]]:
    """All columns of the table, joined from the shards."""
    about = finish(shards, folder / "work", run)
    join_shards(
        [folder / "work" / shard.key / "features.arrow" for shard in shards],
        about,
        folder / "table",
    )
    table = FeatureTable(folder / "table")
    columns: dict[str, list[Any]] = {
        name: getattr(table, name).tolist() for name in ("lengths", "label_counts", "examples")
    }
    for name in ("input_ids", "labels", "begins"):
        columns[name] = [table.column(name, row).tolist() for row in range(len(table))]
    return columns


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def tests_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}:{ROOT / 'tests'}")


def test_a_table_does_not_depend_on_the_number_of_shards(tmp_path: Path) -> None:
    single, several = (
        table_of(shards_of(count), tmp_path / str(count), in_this_process) for count in (1, 16)
    )
    assert single == several


def test_a_killed_process_ends_the_run_and_the_next_run_resumes(
    tmp_path: Path, tests_importable: None
) -> None:
    table_of(shards_of(8), tmp_path / "alone", in_this_process)
    killed = shards_of(8, tmp_path / "mark")
    with pytest.raises(UserError, match=r"was killed.*workers: 1"):
        finish(killed, tmp_path / "out/work", Processes(2))
    assert (tmp_path / "mark").exists()
    table_of(killed, tmp_path / "out", Processes(2))
    assert contents(tmp_path / "out/table") == contents(tmp_path / "alone/table")


def test_an_error_of_a_shard_is_raised(tmp_path: Path, tests_importable: None) -> None:
    with pytest.raises(UserError, match="a mistake in the data"):
        Processes(2)([Shard("a", broken, ()), Shard("b", broken, ())], tmp_path)


WAITING = """
import sys, time
from pathlib import Path
from pipeline.sharding import Shard
from stages.workers.processes import Processes

def wait(target, mark):
    Path(mark).write_text(str(__import__("os").getpid()))
    time.sleep(600)

if __name__ == "__main__":
    Processes(2)([Shard(str(i), wait, (f"mark{i}",)) for i in range(2)], Path("work"))
"""


def test_workers_end_with_their_parent(tmp_path: Path, tests_importable: None) -> None:
    (tmp_path / "waiting.py").write_text(WAITING)
    parent = subprocess.Popen([sys.executable, "waiting.py"], cwd=tmp_path)
    marks = [tmp_path / f"mark{i}" for i in range(2)]
    while not all(mark.exists() and mark.read_text() for mark in marks):
        assert parent.poll() is None
        time.sleep(0.05)
    parent.kill()
    parent.wait()
    for mark in marks:
        status = Path(f"/proc/{mark.read_text()}/stat")
        while status.exists() and status.read_text().rsplit(")", 1)[1].split()[0] != "Z":
            time.sleep(0.05)


def test_cluster_yaml_sets_the_executor_of_shards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text("workers: 1\n")
    assert executor() is in_this_process
    (tmp_path / "cluster.yaml").write_text("workers: 3\n")
    found = executor()
    assert isinstance(found, Processes)
    assert found.workers == 3
    (tmp_path / "cluster.yaml").write_text("workers: -1\n")
    with pytest.raises(UserError, match="workers is -1"):
        executor()
    assert Path("cluster.yaml") == workers.CLUSTER


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", [1, 4])
def test_ray_gives_equal_bytes_if_a_process_is_killed(
    count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs in a cluster of `count` worker processes on this machine."""
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'deep-prompt[ray]')")
    from stages.workers.ray import RayCluster

    table_of(shards_of(16), tmp_path / "alone", in_this_process)
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "tests"))
    table_of(shards_of(16, tmp_path / "mark"), tmp_path / "ray", RayCluster("local", count))
    assert (tmp_path / "mark").exists(), "no process was killed"
    assert contents(tmp_path / "ray/table") == contents(tmp_path / "alone/table")
    with pytest.raises(UserError, match="a mistake in the data"):
        RayCluster("local", count)([Shard("a", broken, ())], tmp_path)

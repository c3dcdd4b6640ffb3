"""A stage ends with DVC, also if DVC is killed while the stage imports its libraries."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it takes prctl and /proc")

STAGE = """
import sys, time
from pathlib import Path
import stages

Path("started").write_text("")
while not Path("go").exists():  # as if it imported torch
    time.sleep(0.01)
from stages.runtime.entry import run

def stage():
    Path("working").write_text("")
    time.sleep(60)

try:
    run(stage)
except SystemExit as end:
    Path("code").write_text(str(end.code))
    Path("code").rename("ended")
"""
DVC = """
import subprocess, sys, time
stage = [sys.executable, "-c", sys.argv[1]]
print(subprocess.Popen(stage, stdout=subprocess.DEVNULL).pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def dvc(tmp_path: Path) -> "subprocess.Popen[str]":
    """A process that has started a stage, as DVC does."""
    process = subprocess.Popen(
        [sys.executable, "-c", DVC, STAGE],
        cwd=tmp_path,
        env={**os.environ, "DVC_ROOT": str(tmp_path), "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    wait_for(tmp_path / "started")
    return process


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} is missing"
        time.sleep(0.01)


def kill(dvc: "subprocess.Popen[str]") -> int:
    """Kill DVC; returns the stage's process."""
    dvc.kill()
    output, _ = dvc.communicate()
    return int(output)


def test_a_stage_does_no_work_if_dvc_was_killed_during_its_imports(
    dvc: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    kill(dvc)
    (tmp_path / "go").write_text("")
    wait_for(tmp_path / "ended")
    assert (tmp_path / "ended").read_text() == str(128 + signal.SIGTERM)
    assert not (tmp_path / "working").exists()


def test_a_stage_is_asked_to_stop_when_dvc_is_killed(
    dvc: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    (tmp_path / "go").write_text("")
    wait_for(tmp_path / "working")
    stage = Path(f"/proc/{kill(dvc)}/stat")
    deadline = time.monotonic() + 60
    while stage.exists() and stage.read_text().rsplit(")", 1)[1].split()[0] != "Z":
        assert time.monotonic() < deadline, "the stage goes on without DVC"
        time.sleep(0.01)

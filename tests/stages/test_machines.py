"""Training on several hosts: two hosts with ssh, and a Slurm cluster of both.

The hosts are Linux namespaces of this machine. `make test-cluster` installs the requirements of
these tests; `make test` skips them.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.support.small_project import (
    IN_ONE_PROCESS,
    ROOT,
    environment,
    make_project,
    python,
    write_params,
)

NEEDED = ("ip", "nsenter", "sshd", "pdsh", "slurmctld", "slurmd", "sbatch", "munged")
MISSING = [
    name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None
]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root makes namespaces"),
    pytest.mark.skipif(
        bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (make test-cluster)"
    ),
]
BEFORE = (
    "code_files",
    "generate ner",
    "prepare world_ner",
    "prepare world_srl",
    "featurize world_ner",
    "featurize world_srl",
    "mixture_corpora all",
    "mix all",
)


@dataclass
class Hosts:
    """Two hosts with a shared project folder.

    `expected` is the folder of the artifact `pretrain/all`, trained by a single process.
    """

    place: Path
    project: Path
    expected: Path
    env: dict[str, str]

    def start(self, node: int, *words: str) -> "subprocess.Popen[str]":
        """Start a command on a host."""
        return subprocess.Popen(
            [ROOT / "tests/support/machines.sh", self.place, "on", str(node), *words],
            cwd=self.project,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def on_first(self, *words: str, check: bool = True) -> str:
        """Run a command on node0; returns its output."""
        process = self.start(0, *words)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0 or not check, output
        return output

    def ranks(self, node: int) -> list[str]:
        """The ids of the training processes on a host."""
        output, _ = self.start(node, "pgrep", "-f", "stages.pretrain").communicate()
        return output.split()

    def assert_same_as_one_process(self) -> None:
        """Compare with a tolerance, because the order of summation differs."""
        for name in ("prompt", "heads"):
            actual, expected = (
                load_file(folder / f"{name}.safetensors")
                for folder in (self.project / "artifacts/pretrain/all", self.expected)
            )
            for key, value in actual.items():
                torch.testing.assert_close(value, expected[key], atol=2e-4, rtol=1e-3)


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    home = tmp_path_factory.mktemp("machines")
    project = home / "project"
    values = make_project(project)
    values["pretrain"]["all"].update(
        micro_batches_per_step=4, epochs=30, num_validations=8, tokens_per_micro_batch=64
    )
    write_params(project, values)
    (project / ".venv").symlink_to(sys.prefix)
    env = environment(home)
    done = python(project, env, "-c", IN_ONE_PROCESS, *BEFORE, "pretrain all")
    assert done.returncode == 0, done.stderr
    shutil.move(project / "artifacts/pretrain/all", home / "one")
    place = Path(tempfile.mkdtemp())  # the user of munge cannot read pytest's folders
    env["SLURM_CONF"] = str(place / "slurm/slurm.conf")
    try:
        for what in ("up", "slurm"):
            subprocess.run(
                [ROOT / "tests/support/machines.sh", place, what], check=True, env=env, timeout=60
            )
        yield Hosts(place, project, home / "one", env)
    finally:
        subprocess.run([ROOT / "tests/support/machines.sh", place, "down"], check=True, env=env)
        shutil.rmtree(place)


@pytest.fixture(autouse=True)
def untrained(hosts: Hosts) -> None:
    for name in ("artifacts", "runs", ".work"):
        shutil.rmtree(hosts.project / name, ignore_errors=True)


def wait_for(condition: Callable[[], object], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.1)


def test_two_hosts_with_ssh_train_like_one_process(hosts: Hosts) -> None:
    (hosts.project / "hosts").write_text("node0 slots=1\nnode1 slots=1\n")
    (hosts.project / "cluster.yaml").write_text(
        "hostfile: hosts\nssh_port: 2222\ninterface: eth0\nforward: [DVC_NO_ANALYTICS]\n"
    )
    output = hosts.on_first(sys.executable, "-m", "stages.pretrain", "all")
    assert "2 ranks on node0, node1" in output
    hosts.assert_same_as_one_process()
    assert list((hosts.project / ".work/launch").iterdir()) == [], (
        "the launch files of the other host are deleted"
    )


def test_a_stop_signal_waits_for_the_ranks_on_other_hosts(hosts: Hosts) -> None:
    (hosts.project / "hosts").write_text("node0 slots=1\nnode1 slots=1\n")
    (hosts.project / "cluster.yaml").write_text(
        "hostfile: hosts\nssh_port: 2222\ninterface: eth0\ncheckpoint_minutes: 0.01\n"
    )
    process = hosts.start(0, sys.executable, "-m", "stages.pretrain", "all")
    wait_for(lambda: list((hosts.project / ".work").glob("pretrain-all/*/step-*")))
    supervisor = min(hosts.ranks(0), key=int)
    hosts.on_first("kill", "-TERM", supervisor)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, output
    # The output does not have this line, because the signal also ends ssh.
    assert "stopped after step " in (hosts.project / ".work/stopped").read_text()
    assert hosts.ranks(0) == hosts.ranks(1) == []


def test_a_disconnected_host_ends_the_run_and_the_next_run_resumes(hosts: Hosts) -> None:
    (hosts.project / "hosts").write_text("node0 slots=1\nnode1 slots=1\n")
    (hosts.project / "cluster.yaml").write_text(
        "hostfile: hosts\nssh_port: 2222\ninterface: eth0\n"
        "timeout_minutes: 0.2\ncheckpoint_minutes: 0.01\n"
    )
    process = hosts.start(0, sys.executable, "-m", "stages.pretrain", "all")
    wait_for(lambda: list((hosts.project / ".work").glob("pretrain-all/*/step-*")))
    link = ["ip", "-n", "dpt1", "link", "set", "eth0"]
    subprocess.run([*link, "down"], check=True)
    cut = time.monotonic()
    try:
        output, _ = process.communicate(timeout=180)
        wait_for(lambda: not hosts.ranks(0) and not hosts.ranks(1))
        print(f"all processes ended {time.monotonic() - cut:.0f} s after the link went down")
    finally:
        subprocess.run([*link, "up"], check=True)
    assert process.returncode == 1, output
    assert "rank 0 on node0: lost the connection to another rank" in output
    assert "error: pretrain: the ranks ended before rank 0 was done" in output
    assert "Traceback" not in output
    assert not (hosts.project / "artifacts").exists()
    assert "resuming at step " in hosts.on_first(sys.executable, "-m", "stages.pretrain", "all")
    hosts.assert_same_as_one_process()


def test_a_preempted_slurm_job_is_queued_again_and_trains_like_one_process(
    hosts: Hosts,
) -> None:
    """Runs examples/slurm.sbatch with fewer resources, and only one stage of the pipeline."""
    (hosts.project / "cluster.yaml").write_text("ranks: 1\nslurm: true\ninterface: eth0\n")
    script = (ROOT / "examples/slurm.sbatch").read_text(encoding="utf-8")
    assert "dvc --wait-for-lock repro &" in script
    assert "source .venv/bin/activate" in script
    (hosts.project / "job.sbatch").write_text(
        script.replace("repro &", "repro --single-item pretrain@all &")
    )
    if not (hosts.project / ".dvc").exists():
        python(
            hosts.project, hosts.env, "-m", "dvc", "init", "--quiet", "--no-scm"
        ).check_returncode()
    job = hosts.on_first(
        "sbatch", "--parsable", "--ntasks-per-node=1", "--gpus-per-node=0", "job.sbatch"
    ).strip()
    log = hosts.project / f"slurm-{job}.out"
    wait_for(lambda: list((hosts.project / ".work").glob("pretrain-all/*/step-*")))
    hosts.on_first("scancel", "--signal=USR1", "--batch", job)
    wait_for(
        lambda: "PENDING" in hosts.on_first("squeue", "--noheader", "--format=%T", check=False)
    )
    stopped = re.search(r"stopped after step (\d+) of", log.read_text())
    assert stopped, log.read_text()

    def started(times: int) -> bool:
        """Whether the job has started `times` times. Slurm would delay a requeued job by 2 min."""
        hosts.on_first("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
        return log.read_text().count("starting 1 rank per host") == times

    wait_for(lambda: started(2))
    wait_for(lambda: f"resuming at step {stopped[1]} of" in log.read_text())
    hosts.on_first("scontrol", "requeue", job)  # the script gets no signal before the kill
    wait_for(
        lambda: "PENDING" in hosts.on_first("squeue", "--noheader", "--format=%T", check=False)
    )
    wait_for(lambda: started(3))
    wait_for(lambda: "best validation" in log.read_text())
    assert log.read_text().count("resuming at step ") == 2
    assert "2 ranks on node0, node1" in log.read_text()
    wait_for(lambda: hosts.on_first("squeue", "--noheader").strip() == "")
    hosts.assert_same_as_one_process()

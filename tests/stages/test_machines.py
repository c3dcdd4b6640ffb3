"""More than one machine, for real: two hosts that ssh reaches, and a Slurm cluster of both, all in
namespaces of this one.

`make test-cluster` installs what they need; `make test` leaves them out.
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
    """Two hosts that see the same project, and what one process made of it
    (`artifacts/pretrain/all`, elsewhere).
    """

    place: Path
    project: Path
    one: Path
    env: dict[str, str]

    def start(self, node: int, *words: str) -> "subprocess.Popen[str]":
        """A command on a host."""
        return subprocess.Popen(
            [ROOT / "tests/support/machines.sh", self.place, "on", str(node), *words],
            cwd=self.project,
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def on_first(self, *words: str, check: bool = True) -> str:
        """What a command on node0 says."""
        process = self.start(0, *words)
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0 or not check, output
        return output

    def ranks(self, node: int) -> list[str]:
        """The processes of a training on a host."""
        output, _ = self.start(node, "pgrep", "-f", "stages.pretrain").communicate()
        return output.split()

    def assert_same_as_one_process(self) -> None:
        """To the last digits of sums in another order."""
        for name in ("prompt", "heads"):
            ours, theirs = (
                load_file(folder / f"{name}.safetensors")
                for folder in (self.project / "artifacts/pretrain/all", self.one)
            )
            for key, value in ours.items():
                torch.testing.assert_close(value, theirs[key], atol=2e-4, rtol=1e-3)


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
    place = Path(tempfile.mkdtemp())  # pytest's own are closed to munge's user
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


def wait_for(what: Callable[[], object], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def test_two_hosts_by_ssh_train_as_one_process(hosts: Hosts) -> None:
    (hosts.project / "hosts").write_text("node0 slots=1\nnode1 slots=1\n")
    (hosts.project / "cluster.yaml").write_text(
        "hostfile: hosts\nssh_port: 2222\ninterface: eth0\nforward: [DVC_NO_ANALYTICS]\n"
    )
    said = hosts.on_first(sys.executable, "-m", "stages.pretrain", "all")
    assert "2 ranks on node0, node1" in said
    hosts.assert_same_as_one_process()
    assert list((hosts.project / ".work/launch").iterdir()) == [], (
        "what the other host was told is not left lying about"
    )


def test_asked_to_stop_it_waits_for_the_ranks_on_other_hosts(hosts: Hosts) -> None:
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
    assert (
        "stopped after step " in (hosts.project / ".work/stopped").read_text()
    )  # its line was lost with ssh
    assert hosts.ranks(0) == hosts.ranks(1) == []


def test_a_host_that_is_cut_off_ends_the_run_and_the_next_goes_on(hosts: Hosts) -> None:
    (hosts.project / "hosts").write_text("node0 slots=1\nnode1 slots=1\n")
    (hosts.project / "cluster.yaml").write_text(
        "hostfile: hosts\nssh_port: 2222\ninterface: eth0\ntimeout_minutes: "
        "0.2\ncheckpoint_minutes: 0.01\n"
    )
    process = hosts.start(0, sys.executable, "-m", "stages.pretrain", "all")
    wait_for(lambda: list((hosts.project / ".work").glob("pretrain-all/*/step-*")))
    link = ["ip", "-n", "dpt1", "link", "set", "eth0"]
    subprocess.run([*link, "down"], check=True)
    cut = time.monotonic()
    try:
        output, _ = process.communicate(timeout=180)
        wait_for(lambda: not hosts.ranks(0) and not hosts.ranks(1))
        print(f"all were gone {time.monotonic() - cut:.0f} s after the cut")
    finally:
        subprocess.run([*link, "up"], check=True)
    assert process.returncode == 1, output
    assert "rank 0 on node0: lost the connection to another rank" in output
    assert "error: pretrain: the ranks ended before rank 0 was done" in output
    assert "Traceback" not in output
    assert not (hosts.project / "artifacts").exists()
    assert "resuming at step " in hosts.on_first(sys.executable, "-m", "stages.pretrain", "all")
    hosts.assert_same_as_one_process()


def test_a_slurm_job_that_is_preempted_goes_back_into_the_queue_and_ends_as_one_process(
    hosts: Hosts,
) -> None:
    """The example as it is, but for the size; of the pipeline only what this is about."""
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
        """Slurm itself lets a job that is queued again wait for two minutes, from whenever it has
        taken note of its end.
        """
        hosts.on_first("scontrol", "update", f"JobId={job}", "StartTime=now", check=False)
        return log.read_text().count("starting 1 ranks a host") == times

    wait_for(lambda: started(2))
    wait_for(lambda: f"resuming at step {stopped[1]} of" in log.read_text())
    hosts.on_first("scontrol", "requeue", job)  # killed, and no script that says so
    wait_for(
        lambda: "PENDING" in hosts.on_first("squeue", "--noheader", "--format=%T", check=False)
    )
    wait_for(lambda: started(3))
    wait_for(lambda: "best validation" in log.read_text())
    assert log.read_text().count("resuming at step ") == 2
    assert "2 ranks on node0, node1" in log.read_text()
    wait_for(lambda: hosts.on_first("squeue", "--noheader").strip() == "")
    hosts.assert_same_as_one_process()

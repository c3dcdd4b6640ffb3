"""A stage command gives the same result with one process and with several.

No process remains after any of them is killed.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from pipeline.artifacts.config import load_config
from pipeline.config import load_json, load_yaml
from pipeline.distributed.cluster import Cluster, Ranks, load_cluster
from pipeline.errors import UserError
from pipeline.model.precision import multiplies_bfloat16
from stages.runtime import launcher
from stages.runtime.launcher import launch
from stages.runtime.params import check_params
from stages.training import run as training_run
from tests.support.small_project import (
    IN_ONE_PROCESS,
    ROOT,
    contents,
    environment,
    make_project,
    python,
    python_of,
    write_params,
)

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
PRETRAIN = ("-m", "stages.pretrain", "all")


Start = Callable[..., "subprocess.Popen[str]"]


@dataclass
class Place:
    """A project with a mixture, ready for training.

    `new` is an environment without forks, for commands that need their parent process.
    """

    folder: Path
    env: dict[str, str]
    new: dict[str, str]

    def ranks(self, count: int, timeout_minutes: float = 10) -> None:
        """Set the number of ranks in cluster.yaml."""
        (self.folder / "cluster.yaml").write_text(
            f"ranks: {count}\ntimeout_minutes: {timeout_minutes}\n", encoding="utf-8"
        )

    def forget(self) -> None:
        """Delete the results of training."""
        for name in ("artifacts", "runs", ".work"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def made(self) -> dict[str, bytes]:
        """The contents of the results of training."""
        return contents(self.folder / "artifacts", self.folder / "runs")

    def processes(self) -> dict[int, list[str]]:
        """The process ids and command lines of the processes in the folder."""
        found = {}
        for path in Path("/proc").glob("[0-9]*"):
            try:
                alive = (path / "stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
                if alive and (path / "cwd").resolve() == self.folder:
                    found[int(path.name)] = (path / "cmdline").read_bytes().decode().split("\0")
            except OSError:  # the process has just ended
                continue
        return found

    def rank(self, number: int) -> int | None:
        """The process id of a rank."""
        for path in (self.folder / ".work/launch").glob(f"*.rank{number}"):
            return int(path.read_text(encoding="utf-8"))
        return None


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    home = tmp_path_factory.mktemp("launching")
    folder = (home / "project").resolve()
    values = make_project(folder)
    values["pretrain"]["all"].update(
        micro_batches_per_step=4, epochs=8, num_validations=8, tokens_per_micro_batch=64
    )
    write_params(folder, values)
    env, new = (environment(home, forks) | {"PYTHONPATH": str(folder)} for forks in (True, False))
    done = python(folder, env, "-c", IN_ONE_PROCESS, *BEFORE)
    assert done.returncode == 0, done.stderr
    python(folder, env, "-m", "dvc", "init", "--quiet", "--no-scm").check_returncode()
    return Place(folder, env, new)


@pytest.fixture(scope="module")
def two(place: Place) -> dict[str, bytes]:
    """The results of two ranks without an interruption."""
    place.ranks(2)
    done = python(place.folder, place.env, *PRETRAIN)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 ranks on" in done.stdout
    assert done.stdout.count("best validation") == 1, "only one rank prints the score"
    assert place.processes() == {}
    assert list((place.folder / ".work/launch").iterdir()) == []
    return place.made()


def launched(
    stage: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
    micro_batches: Callable[[], int] | None = None,
    **variables: str,
) -> SystemExit | None:
    """Launch a stage in this process, with these variables for ranks and no others."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
    for name in (*names, "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(sys, "argv", ["stage"])
    try:
        launch(stage, micro_batches)
    except SystemExit as exit_:
        return exit_
    return None


def test_a_single_rank_of_the_environment_says_that_cluster_yaml_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text("ranks: 8\n", encoding="utf-8")
    ran: list[str] = []
    assert launched(lambda: ran.append("x"), monkeypatch, RANK="0", WORLD_SIZE="1") is None
    assert ran == ["x"]
    message = "warning: the ranks of cluster.yaml are not started, because RANK and WORLD_SIZE in"
    assert message in capsys.readouterr().out
    (tmp_path / "cluster.yaml").unlink()
    launched(lambda: ran.append("x"), monkeypatch, RANK="0", WORLD_SIZE="1")
    assert "cluster.yaml" not in capsys.readouterr().out


def test_a_machine_starts_the_ranks_that_can_share_the_micro_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text("ranks: 8\n", encoding="utf-8")
    started: list[int] = []
    monkeypatch.setattr(launcher, "end_with_dvc", lambda: None)
    monkeypatch.setattr(launcher, "_supervise", lambda cluster, *_: started.append(cluster.ranks))
    for micro_batches in (8, 12, 3, 1):
        launched(lambda: started.append(0), monkeypatch, lambda count=micro_batches: count)
    assert started == [8, 6, 3, 0], "one rank runs in this process"
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0].strip() for line in lines if "warning" in line] == [
        f"warning: starting {ranks} of the 8 ranks of cluster.yaml" for ranks in (6, 3, 1)
    ]


@pytest.mark.parametrize(
    "settings", ["hostfile: hosts\ninterface: eth0\n", "slurm: true\nranks: 4\ninterface: eth0\n"]
)
def test_one_of_several_hosts_trains_if_all_cannot_share_the_micro_batches(
    settings: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text(settings, encoding="utf-8")
    (tmp_path / "hosts").write_text("this slots=4\nother slots=4\n", encoding="utf-8")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setattr(launcher, "end_with_dvc", lambda: None)
    started: list[Cluster] = []
    monkeypatch.setattr(launcher, "_supervise", lambda cluster, *_: started.append(cluster))
    for micro_batches in (16, 6):
        launched(lambda: None, monkeypatch, lambda count=micro_batches: count)
    assert started == [load_cluster(Path("cluster.yaml")), Cluster(ranks=3)]
    assert "warning: starting 3 of the 8 ranks of cluster.yaml, all on this machine, because" in (
        capsys.readouterr().out
    )


def test_ranks_of_srun_without_an_address_are_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    exit_ = launched(lambda: None, monkeypatch, **step)
    assert exit_ is not None
    assert exit_.code == 1
    error = capsys.readouterr().err
    assert error.startswith("error: SLURM_STEP_NUM_TASKS is 2 in the environment")
    assert len(error.splitlines()) == 1


def test_an_exit_code_of_0_without_the_marker_of_rank_0_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """DeepSpeed's launcher returns 0 if its middle process was killed."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text("slurm: true\n", encoding="utf-8")
    (tmp_path / "srun").write_text("#!/bin/sh\nexit 0\n", encoding="utf-8")
    (tmp_path / "srun").chmod(0o755)
    exit_ = launched(lambda: None, monkeypatch, PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert exit_ is not None
    assert exit_.code == 1
    assert "the ranks ended before rank 0 was done (exit codes: 0)" in capsys.readouterr().err


def test_the_exit_codes_of_failed_ranks_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def absent_stage() -> None:
        """A stage without a module in `stages`."""

    monkeypatch.chdir(tmp_path)
    (tmp_path / "cluster.yaml").write_text("ranks: 2\n", encoding="utf-8")
    exit_ = launched(absent_stage, monkeypatch, PYTHONPATH=str(ROOT))
    assert exit_ is not None
    assert exit_.code == 1
    assert re.search(
        r"error: absent_stage: the ranks ended .* \(exit codes: (1|-15), (1|-15)\)",
        capsys.readouterr().err,
    )


def test_two_ranks_train_like_one(place: Place, two: dict[str, bytes], tmp_path: Path) -> None:
    shutil.copytree(place.folder / "artifacts/pretrain/all", tmp_path / "two")
    curve = pd.read_csv(place.folder / "runs/pretrain/all/train.tsv", sep="\t")
    place.forget()
    place.ranks(1)
    done = python(place.folder, place.env, *PRETRAIN)
    assert done.returncode == 0, done.stderr
    assert "1 rank on" in done.stdout
    artifact = place.folder / "artifacts/pretrain/all"
    assert load_json(artifact / "config.json") == load_json(tmp_path / "two/config.json")
    for name in ("prompt", "heads"):
        actual, expected = (
            load_file(folder / f"{name}.safetensors") for folder in (artifact, tmp_path / "two")
        )
        for key, value in actual.items():
            torch.testing.assert_close(value, expected[key], atol=2e-4, rtol=1e-3)
    single_curve = pd.read_csv(place.folder / "runs/pretrain/all/train.tsv", sep="\t")
    pd.testing.assert_frame_equal(single_curve, curve, rtol=1e-2, atol=1e-4)


def test_two_ranks_evaluate_like_one(place: Place) -> None:
    place.forget()
    place.ranks(1)
    for words in ("finetune", "evaluate"):
        python(
            place.folder, place.env, "-m", f"stages.{words}", "head_only", "world_ner"
        ).check_returncode()
    expected = contents(place.folder / "results", place.folder / "predictions")
    assert len(expected) == 8
    for zero in (0, 3):
        shutil.rmtree(place.folder / "results")
        shutil.rmtree(place.folder / "predictions")
        (place.folder / "cluster.yaml").write_text(f"ranks: 2\nzero: {zero}\n", encoding="utf-8")
        done = python(place.folder, place.env, "-m", "stages.evaluate", "head_only", "world_ner")
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stdout.count("test f1") == 1, "only one rank prints the score"
        assert contents(place.folder / "results", place.folder / "predictions") == expected


def test_stages_run_with_a_backbone_in_bfloat16(place: Place) -> None:
    place.forget()
    place.ranks(1)
    before = (place.folder / "params.yaml").read_text(encoding="utf-8")
    values = load_yaml(place.folder / "params.yaml")
    values["pretrain"]["all"]["precision"] = values["arms"]["head_only"]["precision"] = "bfloat16"
    write_params(place.folder, values)
    try:
        done = python(place.folder, place.env, *PRETRAIN)
        assert done.returncode == 0, done.stderr
        assert "1 rank on" in done.stdout
        assert (
            "; ZeRO stage 0, precision bfloat16; 4 of the 4 micro-batches of a step per rank"
            in done.stdout
        )
        slow = "this CPU has no instructions for bfloat16" in done.stdout
        assert slow != multiplies_bfloat16(torch.device("cpu"))
        prompt = load_file(place.folder / "artifacts/pretrain/all/prompt.safetensors")
        assert {value.dtype for value in prompt.values()} == {torch.float32}
        for stage in ("finetune", "evaluate"):
            python(
                place.folder, place.env, "-m", f"stages.{stage}", "head_only", "world_ner"
            ).check_returncode()
    finally:
        (place.folder / "params.yaml").write_text(before, encoding="utf-8")


ON_A_CPU = """
import sys, torch
torch.cpu.get_capabilities = lambda: {"avx512_bf16": sys.argv[1] == "bfloat16"}
from stages.evaluate import evaluate
from stages.finetune import finetune
for stage in (finetune, evaluate):
    stage("head_only", "world_ner")
"""


def test_auto_precision_is_recorded_and_starts_anew_on_another_cpu(place: Place) -> None:
    place.forget()
    before = (place.folder / "params.yaml").read_text(encoding="utf-8")
    values = load_yaml(place.folder / "params.yaml")
    values["arms"]["head_only"]["precision"] = "auto"
    write_params(place.folder, values)
    artifact, made = place.folder / "artifacts/head_only/world_ner", {}
    try:
        for precision in ("float32", "bfloat16", "float32"):
            done = python(place.folder, place.env, "-c", ON_A_CPU, precision)
            assert done.returncode == 0, done.stderr
            assert f"precision {precision} (auto); " in done.stdout
            assert "resum" not in done.stdout, "a finished run has a checkpoint"
            assert load_config(artifact).precision == precision
            heads = (artifact / "heads.safetensors").read_bytes()
            assert made.setdefault(precision, heads) == heads
    finally:
        (place.folder / "params.yaml").write_text(before, encoding="utf-8")
    assert made["float32"] != made["bfloat16"]


def test_ranks_with_another_auto_precision_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other rank has float32."""
    monkeypatch.setattr(training_run, "all_gather_int", lambda own, _: [0, own])
    training_run._check_precision("float32", Ranks(1, 2))
    with pytest.raises(UserError, match="auto, which is bfloat16 on rank 1 and another"):
        training_run._check_precision("bfloat16", Ranks(1, 2))


@pytest.mark.parametrize("library", ["torch", "transformers"])
def test_a_checkpoint_of_another_version_of_a_library_is_not_resumed(
    library: str, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = check_params(load_yaml(place.folder / "params.yaml"), "params.yaml")
    training = params.training("head_only", "world_ner")

    def key() -> str:
        return training_run._checkpoint_key("head_only", training, params, [1], {})

    expected = key()
    assert key() == expected
    installed = training_run.version
    monkeypatch.setattr(
        training_run, "version", lambda name: "9.9" if name == library else installed(name)
    )
    assert key() != expected


@pytest.fixture
def running(place: Place, two: object) -> Iterator[Start]:
    """A function that starts the stage. The fixture kills all remaining processes at the end."""
    place.forget()
    started: list[subprocess.Popen[str]] = []

    def start(
        ranks: int, *words: str, forks: bool = True, timeout_minutes: float = 10
    ) -> "subprocess.Popen[str]":
        place.ranks(ranks, timeout_minutes)
        env = place.env if forks else place.new
        started.append(
            subprocess.Popen(
                [python_of(env), *(words or PRETRAIN)],
                cwd=place.folder,
                env=env,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
        return started[-1]

    yield start
    for process in [
        *(process.pid for process in started if process.poll() is None),
        *place.processes(),
    ]:
        os.kill(process, signal.SIGKILL)


def wait_for(condition: Callable[[], object], seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition was not met in time"
        time.sleep(0.02)


def checkpoints(place: Place) -> list[Path]:
    return list((place.folder / ".work/pretrain-all").glob("*/step-*"))


@pytest.mark.parametrize(("ranks", "number"), [(1, signal.SIGINT), (2, signal.SIGUSR1)])
def test_a_stop_signal_writes_a_checkpoint_and_the_next_run_resumes(
    ranks: int, number: signal.Signals, place: Place, two: dict[str, bytes], running: Start
) -> None:
    process = running(ranks)
    wait_for(lambda: checkpoints(place))
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + (signal.SIGTERM if ranks == 1 else number), output
    stopped = output.split("stopped after step ")[1].split()[0]
    assert place.processes() == {}
    assert not (place.folder / "artifacts").exists()
    again = python(place.folder, place.env, *PRETRAIN)
    assert again.returncode == 0, again.stderr
    assert f"resuming at step {stopped} of" in again.stdout
    if ranks == 2:
        assert place.made() == two


@pytest.mark.parametrize("who", ["rank", "supervisor"])
def test_a_kill_of_any_process_ends_all_processes_and_fails_the_stage(
    who: str, place: Place, running: Start
) -> None:
    process = running(2)
    wait_for(lambda: place.rank(0) and place.rank(1) and checkpoints(place))
    victim = {"rank": place.rank(1), "supervisor": process.pid}[who]
    assert victim is not None
    os.kill(victim, signal.SIGKILL)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == (-signal.SIGKILL if who == "supervisor" else 1), output
    wait_for(lambda: not place.processes(), 60)
    # Ranks check once a second whether the supervisor runs, and may finish before.
    if who != "supervisor":
        assert "error: pretrain: the ranks ended before rank 0 was done" in output
        assert "Traceback" not in output
        assert not (place.folder / "artifacts").exists()
        assert checkpoints(place)


def test_the_run_ends_if_a_rank_hangs(place: Place, running: Start) -> None:
    """The other rank fails after the timeout; then the supervisor kills the hanging rank."""
    process = running(2, timeout_minutes=0.1)
    wait_for(lambda: place.rank(0) and place.rank(1) and checkpoints(place))
    hung = place.rank(1)
    assert hung is not None
    os.kill(hung, signal.SIGSTOP)
    output, _ = process.communicate(timeout=180)
    assert process.returncode == 1, output
    wait_for(lambda: not place.processes(), 60)
    assert "rank 0 on " in output
    assert "lost the connection to another rank" in output
    assert "Traceback" not in output
    assert checkpoints(place)


@pytest.mark.parametrize(("ranks", "number"), [(1, signal.SIGKILL), (2, signal.SIGTERM)])
def test_a_stage_stops_with_a_checkpoint_if_dvc_is_killed(
    ranks: int, number: signal.Signals, place: Place, running: Start
) -> None:
    process = running(ranks, "-m", "dvc", "repro", "--single-item", "pretrain@all", forks=False)
    wait_for(lambda: checkpoints(place))
    process.send_signal(number)
    output, _ = process.communicate(timeout=120)
    wait_for(lambda: not place.processes(), 60)
    assert "stopped after step " in output
    assert not (place.folder / "artifacts").exists()
    step = int(output.split("stopped after step ")[1].split()[0])
    assert f"step-{step:09d}" in {path.name for path in checkpoints(place)}


def test_a_starting_stage_ends_if_dvc_is_killed(place: Place, running: Start) -> None:
    process = running(1, "-m", "dvc", "repro", "--single-item", "pretrain@all", forks=False)
    wait_for(lambda: any("stages.pretrain" in words for words in place.processes().values()))
    process.kill()
    process.communicate(timeout=60)
    wait_for(lambda: not place.processes(), 60)  # it notices after its imports
    assert not checkpoints(place)


def test_a_terminated_pod_leaves_a_checkpoint(place: Place, running: Start) -> None:
    """Runs the script of examples/kubernetes.yaml without its virtual environment."""
    (container,) = load_yaml(ROOT / "examples/kubernetes.yaml")["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["command"] == ["bash", "-c"]
    script = container["args"][0].replace("source .venv/bin/activate\n", "")
    process = running(
        1,
        "-c",
        "import os, sys; os.execvp('bash', ['bash', '-c', sys.argv[1]])",
        script,
        forks=False,
    )
    wait_for(lambda: checkpoints(place))
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode not in (0, -signal.SIGTERM), output
    assert "stopped after step " in output
    # The shell of the script checks every five seconds whether to send the signal again.
    wait_for(lambda: not place.processes(), 10)

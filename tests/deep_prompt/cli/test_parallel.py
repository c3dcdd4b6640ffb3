"""deep-prompt parallel: the whole pipeline in one command, with one process per task."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deep_prompt.cli.parallel import _jobs
from stages.runtime.params import check_params
from tests.support.small_project import environment, make_project, python, write_params


@pytest.fixture(scope="module")
def project(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, dict[str, str], dict[str, Any]]:
    """A project with two ranks and a mixture; world_ner starts from world_srl."""
    home = tmp_path_factory.mktemp("parallel")
    folder, env = (home / "project").resolve(), environment(home)
    values = make_project(folder)
    for mixtures in (values["mixtures"], values["pretrain"]):
        del mixtures["ner_only"]
    values["pretrain"]["all"]["micro_batches_per_step"] = 2
    values["tasks"]["world_ner"]["init_from"] = "multitask/world_srl"
    write_params(folder, values)
    (folder / "cluster.yaml").write_text("ranks: 2\n", encoding="utf-8")
    python(folder, env, "-m", "dvc", "init", "--quiet", "--no-scm").check_returncode()
    return folder, env, values


def test_each_task_trains_in_one_process(
    project: tuple[Path, dict[str, str], dict[str, Any]],
) -> None:
    """This also holds after an interruption."""
    folder, env, _ = project
    running = subprocess.Popen(
        [sys.executable, "-m", "deep_prompt", "parallel", "2"],
        cwd=folder,
        env=environment(folder.parent, forks=False),  # Stages detect that their parent has ended.
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 600
    while not list((folder / ".work").glob("finetune-*/*/step-*")) and time.monotonic() < deadline:
        time.sleep(0.02)
    running.terminate()
    output, _ = running.communicate(timeout=120)
    assert running.returncode == 128 + signal.SIGTERM, output
    assert not (folder / "report").exists()
    done = python(folder, env, "-m", "deep_prompt", "parallel", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [line.strip() for line in (output + done.stdout).splitlines()]
    assert "repro: > exec python -m stages.pretrain all" in output
    assert "repro: > exec python -m stages.zoo" in output, "a task may start from zoo/NAME"
    assert "repro: 2 ranks on" in output
    assert "repro: 2 ranks on" not in done.stdout, "a complete training is not repeated"
    trained = ("finetune@world_ner", "finetune@world_srl", "baseline@head_only-world_ner")
    for stage in trained:
        assert any(line.startswith(f"{stage}: 1 rank on") for line in lines), (
            f"{stage}: more than one process"
        )
    assert not any(line.startswith("repro: 1 rank on") for line in lines), (
        "`dvc repro` trains no task again"
    )
    order = [line.split(":")[0] for line in lines if ": done in" in line]
    assert order.index("finetune@world_srl") < order.index("finetune@world_ner"), (
        "world_ner starts from world_srl"
    )
    status = python(folder, env, "-m", "dvc", "status", "--json")
    assert json.loads(status.stdout) == {"backbone_files": ["always changed"]}, status.stdout
    assert list((folder / ".work/launch").iterdir()) == []


def test_a_failed_task_is_reported_and_the_others_continue(
    project: tuple[Path, dict[str, str], dict[str, Any]],
) -> None:
    folder, env, values = project
    values["tasks"]["world_srl"]["multitask"] = {"projection_size": 7}
    values["arms"]["head_only"]["head_lr"] = 0.004
    write_params(folder, values)
    done = python(folder, env, "-m", "deep_prompt", "parallel", "2")
    assert done.returncode == 1
    assert (
        "error: failed: multitask/world_srl, multitask/world_ner; see the errors above"
        in done.stderr
    )
    (error,) = [
        line
        for line in done.stdout.splitlines()
        if "artifacts/pretrain/all/config.json: projection_size is 0" in line
    ]
    assert error.startswith("  finetune@world_srl: error: ")
    assert any(
        line.strip().startswith("evaluate_baseline@head_only-world_ner: done in")
        for line in done.stdout.splitlines()
    )


def test_a_number_of_processes_must_be_positive(
    project: tuple[Path, dict[str, str], dict[str, Any]],
) -> None:
    done = python(project[0], project[1], "-m", "deep_prompt", "parallel", "all")
    assert done.returncode == 2
    assert "'all' is not a whole number above 0" in done.stderr


def test_jobs_follow_the_jobs_they_start_from(
    project: tuple[Path, dict[str, str], dict[str, Any]],
) -> None:
    jobs = _jobs(check_params(project[2], "params"))
    assert list(jobs) == [
        ("head_only", "world_ner"),
        ("multitask", "world_srl"),
        ("multitask", "world_ner"),
    ]
    assert jobs[("multitask", "world_ner")] == ("multitask", "world_srl")
    repeated = _jobs(
        check_params({**project[2], "repeat": {**project[2]["repeat"], "seeds": [8]}}, "params")
    )
    assert {job: before for job, before in repeated.items() if job not in jobs} == {
        ("head_only", "world_ner", "8"): ("head_only", "world_ner"),
        ("multitask", "world_ner", "8"): ("multitask", "world_ner"),
    }

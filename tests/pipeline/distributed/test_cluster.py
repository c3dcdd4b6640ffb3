"""Tests of cluster.yaml, and of the commands and environments that result from it."""

import re
from pathlib import Path

import pytest
import torch

from pipeline.distributed.cluster import (
    Cluster,
    Ranks,
    environment_file_text,
    gpu_of_each_process,
    gpu_variables,
    launch_command,
    load_cluster,
    local_rank_variables,
    rank_environment,
    read_hostfile,
    visible_gpus,
)
from pipeline.distributed.collectives import device
from pipeline.errors import UserError

ADDRESS = {"MASTER_ADDR": "node0", "MASTER_PORT": "1234"}


def test_ranks_are_read_from_the_environment() -> None:
    assert Ranks.from_environment({}) == Ranks(0, 1, 0)
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", **ADDRESS}
    assert Ranks.from_environment(torchrun) == Ranks(5, 8, 1)


def test_srun_sets_the_rank_unless_torchrun_does() -> None:
    batch_script = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4"}
    assert Ranks.from_environment(batch_script) == Ranks(0, 1, 0)
    step = batch_script | ADDRESS | {"SLURM_STEP_NUM_TASKS": "4"}
    assert Ranks.from_environment(step) == Ranks(3, 4, 1)
    assert Ranks.from_environment(step | {"RANK": "7", "WORLD_SIZE": "9"}) == Ranks(7, 9, 0)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "1", "SLURM_LOCALID": "1"},
            "SLURM_STEP_NUM_TASKS is 4 in the environment, so this process is one of 4 ranks; set "
            "MASTER_ADDR, MASTER_PORT too, or unset SLURM_STEP_NUM_TASKS to run one process",
        ),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "set MASTER_PORT too, or unset"),
        ({"WORLD_SIZE": "8", **ADDRESS}, "one of 8 ranks; set RANK too, or unset WORLD_SIZE"),
        ({"RANK": "one"}, "RANK is 'one' in the environment; set it to a whole number"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is 0 in the environment; set it to the number of ranks"),
        ({"SLURM_STEP_NUM_TASKS": ""}, "SLURM_STEP_NUM_TASKS is ''"),
        ({"RANK": "2", "WORLD_SIZE": "2", **ADDRESS}, "RANK is 2 .* but WORLD_SIZE is 2; set RANK"),
    ],
)
def test_ranks_that_cannot_train_together_are_reported(
    environment: dict[str, str], message: str
) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Ranks.from_environment(environment)
    assert len(caught.value.problems) == 1


def test_an_experiment_of_dvc_has_the_cluster_of_the_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cluster.yaml").write_text("hostfile: hosts\n")
    (tmp_path / "hosts").write_text("node0 slots=4\n")
    for folder in (".dvc/tmp/exps/tmpa", ".dvc/tmp/exps/standalone/tmpb"):
        (tmp_path / folder).mkdir(parents=True)
        monkeypatch.chdir(tmp_path / folder)
        cluster = load_cluster(Path("cluster.yaml"))
        assert cluster == Cluster(hostfile=str(tmp_path / "hosts"))
    Path("cluster.yaml").write_text("ranks: 2\n")
    assert load_cluster(Path("cluster.yaml")) == Cluster(ranks=2)
    monkeypatch.chdir(tmp_path)
    assert load_cluster(Path("cluster.yaml")) == Cluster(hostfile="hosts")


def test_training_runs_in_one_process_without_a_file(tmp_path: Path) -> None:
    assert load_cluster(tmp_path / "cluster.yaml") == Cluster()
    assert Cluster().is_single_process
    assert not Cluster(ranks=2).is_single_process
    assert not Cluster(hostfile="hosts").is_single_process
    assert not Cluster(slurm=True).is_single_process


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (
            "ranks: 0\ntimeout_minutes: -1",
            ["ranks is 0", "timeout_minutes is -1.0", "give a number above 0"],
        ),
        ("rank: 2", ["unknown key 'rank'", "ranks"]),
        ("ranks: two", ["ranks", "'two'"]),
        ("zero: 4", ["zero", "4"]),
        ("offload: true", ["offload is set, but zero is 0; set zero: 3"]),
        ("hostfile: hosts\nslurm: true", ["hostfile and slurm are both set"]),
    ],
)
def test_invalid_settings_are_reported(text: str, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_cluster(path)
    for part in (str(path), *parts):
        assert part in str(caught.value)


def test_hostfile_gives_the_ranks_of_each_host(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# ours\nnode0 slots=4\n\nnode1   slots=2 # old\n")
    assert read_hostfile(path) == {"node0": 4, "node1": 2}


def test_invalid_lines_of_a_hostfile_are_reported(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("node0\nnode1 slots=0\nnode2 slots=1\nnode2 slots=1\n")
    with pytest.raises(UserError) as caught:
        read_hostfile(path)
    assert caught.value.problems == (
        f"{path}:1: found 'node0'; write NAME slots=N",
        f"{path}:2: found 'node1 slots=0'; write NAME slots=N",
        f"{path}:4: found 'node2 slots=1', but an earlier line names this host; remove one of them",
    )


def test_hostfile_without_hosts_or_absent_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("")
    with pytest.raises(UserError, match="has no hosts; write a line NAME slots=N per host"):
        read_hostfile(path)
    with pytest.raises(UserError, match="no such file; create it, or correct hostfile in cluster"):
        read_hostfile(tmp_path / "absent")
    path.write_bytes(b"node0 slots=1\nnode\xff slots=1\n")
    with pytest.raises(UserError, match="hosts:2: byte 0xff is not UTF-8"):
        read_hostfile(path)


def test_a_rank_without_a_gpu_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert device(Ranks(5, 8, 1)) == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"rank 6 needs GPU number 3 of .*, which has 2; lower"):
        device(Ranks(6, 8, 2))


def test_ranks_on_this_machine_meet_on_the_loopback_interface() -> None:
    variables = local_rank_variables(1, 8, 1234)
    assert Ranks.from_environment(variables) == Ranks(1, 8, 1)
    assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == ("127.0.0.1", "1234")


def test_command_with_a_hostfile_uses_pdsh() -> None:
    cluster = Cluster(hostfile="hosts", ssh_port=2222)
    command = launch_command(cluster, "python", "stages.pretrain", ["all"], 1234)
    assert command[:3] == ["python", "-m", "deepspeed.launcher.runner"]
    assert " ".join(command).endswith(
        "--master_port 1234 --hostfile hosts --force_multi --launcher pdsh --ssh_port 2222 "
        "--no_local_rank --module stages.pretrain all"
    )


def test_command_in_a_slurm_job_uses_srun() -> None:
    cluster = Cluster(slurm=True, ranks=4)
    command = launch_command(cluster, "python", "stages.finetune", ["multitask", "t"], 1234)
    assert command == [
        *("srun", "--kill-on-bad-exit=1", "--wait=0", "--ntasks-per-node=4"),
        *("python", "-m", "stages.finetune", "multitask", "t"),
    ]


@pytest.mark.parametrize(
    ("value", "gpus"),
    [
        ("", ()),
        ("4, 5,6", ("4", "5")),
        ("GPU-8932f937-d72c,GPU-1b,GPU-2c", ("GPU-8932f937-d72c", "GPU-1b")),
        ("MIG-GPU-8932f937/1/0,MIG-5b1c", ("MIG-GPU-8932f937/1/0", "MIG-5b1c")),
        ("-1", ()),
        ("3,2,-1,x", ("3", "2")),
    ],
)
def test_gpus_of_the_environment_have_numbers_or_names(value: str, gpus: tuple[str, ...]) -> None:
    assert visible_gpus(2, {"CUDA_VISIBLE_DEVICES": value}) == gpus
    assert visible_gpus(2, {}) == ()


def test_each_process_has_a_gpu_of_the_environment() -> None:
    assert list(gpu_of_each_process(2, {})) == ["0", "1"]
    names = {"CUDA_VISIBLE_DEVICES": "MIG-a,MIG-b,MIG-c"}
    assert list(gpu_of_each_process(2, names)) == ["MIG-a", "MIG-b"]
    assert list(gpu_of_each_process(2, {"CUDA_VISIBLE_DEVICES": "-1"})) == ["", ""]


def test_ranks_use_the_gpus_of_the_environment() -> None:
    """An empty value hides the GPUs from the ranks too."""
    name = "CUDA_VISIBLE_DEVICES"
    assert gpu_variables(2, {}) == {}
    for value, gpus in {"4,5,6": "4,5", "GPU-1b,GPU-0a": "GPU-1b,GPU-0a", "-1": "", "": ""}.items():
        assert gpu_variables(2, {name: value}) == {name: gpus}
    with pytest.raises(UserError, match=r"'MIG-a', a MIG part of a GPU, .* name whole GPUs"):
        gpu_variables(2, {name: "MIG-a,MIG-b"})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("4", "is '4', but 2 GPUs are needed; name 2 different GPUs, or unset it"),
        ("4,4", "is '4,4', but 2 GPUs are needed"),
        ("0,all", "is '0,all', but 'all' is not a GPU; write numbers, UUIDs"),
    ],
)
def test_too_few_or_unknown_gpus_are_reported(value: str, message: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"CUDA_VISIBLE_DEVICES {message}")):
        visible_gpus(2, {"CUDA_VISIBLE_DEVICES": value})


def test_rank_environment_adds_interface_and_threads() -> None:
    cluster = Cluster(interface="eth7", forward=("TOKEN", "HOME"))
    current = {"TOKEN": "a=b", "HOME": "/h"}
    assert rank_environment(cluster, current) == {
        "GLOO_SOCKET_IFNAME": "eth7",
        "NCCL_SOCKET_IFNAME": "eth7",
        "OMP_NUM_THREADS": "1",
    }
    assert "OMP_NUM_THREADS" not in rank_environment(cluster, current | {"OMP_NUM_THREADS": "3"})
    with pytest.raises(UserError, match="forward: TOKEN is not set; set it, or remove it"):
        rank_environment(cluster, {"HOME": "/h"})


def test_environment_file_has_only_the_variables_to_forward() -> None:
    cluster = Cluster(interface="eth7", forward=("TOKEN", "HOME"))
    current = {"TOKEN": "a=b", "HOME": "/h", "OTHER": "x", "DEEP_PROMPT_MARKER": "/m"}
    text = environment_file_text(cluster, current | rank_environment(cluster, current))
    assert {
        "TOKEN=a=b",
        "HOME=/h",
        "GLOO_SOCKET_IFNAME=eth7",
        "OMP_NUM_THREADS=1",
        "DEEP_PROMPT_MARKER=/m",
    } <= set(text.splitlines())
    assert "OTHER" not in text


@pytest.mark.parametrize("value", ["a\nb", 'a"b', "a$b", "a`b", "a\\b"])
def test_values_that_the_launcher_would_corrupt_are_reported(value: str) -> None:
    with pytest.raises(UserError, match=r"forward: TOKEN is .*, but the launcher cannot send"):
        environment_file_text(Cluster(forward=("TOKEN",)), {"TOKEN": value})

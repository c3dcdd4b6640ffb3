"""cluster.yaml: what it may say, and the commands and environments that come of it."""

from pathlib import Path

import pytest

from pipeline.distributed.cluster import (
    Cluster,
    Ranks,
    command,
    environment,
    forwarded,
    hosts_of,
    load_cluster,
    visible_gpus,
)
from pipeline.errors import UserError


def test_ranks_are_read_from_the_environment() -> None:
    assert Ranks.from_environment({}) == Ranks(0, 1, 0)
    assert Ranks.from_environment({"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1"}) == Ranks(
        5, 8, 1
    )
    slurm = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4"}
    assert Ranks.from_environment(slurm) == Ranks(0, 1, 0), "a batch script is no rank"
    assert Ranks.from_environment(slurm | {"SLURM_STEP_NUM_TASKS": "4"}) == Ranks(3, 4, 1)
    assert Ranks.from_environment(
        slurm | {"SLURM_STEP_NUM_TASKS": "2", "RANK": "7", "WORLD_SIZE": "9"}
    ) == Ranks(7, 9, 0)


def test_without_a_file_there_is_one_process(tmp_path: Path) -> None:
    assert load_cluster(tmp_path / "cluster.yaml") == Cluster()
    assert Cluster().is_single_process
    for more in ({"ranks": 2}, {"hostfile": "hosts"}, {"slurm": True}):
        assert not Cluster(**more).is_single_process


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
        ("offload: true", ["offload is set, but zero is 0"]),
        ("hostfile: hosts\nslurm: true", ["hostfile and slurm are both set"]),
    ],
)
def test_a_mistake_is_told(text: str, parts: list[str], tmp_path: Path) -> None:
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        load_cluster(path)
    for part in (str(path), *parts):
        assert part in str(caught.value)


def test_a_hostfile(tmp_path: Path) -> None:
    path = tmp_path / "hosts"
    path.write_text("# ours\nnode0 slots=4\n\nnode1   slots=2 # old\n")
    assert hosts_of(path) == {"node0": 4, "node1": 2}
    path.write_text("node0\nnode1 slots=0\nnode2 slots=1\nnode2 slots=1\n")
    with pytest.raises(UserError) as caught:
        hosts_of(path)
    assert [problem.split(": ")[0] for problem in caught.value.problems] == [
        f"{path}:{number}" for number in (1, 2, 4)
    ]
    path.write_text("")
    with pytest.raises(UserError, match="names no host"):
        hosts_of(path)
    with pytest.raises(UserError, match="cannot be read: No such file"):
        hosts_of(tmp_path / "absent")


def test_commands() -> None:
    local = command(Cluster(ranks=8), "python", "stages.pretrain", ["all"], 1234)
    assert local[:3] == ["python", "-m", "deepspeed.launcher.runner"]
    assert " ".join(local).endswith(
        "--master_port 1234 --num_gpus 8 --no_local_rank --module stages.pretrain all"
    )
    hosts = " ".join(
        command(
            Cluster(hostfile="hosts", ssh_port=2222), "python", "stages.pretrain", ["all"], 1234
        )
    )
    assert (
        "--hostfile hosts --force_multi --launcher pdsh --ssh_port 2222 --no_local_rank --module stages.pretrain all"
        in hosts
    )
    slurm = command(
        Cluster(slurm=True, ranks=4), "python", "stages.finetune", ["multitask", "t"], 1234
    )
    assert slurm == [
        "srun",
        "--kill-on-bad-exit=1",
        "--wait=0",
        "--ntasks-per-node=4",
        "python",
        "-m",
        "stages.finetune",
        "multitask",
        "t",
    ]


def test_the_gpus_that_the_environment_names() -> None:
    assert visible_gpus(2, {}) == visible_gpus(2, {"CUDA_VISIBLE_DEVICES": ""}) == ()
    assert visible_gpus(2, {"CUDA_VISIBLE_DEVICES": "4, 5,6"}) == (4, 5)
    words = command(Cluster(ranks=2), "python", "stages.pretrain", ["all"], 1234, (4, 5))
    assert "--master_port 1234 --include localhost:4,5 --no_local_rank" in " ".join(words)
    for named in ("4", "GPU-0a,GPU-1b"):
        with pytest.raises(
            UserError, match=f"CUDA_VISIBLE_DEVICES is '{named}', but 2 GPUs are asked for"
        ):
            visible_gpus(2, {"CUDA_VISIBLE_DEVICES": named})


def test_environments() -> None:
    cluster = Cluster(interface="eth7", forward=("TOKEN", "HOME"), timeout_minutes=0.5)
    given = {"TOKEN": "a=b", "HOME": "/h", "OTHER": "x"}
    added = environment(cluster, given)
    assert added == {
        "GLOO_SOCKET_IFNAME": "eth7",
        "NCCL_SOCKET_IFNAME": "eth7",
        "OMP_NUM_THREADS": "1",
    }
    assert "OMP_NUM_THREADS" not in environment(cluster, given | {"OMP_NUM_THREADS": "3"})
    lines = forwarded(cluster, given | added | {"DEEP_PROMPT_MARKER": "/m"}).splitlines()
    assert {
        "TOKEN=a=b",
        "HOME=/h",
        "GLOO_SOCKET_IFNAME=eth7",
        "OMP_NUM_THREADS=1",
        "DEEP_PROMPT_MARKER=/m",
    } <= set(lines)
    assert not [line for line in lines if line.startswith("OTHER")]
    with pytest.raises(UserError, match="forward: TOKEN is not set here"):
        environment(cluster, {"HOME": "/h"})
    for value in ("a\nb", 'a"b', "a$b", "a`b", "a\\b"):
        with pytest.raises(
            UserError, match=r"forward: TOKEN is .*; a line break, or one of .* cannot be handed on"
        ):
            forwarded(cluster, {"TOKEN": value, "HOME": "/h"})

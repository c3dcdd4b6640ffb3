"""The settings of cluster.yaml (hosts, ranks, ZeRO, workers), and the launch of ranks.

Results do not depend on these settings.
"""

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pipeline.config import load_yaml, parse, read_text
from pipeline.errors import UserError
from pipeline.files import in_project

SUPERVISOR = "DEEP_PROMPT_SUPERVISOR"  # variable: host:pid of the launching process
MARKER = "DEEP_PROMPT_MARKER"  # variable: the file that rank 0 writes when it has finished
PARALLEL = "DEEP_PROMPT_PARALLEL"  # variable: set by `deep-prompt parallel`, one rank per job


@dataclass(frozen=True)
class Ranks:
    """The rank of this process among the processes that train together."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Ranks":
        """Read the variables of torchrun and DeepSpeed's launcher, or those of srun.

        Without these variables, there is one process. Raises UserError if a variable is not a
        number, or if several ranks have no address to meet at.
        """
        names: tuple[str, ...] = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        if "RANK" not in environment and "SLURM_STEP_NUM_TASKS" in environment:
            names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        values = [
            environment.get(name, default) for name, default in zip(names, "010", strict=True)
        ]
        problems = [
            f"{name} is {value!r} in the environment; set it to a whole number, or unset it"
            for name, value in zip(names, values, strict=True)
            if not value.isdecimal()
        ]
        if problems:
            raise UserError(*problems)
        ranks = cls(*map(int, values))
        needed = (names[0], "MASTER_ADDR", "MASTER_PORT")
        missing = [name for name in needed if name not in environment]
        if ranks.world > 1 and missing:
            raise UserError(
                f"{names[1]} is {ranks.world} in the environment, so this process is one of "
                f"{ranks.world} ranks; set {', '.join(missing)} too, or unset {names[1]} to run "
                "one process, or let cluster.yaml start the ranks (docs/cluster.md)"
            )
        if ranks.world == 0:
            raise UserError(
                f"{names[1]} is 0 in the environment; set it to the number of ranks, or unset it"
            )
        if ranks.rank >= ranks.world:
            raise UserError(
                f"{names[0]} is {ranks.rank} in the environment, but {names[1]} is {ranks.world}; "
                f"set {names[0]} to a number below {names[1]}, or unset both"
            )
        return ranks


@dataclass(frozen=True)
class Cluster:
    """The settings of cluster.yaml.

    - `ranks`: processes per host, one per GPU.
    - `hostfile`: a file with a line `NAME slots=N` per host; N replaces `ranks`. The hosts are
      reached by ssh on `ssh_port`.
    - `slurm`: run on the hosts of the Slurm job. Without `hostfile` and `slurm`, run on this
      machine.
    - `interface`: the network interface between ranks, such as eth0.
    - `forward`: environment variables to set on the other hosts.
    - `timeout_minutes`: a rank fails if it waits longer for another rank.
    - `checkpoint_minutes`: the time between checkpoints.
    - `zero`: the stage of DeepSpeed's ZeRO; stage 3 splits the weights among the ranks.
    - `offload`: keep the split weights in host memory instead of GPU memory.
    - `workers`: processes that read and tokenize corpora; 0 means one per core of this machine.
    - `ray`: a Ray cluster to use instead of `workers`: its address, "auto" for the cluster of this
      machine, or "local" for a cluster that exists only during the stage.
    """

    ranks: int = 1
    hostfile: str | None = None
    ssh_port: int = 22
    slurm: bool = False
    interface: str | None = None
    forward: tuple[str, ...] = ()
    timeout_minutes: float = 10.0
    checkpoint_minutes: float = 2.0
    zero: Literal[0, 1, 2, 3] = 0
    offload: bool = False
    workers: int = 0
    ray: str | None = None

    def __post_init__(self) -> None:
        positive = ("ranks", "ssh_port", "timeout_minutes", "checkpoint_minutes")
        problems = [
            f"{name} is {getattr(self, name)}; give a number above 0"
            for name in positive
            if getattr(self, name) <= 0
        ]
        if self.workers < 0:
            problems.append(
                f"workers is {self.workers}; give a number of processes, or 0 for one per core"
            )
        if self.slurm and self.hostfile is not None:
            problems.append(
                "hostfile and slurm are both set; remove hostfile to use the hosts of the Slurm job"
            )
        if self.offload and self.zero != 3:
            problems.append(
                f"offload is set, but zero is {self.zero}; set zero: 3, or remove offload"
            )
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def is_single_process(self) -> bool:
        """Whether training runs in one process, without a launcher."""
        return self.ranks == 1 and self.is_one_machine

    @property
    def is_one_machine(self) -> bool:
        """Whether all processes run on this machine."""
        return self.hostfile is None and not self.slurm


def load_cluster(path: Path) -> Cluster:
    """Load cluster.yaml; without the file, training runs in one process.

    In the folder of a DVC experiment, it is the project's file. Raises UserError with all problems
    of the file.
    """
    path = in_project(path)
    if not path.exists():
        return Cluster()
    cluster = parse(Cluster, load_yaml(path), str(path))
    if cluster.hostfile is None:
        return cluster
    return replace(cluster, hostfile=str(in_project(Path(cluster.hostfile))))


def read_hostfile(hostfile: Path) -> dict[str, int]:
    """Return the number of ranks of each host. Raises UserError with all invalid lines."""
    lines = read_text(hostfile, "create it, or correct hostfile in cluster.yaml").splitlines()
    hosts: dict[str, int] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].strip()
        match = re.fullmatch(r"(\S+)\s+slots=([1-9]\d*)", text)
        if text and match is None:
            problems.append(f"{hostfile}:{number}: found {text!r}; write NAME slots=N")
        elif match and match[1] in hosts:
            problems.append(
                f"{hostfile}:{number}: found {text!r}, but an earlier line names this host; "
                "remove one of them"
            )
        elif match:
            hosts[match[1]] = int(match[2])
    if not hosts and not problems:
        problems.append(f"{hostfile}: has no hosts; write a line NAME slots=N per host")
    if problems:
        raise UserError(*problems)
    return hosts


_GPU = re.compile(r"\d+|(GPU|MIG)-[\w/-]+")


def visible_gpus(count: int, environment: Mapping[str, str]) -> tuple[str, ...]:
    """Return the first `count` GPUs of CUDA_VISIBLE_DEVICES: numbers, UUIDs, or names of MIG parts.

    It is () if the variable is not set, or hides all GPUs: CUDA ignores a -1 and all that follows.
    Raises UserError if it has fewer GPUs, or something else than GPUs.
    """
    text = environment.get("CUDA_VISIBLE_DEVICES", "")
    gpus = [value.strip() for value in text.split(",") if value.strip()]
    gpus = gpus[: gpus.index("-1")] if "-1" in gpus else gpus
    if invalid := [gpu for gpu in gpus if not _GPU.fullmatch(gpu)]:
        raise UserError(
            f"CUDA_VISIBLE_DEVICES is {text!r}, but {invalid[0]!r} is not a GPU; write numbers, "
            "UUIDs (GPU-...) or names of MIG parts (MIG-...), or unset it"
        )
    if gpus and len(set(gpus)) < count:
        raise UserError(
            f"CUDA_VISIBLE_DEVICES is {text!r}, but {count} GPUs are needed; name {count} "
            "different GPUs, or unset it"
        )
    return tuple(dict.fromkeys(gpus))[:count]


def gpu_of_each_process(count: int, environment: Mapping[str, str]) -> Sequence[str]:
    """The value of CUDA_VISIBLE_DEVICES for each of `count` processes that run at the same time.

    Raises UserError if CUDA_VISIBLE_DEVICES is set and does not name enough GPUs.
    """
    if "CUDA_VISIBLE_DEVICES" not in environment:
        return [str(number) for number in range(count)]
    return visible_gpus(count, environment) or [""] * count  # "" hides all GPUs


def gpu_variables(count: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variable that limits `count` ranks on this machine to their GPUs, if it is set.

    Raises UserError if CUDA_VISIBLE_DEVICES does not name enough GPUs, or parts of GPUs (MIG),
    which CUDA lets a process use only one at a time.
    """
    if "CUDA_VISIBLE_DEVICES" not in environment:
        return {}
    gpus = visible_gpus(count, environment)
    if parts := [gpu for gpu in gpus if gpu.startswith("MIG-")]:
        raise UserError(
            f"CUDA_VISIBLE_DEVICES has {parts[0]!r}, a MIG part of a GPU, and ranks cannot train "
            "together on parts; name whole GPUs, or set ranks: 1 in cluster.yaml"
        )
    return {"CUDA_VISIBLE_DEVICES": ",".join(gpus)}


def local_rank_variables(rank: int, world: int, port: int) -> dict[str, str]:
    """Return the variables of a rank if all ranks run on this machine (see `Ranks`)."""
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(world),
        "LOCAL_RANK": str(rank),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def launch_command(
    cluster: Cluster,
    python: str,
    module: str,
    arguments: Sequence[str],
    port: int,
) -> list[str]:
    """Return the command that starts `python -m MODULE ARGUMENTS` as every rank on several hosts.

    It is srun in a Slurm job, and DeepSpeed's launcher with a hostfile.
    """
    if cluster.slurm:
        # --wait=0: rank 0 may save files for a long time after the other ranks have ended.
        options = ["--kill-on-bad-exit=1", "--wait=0", f"--ntasks-per-node={cluster.ranks}"]
        return ["srun", *options, python, "-m", module, *arguments]
    launcher = [python, "-m", "deepspeed.launcher.runner", "--log_level", "error"]
    launcher += ["--master_port", str(port), "--hostfile", str(cluster.hostfile)]
    launcher += ["--force_multi", "--launcher", "pdsh", "--ssh_port", str(cluster.ssh_port)]
    return [*launcher, "--no_local_rank", "--module", module, *arguments]


def rank_environment(cluster: Cluster, current: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that ranks need in addition to the `current` environment.

    Raises UserError if a variable of `forward` is not set.
    """
    missing = [name for name in cluster.forward if name not in current]
    if missing:
        raise UserError(
            *(
                f"cluster.yaml: forward: {name} is not set; set it, or remove it from forward"
                for name in missing
            )
        )
    added: dict[str, str] = {}
    if cluster.interface is not None:
        added |= {"GLOO_SOCKET_IFNAME": cluster.interface, "NCCL_SOCKET_IFNAME": cluster.interface}
    if "OMP_NUM_THREADS" not in current:
        added["OMP_NUM_THREADS"] = "1"  # by default each rank uses all cores, which is slow
    return added


def environment_file_text(cluster: Cluster, current: Mapping[str, str]) -> str:
    """Return the content of the file of variables that DeepSpeed's launcher sends to other hosts.

    Raises UserError for a value that the launcher would corrupt.
    """
    added = rank_environment(cluster, current)
    names = [*cluster.forward, *added, "OMP_NUM_THREADS", MARKER, SUPERVISOR]
    values = {name: current[name] for name in names if name in current}
    problems = [
        f"cluster.yaml: forward: {name} is {value!r}, but the launcher cannot send a line break "
        'or " $ ` \\; change the value, or set it on each host'
        for name, value in values.items()
        if re.search(r'[\n"$`\\]', value)
    ]
    if problems:
        raise UserError(*problems)
    return "".join(f"{name}={value}\n" for name, value in values.items())


def free_port(address: str = "") -> int:
    """A free TCP port at an address of this machine (default: at all of them)."""
    with socket.socket() as listener:
        listener.bind((address, 0))
        return int(listener.getsockname()[1])

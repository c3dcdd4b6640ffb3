"""Where training runs: cluster.yaml, and the ranks that it asks for. No result depends on any of it."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.config import load_yaml, parse
from pipeline.errors import UserError

SUPERVISOR = "DEEP_PROMPT_SUPERVISOR"  # host:pid of the process that started the ranks
MARKER = "DEEP_PROMPT_MARKER"  # the file by which rank 0 says that it is done


@dataclass(frozen=True)
class Ranks:
    """This process's place among the processes that train together."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "Ranks":
        """What torchrun or DeepSpeed's launcher set (RANK, WORLD_SIZE, LOCAL_RANK), or srun; one process where nothing is set."""
        if "RANK" not in environment and "SLURM_STEP_NUM_TASKS" in environment:
            return cls(
                *(
                    int(environment[name])
                    for name in ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
                )
            )
        return cls(
            int(environment.get("RANK", 0)),
            int(environment.get("WORLD_SIZE", 1)),
            int(environment.get("LOCAL_RANK", 0)),
        )


@dataclass(frozen=True)
class Cluster:
    """cluster.yaml. There are `ranks` processes on each host, one a GPU.

    `hostfile` names the hosts, `NAME slots=N` a line, to be reached by ssh on `ssh_port`; N takes the place of `ranks`. Under
    `slurm` they are those of the job. With neither, it is this machine. `interface` is what ranks talk over (such as eth0);
    `forward` are variables of the environment that other hosts must have. A rank without news of the others for `timeout_minutes`
    gives up; `checkpoint_minutes` is how often there is a checkpoint. `zero` is what ranks share of a model's memory (DeepSpeed's
    ZeRO: 3 is the weights), and `offload` keeps their parts in the machine's memory, not the GPU's.

    Corpora are read and tokenized by `workers` processes (0: one a core of this machine), or by the Ray cluster `ray`: its
    address, "auto" for the one that this machine is part of, or "local" for one that lives as long as the stage.
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
                f"workers is {self.workers}; give a number of processes, or 0 for one a core"
            )
        if self.slurm and self.hostfile is not None:
            problems.append(
                "hostfile and slurm are both set; remove one: Slurm knows the job's hosts"
            )
        if self.offload and self.zero != 3:
            problems.append(
                f"offload is set, but zero is {self.zero}; only zero: 3 has weights to offload"
            )
        if problems:
            raise ValueError("; ".join(problems))

    @property
    def is_single_process(self) -> bool:
        """Whether one process does it all."""
        return self.ranks == 1 and self.hostfile is None and not self.slurm


def load_cluster(path: Path) -> Cluster:
    """What cluster.yaml says; one process where there is no such file. Raises UserError with all that is wrong with it."""
    return parse(Cluster, load_yaml(path), str(path)) if path.exists() else Cluster()


def hosts_of(hostfile: Path) -> dict[str, int]:
    """The hosts of a hostfile, and how many ranks each has. Raises UserError naming the lines that are wrong."""
    try:
        lines = hostfile.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(
            f"cluster.yaml: hostfile: {hostfile} cannot be read: {error.strerror}"
        ) from None
    hosts: dict[str, int] = {}
    problems = []
    for number, line in enumerate(lines, start=1):
        text = line.split("#")[0].strip()
        found = re.fullmatch(r"(\S+)\s+slots=([1-9]\d*)", text)
        if text and (found is None or found[1] in hosts):
            problems.append(
                f"{hostfile}:{number}: found {text!r}; each line is NAME slots=N, each host once"
            )
        elif found:
            hosts[found[1]] = int(found[2])
    if not hosts and not problems:
        problems.append(f"{hostfile}: names no host; each line is NAME slots=N")
    if problems:
        raise UserError(*problems)
    return hosts


def visible_gpus(count: int, environment: Mapping[str, str]) -> tuple[int, ...]:
    """The first `count` GPUs that CUDA_VISIBLE_DEVICES names; none where it is not set. Raises UserError where it names fewer."""
    named = [
        name.strip()
        for name in environment.get("CUDA_VISIBLE_DEVICES", "").split(",")
        if name.strip()
    ]
    if named and (len(named) < count or not all(name.isdecimal() for name in named)):
        raise UserError(
            f"CUDA_VISIBLE_DEVICES is {','.join(named)!r}, but {count} GPUs are asked for; give it that many "
            "numbers, or unset it"
        )
    return tuple(map(int, named[:count]))


def command(
    cluster: Cluster,
    python: str,
    module: str,
    words: Sequence[str],
    port: int,
    gpus: Sequence[int] = (),
) -> list[str]:
    """What starts `python -m MODULE WORDS` as every rank: DeepSpeed's launcher (on `gpus`, if given), or srun in a Slurm job."""
    if cluster.slurm:  # --wait: rank 0 may have much to save when the others have gone
        return [
            "srun",
            "--kill-on-bad-exit=1",
            "--wait=0",
            f"--ntasks-per-node={cluster.ranks}",
            python,
            "-m",
            module,
            *words,
        ]
    launcher = [
        python,
        "-m",
        "deepspeed.launcher.runner",
        "--log_level",
        "error",
        "--master_port",
        str(port),
    ]
    if gpus:  # by itself it would take the first of the machine
        launcher += ["--include", f"localhost:{','.join(map(str, gpus))}"]
    elif cluster.hostfile is None:
        launcher += ["--num_gpus", str(cluster.ranks)]  # on a CPU it counts processes all the same
    else:
        launcher += [
            "--hostfile",
            cluster.hostfile,
            "--force_multi",
            "--launcher",
            "pdsh",
            "--ssh_port",
            str(cluster.ssh_port),
        ]
    return [*launcher, "--no_local_rank", "--module", module, *words]


def environment(cluster: Cluster, given: Mapping[str, str]) -> dict[str, str]:
    """What ranks need in their environment beside `given`. Raises UserError where a forwarded variable is not set."""
    missing = [name for name in cluster.forward if name not in given]
    if missing:
        raise UserError(
            *(
                f"cluster.yaml: forward: {name} is not set here; set it, or take it out"
                for name in missing
            )
        )
    added: dict[str, str] = {}
    if cluster.interface is not None:
        added |= {"GLOO_SOCKET_IFNAME": cluster.interface, "NCCL_SOCKET_IFNAME": cluster.interface}
    if "OMP_NUM_THREADS" not in given:
        added["OMP_NUM_THREADS"] = (
            "1"  # else each rank takes all cores, and they hinder one another
        )
    return added


def forwarded(cluster: Cluster, given: Mapping[str, str]) -> str:
    """What DeepSpeed's launcher reads of the variables that it hands to other hosts. Raises UserError for what it would spoil."""
    names = [*cluster.forward, *environment(cluster, given), "OMP_NUM_THREADS", MARKER, SUPERVISOR]
    values = {name: given[name] for name in names if name in given}
    broken = [
        f'cluster.yaml: forward: {name} is {value!r}; a line break, or one of " $ ` \\, cannot be handed on'
        for name, value in values.items()
        if re.search(r'[\n"$`\\]', value)
    ]
    if broken:
        raise UserError(*broken)
    return "".join(f"{name}={value}\n" for name, value in values.items())

"""Launch a training stage as one process or as several ranks, and leave no process behind.

On this machine, the ranks are child processes. DeepSpeed's launcher or srun starts those on other
hosts, and its exit code is not reliable: DeepSpeed's launcher returns 0 if its middle process was
killed, although the ranks continue. A run is complete only if rank 0 has written its marker.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.distributed.cluster import (
    MARKER,
    PARALLEL,
    SUPERVISOR,
    Cluster,
    Ranks,
    environment_file_text,
    free_port,
    gpu_variables,
    launch_command,
    load_cluster,
    local_rank_variables,
    rank_environment,
    read_hostfile,
)
from pipeline.errors import UserError, quantity
from pipeline.files import atomic_write
from stages.runtime.entry import (
    check_arguments,
    discard_stdout,
    log,
    report_errors,
    run,
    stops,
)
from stages.runtime.parent_process import end_with_dvc
from stages.runtime.paths import CLUSTER, LAUNCHES, PARAMS

GRACE_SECONDS = 60.0  # for a rank to write a checkpoint and exit, before it is killed
FAILURE_GRACE_SECONDS = 15.0  # for the other ranks to report errors after a rank has failed

Processes = list["subprocess.Popen[bytes]"]


def launch(stage: Callable[..., None], micro_batches: Callable[..., int] | None = None) -> None:
    """Call a stage with the command-line arguments, in the ranks that cluster.yaml sets.

    `micro_batches` gets the same arguments, and returns the number of micro-batches of a step: if
    the ranks cannot share them evenly, a training stage has fewer ranks, all on this machine. In a
    process that a launcher has started, call the stage as one rank.
    """
    with report_errors():
        ranks, cluster = Ranks.from_environment(os.environ), load_cluster(CLUSTER)
    if ranks.world > 1 or "RANK" in os.environ or MARKER in os.environ:
        is_launched = MARKER in os.environ or PARALLEL in os.environ
        if ranks.world == 1 and not is_launched and not cluster.is_single_process:
            log(
                f"warning: the ranks of {CLUSTER} are not started, because RANK and WORLD_SIZE in "
                "the environment make this process the only rank; unset them to start the ranks"
            )
        _run_as_rank(stage, ranks)
        return
    with report_errors():
        if micro_batches is not None and not cluster.is_single_process:
            check_arguments(stage)
            cluster = _share_evenly(cluster, micro_batches(*sys.argv[1:]))
    if cluster.is_single_process:
        run(stage)
        return
    end_with_dvc()
    with report_errors():
        check_arguments(stage)
        _supervise(cluster, stage.__name__, sys.argv[1:])


def _share_evenly(cluster: Cluster, micro_batches: int) -> Cluster:
    """The cluster, if its ranks can share the micro-batches of a step evenly.

    Otherwise, only this machine, with the most ranks that can.
    """
    ranks_of_hosts = _ranks_of_hosts(cluster)
    if micro_batches % sum(ranks_of_hosts) == 0:
        return cluster
    ranks = max(n for n in range(1, ranks_of_hosts[0] + 1) if micro_batches % n == 0)
    log(
        f"warning: starting {ranks} of the {sum(ranks_of_hosts)} ranks of {CLUSTER}"
        f"{'' if cluster.is_one_machine else ', all on this machine'}, because a step "
        f"has micro_batches_per_step: {micro_batches} in {PARAMS}, and more ranks cannot share "
        "them evenly"
    )
    return replace(cluster, ranks=ranks, hostfile=None, slurm=False, interface=None)


def _ranks_of_hosts(cluster: Cluster) -> list[int]:
    """The number of ranks of each host, this machine first."""
    if cluster.hostfile is not None:
        return list(read_hostfile(Path(cluster.hostfile)).values())
    hosts = int(os.environ.get("SLURM_JOB_NUM_NODES", "1")) if cluster.slurm else 1
    return [cluster.ranks] * hosts


def _run_as_rank(stage: Callable[..., None], ranks: Ranks) -> None:
    """Call the stage as a rank. While it runs, its process id is in a file next to the marker."""
    _end_with_supervisor()
    if ranks.rank:
        # Only rank 0 logs. Errors of all ranks go to stderr.
        discard_stdout()
    marker = Path(os.environ[MARKER]) if MARKER in os.environ else None
    rank_file = marker and marker.with_name(f"{marker.name}.rank{ranks.rank}")
    try:
        if rank_file:
            atomic_write(rank_file, f"{os.getpid()}\n")
        run(stage, f"rank {ranks.rank} on {socket.gethostname()}: ")
        if marker and ranks.rank == 0:
            atomic_write(marker, "done\n")
    finally:
        if rank_file:
            rank_file.unlink(missing_ok=True)


def _supervise(cluster: Cluster, stage: str, arguments: list[str]) -> None:
    """Start the ranks and wait until all of them have ended.

    Raises UserError if rank 0 has not written its marker.
    """
    host = socket.gethostname()
    hosts = read_hostfile(Path(cluster.hostfile)) if cluster.hostfile is not None else {}
    log(f"starting {_describe_ranks(cluster, hosts, host)}")
    marker_name = f"{'-'.join([stage, *arguments])}-{os.getpid()}.done"
    marker, port = (LAUNCHES / marker_name).absolute(), free_port()
    environment = {**os.environ, MARKER: str(marker), SUPERVISOR: f"{host}:{os.getpid()}"}
    if cluster.slurm:
        environment |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
    environment = rank_environment(cluster, os.environ) | environment
    if cluster.is_one_machine:
        environment |= gpu_variables(cluster.ranks, os.environ)
    marker.unlink(missing_ok=True)
    environment_file = marker.with_name(f"{marker.name}.env")
    try:
        with (
            stops() as stop_signals,
            _environment_file(environment_file, cluster, environment) as file_variable,
        ):
            processes = _start(
                cluster, f"stages.{stage}", arguments, port, environment | file_variable
            )
            while _is_running(processes) and not stop_signals:
                time.sleep(0.1)
            if stop_signals:
                log(f"received {signal.Signals(stop_signals[0]).name}; stopping the ranks")
            _end_groups(
                processes,
                signal.SIGUSR1 if cluster.slurm else signal.SIGTERM,
                delay=0.0 if stop_signals else 2.0,
                grace=GRACE_SECONDS if stop_signals else FAILURE_GRACE_SECONDS,
            )
            if hosts:
                _wait_for_ranks(marker)
        complete = marker.exists()
    finally:
        for path in marker.parent.glob(f"{marker.name}*"):
            path.unlink(missing_ok=True)
    if stop_signals:
        raise SystemExit(128 + stop_signals[0])
    if not complete:
        raise UserError(
            f"{stage}: the ranks ended before rank 0 was done (exit codes: "
            f"{', '.join(str(process.returncode) for process in processes)}); see the first error "
            "above, then run the stage again: it resumes from its last checkpoint"
        )


def _start(
    cluster: Cluster,
    module: str,
    arguments: Sequence[str],
    port: int,
    environment: Mapping[str, str],
) -> Processes:
    """Start the ranks of this machine, or one launcher of ranks. Each process leads a group."""
    if cluster.is_one_machine:
        command = [sys.executable, "-u", "-m", module, *arguments]
        added = [local_rank_variables(rank, cluster.ranks, port) for rank in range(cluster.ranks)]
    else:
        command, added = launch_command(cluster, sys.executable, module, arguments, port), [{}]
    return [
        subprocess.Popen(command, env={**environment, **variables}, start_new_session=True)
        for variables in added
    ]


def _is_running(processes: Processes) -> bool:
    """Whether a process is running and none has failed."""
    codes = [process.poll() for process in processes]
    return None in codes and not any(codes)


def _describe_ranks(cluster: Cluster, hosts: Mapping[str, int], this_host: str) -> str:
    """The number of ranks and their hosts. `hosts` has the ranks by host; without hostfile: {}."""
    ranks = quantity(sum(hosts.values()) or cluster.ranks, "rank")
    if hosts:
        return f"{ranks} on {', '.join(f'{host} ({slots})' for host, slots in hosts.items())}"
    return f"{ranks} per host of the Slurm job" if cluster.slurm else f"{ranks} on {this_host}"


@contextmanager
def _environment_file(
    path: Path, cluster: Cluster, environment: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """Write the file from which DeepSpeed's launcher sends variables to other hosts.

    Yields the environment variable with the path of the file, or {} if there is no hostfile. The
    file is removed at the end of the block.
    """
    if cluster.hostfile is None:
        yield {}
        return
    atomic_write(path, environment_file_text(cluster, environment))
    try:
        yield {"DS_ENV_FILE": str(path)}
    finally:
        path.unlink(missing_ok=True)


def _end_groups(
    processes: Processes, stop_signal: signal.Signals, delay: float, grace: float
) -> None:
    """Wait until the processes and all their children have ended.

    After `delay` seconds, send `stop_signal` to the running ones. After `grace` more, kill them.
    (srun forwards SIGUSR1 to the ranks, but kills them on SIGTERM.)
    """
    started, signaled = time.monotonic(), False
    while _signal_groups(processes, 0):
        waited = time.monotonic() - started - delay
        if waited > grace + 10:  # the rest are zombies that their parent does not reap
            break
        if waited > grace:
            _signal_groups(processes, signal.SIGKILL)
        elif waited >= 0 and not signaled:
            signaled = _signal_groups(processes, stop_signal)
        for process in processes:
            process.poll()
        time.sleep(0.1)
    for process in processes:
        process.wait()


def _wait_for_ranks(marker: Path) -> None:
    """Wait until the files of all ranks are removed, for at most `GRACE_SECONDS`.

    Ranks on other hosts are not in a process group of this host. A killed rank leaves its file
    behind.
    """
    deadline = time.monotonic() + GRACE_SECONDS
    while list(marker.parent.glob(f"{marker.name}.rank*")) and time.monotonic() < deadline:
        time.sleep(0.1)


def _signal_groups(processes: Processes, number: int) -> bool:
    """Send a signal (0: none) to the groups of processes. Returns whether any group has a process.

    The group of an ended process has its children.
    """
    found = False
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
            found = True
    return found


def _end_with_supervisor() -> None:
    """Stop this rank when its supervisor has ended.

    Launchers do not stop their ranks if the supervisor was killed.
    """
    host, _, number = os.environ.get(SUPERVISOR, "").partition(":")
    if host != socket.gethostname():
        return

    def watch() -> None:
        while Path(f"/proc/{number}").exists():
            time.sleep(1.0)
        os.kill(os.getpid(), signal.SIGTERM)

    if Path("/proc/self").exists():
        threading.Thread(target=watch, daemon=True).start()

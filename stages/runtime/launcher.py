"""Starting a training stage as one process or as many, and seeing that none is left over.

The launchers' exit codes prove nothing (DeepSpeed's is 0 where its middle process was killed, and
the ranks run on): a run is done when rank 0 says so.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipeline.distributed.cluster import (
    MARKER,
    SUPERVISOR,
    Cluster,
    Ranks,
    environment_file_text,
    launch_command,
    load_cluster,
    rank_environment,
    read_hostfile,
    visible_gpus,
)
from pipeline.errors import UserError
from pipeline.files import atomic_write
from stages.runtime.entry import check_arguments, log, report_errors, run, stops
from stages.runtime.parent_process import end_with_dvc
from stages.runtime.paths import CLUSTER, LAUNCHES

GRACE = 60.0  # seconds to write a checkpoint and go, after which what is left is killed


def launch(stage: Callable[..., None]) -> None:
    """Call a stage with the command line's words, in the ranks that cluster.yaml asks for; as a
    rank of others, call it here.
    """
    ranks = Ranks.from_environment(os.environ)
    if ranks.world > 1 or "RANK" in os.environ or MARKER in os.environ:
        _as_rank(stage, ranks)
        return
    with report_errors():
        cluster = load_cluster(CLUSTER)
    if cluster.is_single_process:
        run(stage)
        return
    end_with_dvc()
    with report_errors():
        check_arguments(stage)
        _supervise(cluster, stage.__name__, sys.argv[1:])


def _as_rank(stage: Callable[..., None], ranks: Ranks) -> None:
    _end_with_supervisor()
    if ranks.rank:
        os.dup2(
            os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno()
        )  # rank 0 speaks for all; errors go to stderr
    done = Path(os.environ[MARKER]) if MARKER in os.environ else None
    here = done and done.with_name(f"{done.name}.rank{ranks.rank}")
    try:
        if here:
            atomic_write(here, "at work\n")
        run(stage, f"rank {ranks.rank} on {socket.gethostname()}: ")
        if done and ranks.rank == 0:
            atomic_write(done, "done\n")
    finally:
        if here:
            here.unlink(missing_ok=True)


def _supervise(cluster: Cluster, name: str, words: list[str]) -> None:
    """Start the ranks and wait until all of them are gone. Raises UserError unless rank 0 said that
    it is done.
    """
    host = socket.gethostname()
    hosts = read_hostfile(Path(cluster.hostfile)) if cluster.hostfile is not None else {}
    where = ", ".join(f"{name} ({count})" for name, count in hosts.items()) or (
        "Slurm's hosts" if cluster.slurm else host
    )
    log(f"starting {'ranks' if hosts else f'{cluster.ranks} ranks a host'} on {where}")
    done, port = (
        (LAUNCHES / f"{'-'.join([name, *words])}-{os.getpid()}.done").absolute(),
        _free_port(),
    )
    given = {**os.environ, MARKER: str(done), SUPERVISOR: f"{host}:{os.getpid()}"}
    if cluster.slurm:
        given |= {"MASTER_ADDR": host, "MASTER_PORT": str(port)}
    given = rank_environment(cluster, os.environ) | given
    visible = (
        visible_gpus(cluster.ranks, os.environ)
        if cluster.hostfile is None and not cluster.slurm
        else ()
    )
    done.unlink(missing_ok=True)
    try:
        with (
            stops() as stopped,
            _environment_file(done.with_name(f"{done.name}.env"), cluster, given) as more,
        ):
            words = launch_command(cluster, sys.executable, f"stages.{name}", words, port, visible)
            process = subprocess.Popen(words, env=given | more, start_new_session=True)
            while process.poll() is None and not stopped:
                time.sleep(0.1)
            if stopped:
                log(f"{signal.Signals(stopped[0]).name}: asking the ranks to stop")
            _end_group(
                process,
                signal.SIGUSR1 if cluster.slurm else signal.SIGTERM,
                patience=0.0 if stopped else 2.0,
            )
            if hosts:
                _wait_for_ranks(done)
        whole = done.exists()
    finally:
        for path in done.parent.glob(f"{done.name}*"):
            path.unlink(missing_ok=True)
    if stopped:
        raise SystemExit(128 + stopped[0])
    if not whole:
        raise UserError(
            f"{name}: the ranks ended before rank 0 was done (the launcher's exit code is "
            f"{process.returncode}); the "
            "first error above says why; run it again, and it goes on from its last checkpoint"
        )


@contextmanager
def _environment_file(
    path: Path, cluster: Cluster, given: Mapping[str, str]
) -> Iterator[dict[str, str]]:
    """The file by which DeepSpeed's launcher hands variables to other hosts, while it is needed;
    the variable that names it.
    """
    if cluster.hostfile is None:
        yield {}
        return
    atomic_write(path, environment_file_text(cluster, given))
    try:
        yield {"DS_ENV_FILE": str(path)}
    finally:
        path.unlink(missing_ok=True)


def _end_group(
    process: "subprocess.Popen[bytes]", politely: signal.Signals, patience: float
) -> None:
    """Wait until a process and all that it started are gone; ask those to stop that are there after
    `patience` seconds, and kill those that are there after `GRACE` more. (srun takes SIGTERM for an
    order to kill, and hands SIGUSR1 on.)
    """
    started, asked = time.monotonic(), False
    while _signal_group(process, 0):
        waited = time.monotonic() - started - patience
        if waited > GRACE + 10:  # what is left is dead, and has a parent that does not take notice
            break
        if waited > GRACE:
            _signal_group(process, signal.SIGKILL)
        elif waited >= 0 and not asked:
            asked = _signal_group(process, politely)
        process.poll()
        time.sleep(0.1)
    process.wait()


def _wait_for_ranks(done: Path) -> None:
    """On hosts reached by ssh they are in nobody's group here. One that was killed leaves its file,
    and is waited for in vain.
    """
    deadline = time.monotonic() + GRACE
    while list(done.parent.glob(f"{done.name}.rank*")) and time.monotonic() < deadline:
        time.sleep(0.1)


def _signal_group(process: "subprocess.Popen[bytes]", number: int) -> bool:
    """Send a signal (0: none) to a process's group; whether there is anyone left in it."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        return False
    return True


def _end_with_supervisor() -> None:
    """Ask this rank to stop when the process that started it is gone: launchers do not, where that
    was killed.
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


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("", 0))
        return int(listener.getsockname()[1])

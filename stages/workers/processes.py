"""Who makes shards: processes of this machine, as many as cluster.yaml says, or one a core; or a Ray cluster."""

import ctypes
import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pipeline.distributed.cluster import load_cluster
from pipeline.errors import UserError
from pipeline.sharding import Executor, Shard, in_this_process
from stages.runtime.paths import CLUSTER


def executor() -> Executor:
    """What makes shards here. Raises UserError where cluster.yaml is wrong."""
    cluster = load_cluster(CLUSTER)
    workers = cluster.workers or len(os.sched_getaffinity(0))
    if cluster.ray is not None:
        from stages.workers.ray import OnRay  # noqa: PLC0415  (Ray is an extra)

        return OnRay(cluster.ray, workers)
    return Processes(workers) if workers > 1 else in_this_process


def forget(work: Path) -> None:
    """Remove the shards of what is done."""
    shutil.rmtree(work, ignore_errors=True)


class Processes:
    """Makes shards in `workers` processes. One that is killed ends the run; what was done stays."""

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(self, shards: Sequence[Shard], into: Path) -> None:
        """Raises UserError where a process was killed, and what a shard's function raised."""
        workers = min(self.workers, len(shards))
        if workers == 1:
            in_this_process(shards, into)
            return
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _begin, (os.getpid(),)
        )
        try:
            for future in as_completed([pool.submit(shard.make, into) for shard in shards]):
                future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed (is there memory enough? cluster.yaml can say workers: "
                f"{max(1, workers // 2)}); run it again, and it goes on from there"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(
                (pool._processes or {}).values()
            ):  # else an error would wait for the shards in work
                process.terminate()


def _begin(parent: int) -> None:
    """In a new process: leave Ctrl-C to the parent, end with it, and compute in one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
        if os.getppid() != parent:
            raise SystemExit(1)
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

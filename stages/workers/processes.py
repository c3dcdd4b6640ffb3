"""Worker processes that make shards on this machine: `workers` of cluster.yaml, or one per core."""

import multiprocessing
import os
import shutil
import signal
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from pipeline.distributed.cluster import load_cluster
from pipeline.errors import UserError
from pipeline.sharding import Executor, Shard, in_this_process
from stages.runtime.parent_process import end_with
from stages.runtime.paths import CLUSTER
from stages.workers.ray import RayCluster


def executor() -> Executor:
    """The executor that cluster.yaml asks for. Raises UserError if cluster.yaml is wrong."""
    cluster = load_cluster(CLUSTER)
    workers = cluster.workers or len(os.sched_getaffinity(0))
    if cluster.ray is not None:
        return RayCluster(cluster.ray, workers)
    return Processes(workers) if workers > 1 else in_this_process


def remove_shards(work: Path) -> None:
    """Remove the shards of a finished stage."""
    shutil.rmtree(work, ignore_errors=True)


class Processes:
    """Makes shards in `workers` processes.

    If a process is killed, the run fails and the finished shards stay.
    """

    def __init__(self, workers: int) -> None:
        self.workers = workers

    def __call__(self, shards: Sequence[Shard], into: Path) -> None:
        """Make the shards. Raises UserError if a process was killed, and any error of a shard."""
        workers = min(self.workers, len(shards))
        if workers == 1:
            in_this_process(shards, into)
            return
        pool = ProcessPoolExecutor(
            workers, multiprocessing.get_context("spawn"), _start_worker, (os.getpid(),)
        )
        try:
            for future in as_completed([pool.submit(shard.make, into) for shard in shards]):
                future.result()
        except BrokenProcessPool:
            raise UserError(
                "a worker process was killed, perhaps for lack of memory; set workers: "
                f"{max(1, workers // 2)} in cluster.yaml and run the stage again: it keeps the "
                "finished shards"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            # After an error, do not wait for the shards in progress.
            for process in list((pool._processes or {}).values()):
                process.terminate()


def _start_worker(parent: int) -> None:
    """Set up a new process: ignore Ctrl-C, end with the parent, and compute in one thread."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with(parent, signal.SIGKILL)
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}

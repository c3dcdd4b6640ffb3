"""deep-prompt parallel: run the whole pipeline with one task on each GPU.

The shared prompt is trained first, on all ranks of cluster.yaml. Each task is then trained in one
process, regardless of cluster.yaml.
"""

import os
import queue
import subprocess
import sys
import threading
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from types import MappingProxyType

from deep_prompt.cli.arguments import positive_integer
from deep_prompt.cli.check_project import check_project
from pipeline.arms import ARMS, MULTITASK
from pipeline.distributed.cluster import PARALLEL, gpu_of_each_process
from pipeline.errors import UserError
from pipeline.params import Params
from stages.runtime.entry import log, stops
from stages.runtime.params import load_params

Job = tuple[str, ...]
"""(arm, task), or (arm, task, seed) for a repeated run."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "gpus",
        type=positive_integer,
        metavar="GPUS",
        help="number of tasks to train at the same time, one on each GPU",
    )


def parallel(arguments: Namespace) -> None:
    """Run the whole pipeline, GPUS tasks at a time."""
    gpus: int = arguments.gpus
    check_project()
    params, dvc = load_params(), _Dvc()
    free_gpus: queue.SimpleQueue[str] = queue.SimpleQueue()
    for gpu in gpu_of_each_process(gpus, os.environ):
        free_gpus.put(gpu)
    futures: dict[Job, Future[bool]] = {}
    with stops() as stop_signals, ThreadPoolExecutor(gpus) as pool:
        stages = ["featurize", "pretrain", "training_params", "zoo"]
        if not _wait([pool.submit(dvc, "repro", ["repro", *stages])], dvc, stop_signals):
            raise UserError("a stage before the tasks failed; see the first error above")
        # Each job comes after the job that it starts from, so no job waits forever.
        for job, parent in _jobs(params).items():
            parent_future = futures.get(parent) if parent else None
            futures[job] = pool.submit(_train, job, parent_future, free_gpus, dvc)
        if not _wait(list(futures.values()), dvc, stop_signals):
            failed = ["/".join(job) for job, future in futures.items() if not future.result()]
            raise UserError(
                f"failed: {', '.join(failed)}; see the errors above, then run the command again: "
                "it continues with the missing jobs"
            )
        if not _wait([pool.submit(dvc, "repro", ["repro"])], dvc, stop_signals):
            raise UserError("a stage after the tasks failed; see the first error above")


def _wait(futures: "list[Future[bool]]", dvc: "_Dvc", stop_signals: list[int]) -> bool:
    """Wait for all commands. Returns whether all succeeded.

    On a stop signal, stop the commands and exit.
    """
    while not all(future.done() for future in futures):
        if stop_signals:
            dvc.stop()
        time.sleep(0.1)
    if stop_signals:
        raise SystemExit(128 + stop_signals[0])
    return all(future.result() for future in futures)


def _jobs(params: Params) -> dict[Job, Job | None]:
    """All jobs, each with the job that it starts from (or None), parents first."""
    parents: dict[Job, Job | None] = {
        (arm, task): None for arm in params.compare.arms for task in params.compare.tasks
    }
    for name, task in params.tasks.items():
        arm, source = task.init_from.split("/")
        parents[(MULTITASK.name, name)] = (arm, source) if arm in ARMS else None
    repeat = params.repeat
    parents |= {
        (*run, str(seed)): run
        for run in product(repeat.arms, repeat.tasks)
        for seed in repeat.seeds
    }
    order: dict[Job, Job | None] = {}
    while ready := [
        job
        for job, parent in parents.items()
        if job not in order and (parent is None or parent in order)
    ]:
        order |= {job: parents[job] for job in ready}
    return order


def _train(
    job: Job,
    parent_future: "Future[bool] | None",
    free_gpus: "queue.SimpleQueue[str]",
    dvc: "_Dvc",
) -> bool:
    """Train and evaluate a job on a free GPU. Returns whether both stages succeeded."""
    if parent_future is not None and not parent_future.result():
        return False
    arm, task, *seed = job
    item = "-".join(job)
    if seed:
        names = [f"repeat@{item}", f"evaluate_repeat@{item}"]
    elif ARMS[arm].baseline:
        names = [f"baseline@{item}", f"evaluate_baseline@{item}"]
    else:
        names = [f"finetune@{task}", f"evaluate@{task}"]
    gpu = free_gpus.get()
    # These variables mark the process as the only rank of a launch.
    variables = {
        "CUDA_VISIBLE_DEVICES": gpu,
        "RANK": "0",
        "WORLD_SIZE": "1",
        "LOCAL_RANK": "0",
        PARALLEL: "1",
    }
    try:
        return all(dvc(name, ["repro", "--single-item", name], variables) for name in names)
    finally:
        free_gpus.put(gpu)


class _Dvc:
    """Runs DVC commands, prefixes their output, and returns whether they succeeded."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []
        self._stopped = False
        self._lock = threading.Lock()

    def __call__(
        self, title: str, command: list[str], variables: Mapping[str, str] = MappingProxyType({})
    ) -> bool:
        with self._lock:  # `stop` sees every process that starts
            if self._stopped:
                return False
            process = subprocess.Popen(
                [sys.executable, "-m", "dvc", "--wait-for-lock", *command],
                env={**os.environ, **variables},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            self._running.append(process)
        with process:
            assert process.stdout is not None
            # Read to the end: a stage may write a checkpoint after DVC has ended.
            for line in process.stdout:
                if line.strip():
                    log(f"{title}: {line.strip()}")
        return process.returncode == 0

    def stop(self) -> None:
        """Start no more commands and terminate the running ones; their stages leave checkpoints."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                if process.poll() is None:
                    process.terminate()

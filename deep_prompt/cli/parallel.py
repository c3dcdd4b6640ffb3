"""Train and evaluate the tasks side by side, one on each GPU: `deep-prompt parallel GPUS`, and then all that is left.

The shared prompt comes first, on all ranks of cluster.yaml; a task has one process, whatever cluster.yaml says.
"""

import os
import queue
import subprocess
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import product
from types import MappingProxyType

from deep_prompt.cli.arguments import positive_integer
from deep_prompt.cli.check_project import check_project
from pipeline.arms import ARMS, MULTITASK
from pipeline.distributed.cluster import visible_gpus
from pipeline.errors import UserError
from pipeline.params import Params
from stages.runtime.entry import log, stops
from stages.runtime.params import load_params

Job = tuple[str, ...]
"""An arm, a task, and the seed of a run that repeats another."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "gpus",
        type=positive_integer,
        metavar="GPUS",
        help="how many tasks to train at a time, one on each GPU",
    )


def parallel(given: Namespace) -> None:
    """Reproduce the whole pipeline, GPUS tasks at a time."""
    gpus: int = given.gpus
    check_project()
    params, dvc = load_params(), _Dvc()
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for gpu in visible_gpus(gpus, os.environ) or range(gpus):
        free.put(gpu)
    done: dict[Job, Future[bool]] = {}
    with stops() as stopped, ThreadPoolExecutor(gpus) as pool:
        if not _wait(
            [pool.submit(dvc, "repro", ["repro", "featurize", "pretrain", "training_params"])],
            dvc,
            stopped,
        ):
            raise UserError("a stage before the tasks has failed; the first error above says why")
        for job, before in _jobs(
            params
        ).items():  # each comes after the one that it starts from, and so none waits for ever
            done[job] = pool.submit(_train, job, done.get(before) if before else None, free, dvc)
        if not _wait(list(done.values()), dvc, stopped):
            failed = ["/".join(job) for job, future in done.items() if not future.result()]
            raise UserError(
                f"failed: {', '.join(failed)}; the errors above say why; run it again, and it goes on from there"
            )
        if not _wait([pool.submit(dvc, "repro", ["repro"])], dvc, stopped):
            raise UserError("a stage after the tasks has failed; the first error above says why")


def _wait(futures: "list[Future[bool]]", dvc: "_Dvc", stopped: list[int]) -> bool:
    """Whether all went well, when all are done. Asked to stop, it ends what runs, and the whole."""
    while not all(future.done() for future in futures):
        if stopped:
            dvc.stop()
        time.sleep(0.1)
    if stopped:
        raise SystemExit(128 + stopped[0])
    return all(future.result() for future in futures)


def _jobs(params: Params) -> dict[Job, Job | None]:
    """Every arm and task to train, and which of them it starts from, in an order that has that one before."""
    starts: dict[Job, Job | None] = {
        (arm, task): None for arm in params.compare.arms for task in params.compare.tasks
    }
    for name, task in params.tasks.items():
        arm, source = task.init_from.split("/")
        starts[(MULTITASK.name, name)] = (arm, source) if arm in ARMS else None
    repeat = params.repeat
    starts |= {
        (*run, str(seed)): run
        for run in product(repeat.arms, repeat.tasks)
        for seed in repeat.seeds
    }
    order: dict[Job, Job | None] = {}
    while ready := [
        job
        for job, before in starts.items()
        if job not in order and (before is None or before in order)
    ]:
        order |= {job: starts[job] for job in ready}
    return order


def _train(
    job: Job, before: "Future[bool] | None", free: "queue.SimpleQueue[int]", dvc: "_Dvc"
) -> bool:
    """Train one arm on one task and evaluate it, on a GPU that is free; whether both went well."""
    if before is not None and not before.result():
        return False
    arm, task, *seed = job
    item = "-".join(job)
    if seed:
        names = [f"repeat@{item}", f"evaluate_repeat@{item}"]
    elif ARMS[arm].baseline:
        names = [f"baseline@{item}", f"evaluate_baseline@{item}"]
    else:
        names = [f"finetune@{task}", f"evaluate@{task}"]
    gpu = free.get()
    # As if its ranks had been started: one.
    given = {"CUDA_VISIBLE_DEVICES": str(gpu), "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}
    try:
        return all(dvc(name, ["repro", "--single-item", name], given) for name in names)
    finally:
        free.put(gpu)


class _Dvc:
    """Runs DVC, with its lines marked as its own, until it is asked to stop; whether it went well."""

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []
        self._stopped = False

    def __call__(
        self, title: str, words: list[str], given: Mapping[str, str] = MappingProxyType({})
    ) -> bool:
        if self._stopped:
            return False
        with subprocess.Popen(
            ["dvc", "--wait-for-lock", *words],
            env={**os.environ, **given},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            self._running.append(process)
            assert process.stdout is not None
            for (
                line
            ) in process.stdout:  # to its end: a stage that writes a checkpoint outlives its DVC
                if line.strip():
                    log(f"{title}: {line.strip()}")
        return process.returncode == 0

    def stop(self) -> None:
        """Start nothing more, and end what runs; its stages then leave checkpoints."""
        self._stopped = True
        for process in self._running:
            if process.poll() is None:
                process.terminate()

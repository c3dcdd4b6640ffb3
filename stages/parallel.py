"""Train and evaluate the tasks side by side, one on each GPU: `python -m stages.parallel GPUS`, and then all that is left.

The shared prompt comes first, on all ranks of cluster.yaml; a task has one process, whatever cluster.yaml says.
"""

import os
import queue
import subprocess
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor

from pipeline.cluster import MARKER
from pipeline.errors import UserError
from stages.command import run, say
from stages.launching import WORK
from stages.params import Params, load_params

Job = tuple[str, str]
"""An arm and a task."""


def parallel(gpus: str) -> None:
    """Reproduce the whole pipeline, `gpus` tasks at a time."""
    if not gpus.isdecimal() or int(gpus) < 1:
        raise UserError(f"found {gpus!r} for the number of GPUs; give 1 or more")
    params = load_params()
    if not _dvc("repro", ["repro", "featurize", "pretrain"], {}):
        raise UserError("a stage before the tasks has failed; the first error above says why")
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for gpu in range(int(gpus)):
        free.put(gpu)
    done: dict[Job, Future[bool]] = {}
    with ThreadPoolExecutor(int(gpus)) as pool:
        for job, before in _jobs(params).items():  # each comes after the one that it starts from, and so none waits for ever
            done[job] = pool.submit(_train, job, done.get(before) if before else None, free)
    failed = [f"{arm}/{task}" for (arm, task), future in done.items() if not future.result()]
    if failed:
        raise UserError(f"failed: {', '.join(failed)}; the errors above say why; run it again, and it goes on from there")
    if not _dvc("repro", ["repro"], {}):
        raise UserError("a stage after the tasks has failed; the first error above says why")


def _jobs(params: Params) -> dict[Job, Job | None]:
    """Every arm and task to train, and which of them it starts from, in an order that has that one before."""
    starts: dict[Job, Job | None] = {(arm, task): None for arm in params.compare.arms for task in params.compare.tasks}
    for name, task in params.tasks.items():
        arm, source = task.start.split("/")
        starts[("multitask", name)] = (arm, source) if arm in ("multitask", "deep_prompt") else None
    order: dict[Job, Job | None] = {}
    while ready := [job for job, before in starts.items() if job not in order and (before is None or before in order)]:
        order |= {job: starts[job] for job in ready}
    return order


def _train(job: Job, before: "Future[bool] | None", free: "queue.SimpleQueue[int]") -> bool:
    """Train one arm on one task and evaluate it, on a GPU that is free; whether both went well."""
    if before is not None and not before.result():
        return False
    arm, task = job
    names = [f"finetune@{task}", f"evaluate@{task}"] if arm == "multitask" else [
        f"baseline@{arm}-{task}", f"evaluate_baseline@{arm}-{task}"]
    gpu = free.get()
    mark = (WORK / f"parallel-{arm}-{task}.done").absolute()  # by which a stage knows that its ranks have been started: one
    given = {"CUDA_VISIBLE_DEVICES": str(gpu), "RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", MARKER: str(mark)}
    try:
        return all(_dvc(name, ["repro", "--single-item", name], given) for name in names)
    finally:
        mark.unlink(missing_ok=True)
        free.put(gpu)


def _dvc(title: str, words: list[str], given: Mapping[str, str]) -> bool:
    """Run DVC, with its lines marked as its own; whether it went well."""
    with subprocess.Popen(["dvc", "--wait-for-lock", *words], env={**os.environ, **given}, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip():
                say(f"{title}: {line.strip()}")
    return process.returncode == 0


if __name__ == "__main__":
    run(parallel)

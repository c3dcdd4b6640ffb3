"""Kill random processes of `dvc repro` at random times: the next run resumes with equal results.

`make test` kills 3 times, `make chaos` 200 times. CHAOS_KILLS, CHAOS_RANKS and CHAOS_SEED set the
number of kills, the number of ranks and the random seed.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import time
from collections import Counter
from pathlib import Path

from tests.support.small_project import (
    environment,
    make_project,
    project_outputs,
    python,
    python_of,
    write_params,
)

KILLS, SEED = int(os.environ.get("CHAOS_KILLS", "3")), int(os.environ.get("CHAOS_SEED", "1"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
RANKS = int(os.environ.get("CHAOS_RANKS", "1"))
MAX_WAIT = 12.0  # seconds before a kill


def words_of(process: int) -> list[str]:
    """The command line of a process; empty if the process has ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


def processes(folder: Path) -> dict[str, list[int]]:
    """The ids of the running processes of a project, by kind."""
    found: dict[str, list[int]] = {"dvc": [], "stage": [], "rank": []}
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").resolve() != folder:
                continue
        except OSError:
            continue
        words = words_of(int(path.name))
        kind = (
            "dvc"
            if "dvc" in words
            else "rank"
            if "-u" in words
            else "stage"
            if "-m" in words
            else None
        )
        if kind is not None:
            found[kind].append(int(path.name))
    return found


def dvc_project(home: Path) -> Path:
    """A small project under DVC with all stages; training takes long enough to be killed."""
    home.mkdir()
    folder, env = (home / "project").resolve(), environment(home)
    values = make_project(folder)
    values["tasks"]["world_ner"]["init_from"] = "pretrain/all"
    for mixtures in (values["mixtures"], values["pretrain"]):
        del mixtures["ner_only"]
    for params in (*values["pretrain"].values(), *values["arms"].values()):
        params.update(micro_batches_per_step=2, epochs=4, tokens_per_micro_batch=64)
    write_params(folder, values)
    (folder / "cluster.yaml").write_text(f"ranks: {RANKS}\n", encoding="utf-8")
    python(folder, env, "-m", "dvc", "init", "--quiet", "--no-scm").check_returncode()
    return folder


def repro(folder: Path, forks: bool = True) -> "subprocess.Popen[str]":
    """Start the commands of `make repro`.

    Its processes can be killed only without `forks`.
    """
    env = environment(folder.parent, forks)
    python(folder, environment(folder.parent), "-m", "deep_prompt", "check").check_returncode()
    return subprocess.Popen(
        [python_of(env), "-m", "dvc", "--wait-for-lock", "repro"],
        cwd=folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def test_killed_runs_end_with_equal_results(tmp_path: Path) -> None:
    undisturbed = dvc_project(tmp_path / "undisturbed")
    reference = repro(undisturbed)
    folder = dvc_project(tmp_path / "disturbed")
    dice, hits = random.Random(SEED), Counter[str]()
    while hits.total() < KILLS:
        running = repro(folder, forks=False)
        # DVC may survive a SIGINT: it ignores the signal while a stage runs.
        while running.poll() is None and hits.total() < KILLS:
            time.sleep(dice.uniform(1.0, MAX_WAIT))
            targets = {kind: found for kind, found in processes(folder).items() if found}
            if running.poll() is None and targets:
                kind, number = dice.choice(sorted(targets)), dice.choice(SIGNALS)
                with contextlib.suppress(ProcessLookupError):  # the process has just ended
                    os.kill(dice.choice(sorted(targets[kind])), number)
                    hits[f"{kind} {number.name}"] += 1
                    # Report the progress (pytest -s), because `make chaos` takes long.
                    print(f"{hits.total()} of {KILLS}: {kind} {number.name}", flush=True)
        output, _ = running.communicate(timeout=900)
        deadline = time.monotonic() + 120
        while any(processes(folder).values()):
            assert time.monotonic() < deadline, f"{processes(folder)} still run; {output}"
            time.sleep(0.1)
        if running.returncode == 0:  # the run is complete: start again
            for name in (
                "artifacts",
                "data/features",
                "models",
                "predictions",
                "results",
                "runs",
                ".work",
                ".dvc/cache",
                ".dvc/tmp",
            ):
                shutil.rmtree(folder / name, ignore_errors=True)
            (folder / "dvc.lock").unlink()
    last = repro(folder)
    output, _ = last.communicate(timeout=900)
    assert last.returncode == 0, output
    output, _ = reference.communicate(timeout=900)
    assert reference.returncode == 0, output
    print(f"kills: {dict(sorted(hits.items()))}")
    actual, expected = project_outputs(folder), project_outputs(undisturbed)
    assert actual.keys() == expected.keys()
    assert [name for name in actual if actual[name] != expected[name]] == []

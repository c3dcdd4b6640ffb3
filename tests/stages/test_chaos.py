"""Whatever is killed, whenever: the next `dvc repro` goes on, and the end is what it would have
been.

Three kills in `make test`; `make chaos` kills 200 times. CHAOS_KILLS, CHAOS_RANKS and CHAOS_SEED
say how many, in how many ranks, and which.
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
    made,
    make_project,
    python,
    python_of,
    write_params,
)

KILLS, SEED = int(os.environ.get("CHAOS_KILLS", "3")), int(os.environ.get("CHAOS_SEED", "1"))
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
RANKS = int(os.environ.get("CHAOS_RANKS", "1"))
LONGEST = 12.0  # seconds that a repro runs before something is killed


def words_of(process: int) -> list[str]:
    """The command line of a process; empty where it is gone."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().decode().split("\0")
    except OSError:
        return []


def processes(folder: Path) -> dict[str, list[int]]:
    """The processes at work in a folder, by what they are."""
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
    """A small project under DVC, with every stage there is, whose trainings are not too fast to be
    hit.
    """
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
    """As `make repro` does it; without `forks` where its processes are to be killed."""
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


def test_whatever_is_killed_the_end_is_the_same(tmp_path: Path) -> None:
    undisturbed = dvc_project(tmp_path / "undisturbed")
    whole = repro(undisturbed)
    folder = dvc_project(tmp_path / "disturbed")
    dice, hits = random.Random(SEED), Counter[str]()
    while hits.total() < KILLS:
        running = repro(folder, forks=False)
        while (
            running.poll() is None and hits.total() < KILLS
        ):  # it may live on: DVC ignores a SIGINT while a stage runs
            time.sleep(dice.uniform(1.0, LONGEST))
            there = {kind: found for kind, found in processes(folder).items() if found}
            if running.poll() is None and there:
                kind, number = dice.choice(sorted(there)), dice.choice(SIGNALS)
                with contextlib.suppress(ProcessLookupError):  # it has just ended by itself
                    os.kill(dice.choice(sorted(there[kind])), number)
                    hits[f"{kind} {number.name}"] += 1
                    print(
                        f"{hits.total()} of {KILLS}: {kind} {number.name}", flush=True
                    )  # seen with -s: 200 take their time
        output, _ = running.communicate(timeout=900)
        deadline = time.monotonic() + 120
        while any(processes(folder).values()):
            assert time.monotonic() < deadline, f"{processes(folder)} are left over; {output}"
            time.sleep(0.1)
        if running.returncode == 0:  # it got to its end: from the start again
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
    output, _ = whole.communicate(timeout=900)
    assert whole.returncode == 0, output
    print(f"kills: {dict(sorted(hits.items()))}")
    ours, theirs = made(folder), made(undisturbed)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []

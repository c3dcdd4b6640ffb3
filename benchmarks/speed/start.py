"""How long it takes until work begins: importing each stage's module, and `dvc repro` where there is nothing to do."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.speed.setting import Setting
from benchmarks.speed.timing import table
from pipeline.config import load_yaml

REPEATS = 3
GOAL = 5.0  # seconds of a `dvc repro` with nothing to do


def run(setting: Setting) -> Iterator[str]:
    """A table of the stages' modules and one of DVC."""
    found = [
        (name, seconds([sys.executable, "-c", f"import stages.{name}"]), *loaded(name))
        for name in stages()
    ]
    yield f"Starting Python and importing a stage, the median of {REPEATS}; and which of the heavy libraries that loads."
    yield ""
    yield from table(
        ("stage", "s", "torch", "transformers", "deepspeed"),
        [
            (name, f"{took:.2f}", *("yes" if heavy else "" for heavy in heavies))
            for name, took, *heavies in found
        ],
    )
    yield from nothing_to_do(setting.project)


def stages() -> list[str]:
    """The modules that dvc.yaml calls."""
    definitions = load_yaml(Path("dvc.yaml"))["stages"].values()
    return list(
        dict.fromkeys(
            str(one.get("do", one)["cmd"]).split("stages.")[1].split()[0] for one in definitions
        )
    )


def loaded(name: str) -> list[bool]:
    """Whether importing a stage loads torch, transformers, deepspeed."""
    names = ("torch", "transformers", "deepspeed")
    code = f"import sys, stages.{name}; print(*(int(name in sys.modules) for name in {names}))"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return [word == "1" for word in done.stdout.split()[-len(names) :]]


def seconds(command: list[str], folder: Path | None = None, repeats: int = REPEATS) -> float:
    """The median of some runs of a command."""
    took = []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        took.append(time.perf_counter() - started)
    return median(took)


def nothing_to_do(project: Path) -> Iterator[str]:
    """What `dvc repro` takes in a project where all is done; elsewhere it would start to work."""
    status = subprocess.run(
        ["dvc", "status", "--quiet"], cwd=project, check=False, capture_output=True
    )
    if status.returncode:
        yield f"`dvc repro` with nothing to do: not measured, since `dvc status` is not clean in {project.resolve().name}."
    else:
        yield f"`dvc repro` with nothing to do: {seconds(['dvc', 'repro', '--quiet'], project):.2f} s (goal: below {GOAL:g})."
    yield ""

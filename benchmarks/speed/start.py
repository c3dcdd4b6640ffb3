"""CPU time of starts: importing each stage's module, --help, and `dvc repro` with nothing to do.

CPU time depends less on other work of the machine than the time on the clock.
"""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from benchmarks.speed.setting import Setting
from benchmarks.speed.timing import table
from pipeline.config import load_yaml

REPEATS = 3
GOAL_SECONDS = 3.0  # of a `dvc repro` with nothing to do
HELP_GOAL_SECONDS = 0.2
HEAVY_LIBRARIES = ("torch", "transformers", "deepspeed")


def run(setting: Setting) -> Iterator[str]:
    """Yield a table of the stages' modules, and lines about --help and DVC."""
    yield (
        f"CPU seconds to start Python and import a stage (median of {REPEATS}), and the heavy "
        "libraries that the import loads. A training loads DeepSpeed after the import."
    )
    yield ""
    rows = []
    for name in stages():
        seconds = median_seconds([sys.executable, "-c", f"import stages.{name}"])
        loaded = ["yes" if is_loaded else "" for is_loaded in loaded_libraries(name)]
        rows.append((name, f"{seconds:.2f}", *loaded))
    yield from table(("stage", "s", *HEAVY_LIBRARIES), rows)
    seconds = median_seconds([str(Path(sys.executable).with_name("deep-prompt")), "--help"])
    yield f"`deep-prompt --help`: {seconds:.2f} s (goal: below {HELP_GOAL_SECONDS:g})."
    yield ""
    yield from nothing_to_do(setting.project)


def stages() -> list[str]:
    """Return the modules that dvc.yaml calls."""
    definitions = load_yaml(Path("dvc.yaml"))["stages"].values()
    commands = [str(definition.get("do", definition)["cmd"]) for definition in definitions]
    return list(dict.fromkeys(command.split("stages.")[1].split()[0] for command in commands))


def loaded_libraries(name: str) -> list[bool]:
    """Return whether the import of a stage loads each of the heavy libraries."""
    code = (
        f"import sys, stages.{name}; "
        f"print(*(int(name in sys.modules) for name in {HEAVY_LIBRARIES}))"
    )
    process = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )
    return [flag == "1" for flag in process.stdout.split()[-len(HEAVY_LIBRARIES) :]]


def median_seconds(command: list[str], folder: Path | None = None, repeats: int = REPEATS) -> float:
    """Return the median CPU time of several runs of a command and its children."""
    seconds = []
    for _ in range(repeats):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return median(seconds)


def nothing_to_do(project: Path) -> Iterator[str]:
    """Measure `dvc repro` in a project that is up to date; in any other it would start to work."""
    status = subprocess.run(
        ["dvc", "status", "--json"], cwd=project, check=False, capture_output=True
    )
    # The stage `backbone_files` always runs.
    if status.returncode or any(
        changes != ["always changed"] for changes in json.loads(status.stdout).values()
    ):
        yield (
            "`dvc repro` with nothing to do: not measured, because `dvc status` reports changes in "
            f"{project.resolve().name}."
        )
    else:
        seconds = median_seconds(["dvc", "repro", "--quiet"], project)
        yield f"`dvc repro` with nothing to do: {seconds:.2f} s (goal: below {GOAL_SECONDS:g})."
    yield ""

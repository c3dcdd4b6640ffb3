"""Speed and memory of tasks that share a backbone.

    python -m benchmarks.mixed_batches [--rows N] [--repeats N]

The benchmark compares mixed batches on one backbone, one pass per task on one backbone, and one
fine-tuned model per task. Rows are those of the generated NER, SRL and QA corpora, with alternating
tasks. The backbone is MiniLM, with random prompts and heads: predictions are meaningless, but
take the usual time. Each method predicts all rows at once, and the same rows 8 at a time. Methods
alternate in one process, `--repeats` times. Peak memory is that of a separate process per method.
Prints a Markdown table.
"""

import argparse
import dataclasses
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import torch

from pipeline.arms import DEEP_PROMPT, FINE_TUNE
from pipeline.artifacts.artifact import save_artifact
from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.config import load_yaml, parse
from pipeline.data.readers import READERS
from pipeline.data.recipe import load_recipe
from pipeline.errors import Problems
from pipeline.inference.loading import load
from pipeline.inference.predictor import Predictor
from pipeline.model.backbone import Backbone
from pipeline.model.heads import Heads
from pipeline.model.prompt import DeepPrompt
from pipeline.model.prompted_model import PromptedModel
from pipeline.params import BackboneParams
from pipeline.pretrained.location import locate
from pipeline.tasks import task_named
from pipeline.tasks.base.row import Row
from pipeline.world.corpora import Kind, iterate_rows, write_rows

KINDS: tuple[Kind, ...] = ("ner", "srl", "qa")
NUM_VIRTUAL_TOKENS = 32
SEED = 7
FEW_ROWS = 8  # rows per request
COLUMNS = ("rows per request", "method", "predictions/s: median (min to max)", "peak memory")

Predict = Callable[[dict[str, Predictor], list[Row]], object]


def _mixed(predictors: dict[str, Predictor], rows: list[Row]) -> object:
    return list(predictors["all"].predict(rows))


def _one_pass_per_task(predictors: dict[str, Predictor], rows: list[Row]) -> object:
    return [list(predictors["all"].predict(_rows_of(kind, rows))) for kind in KINDS]


def _one_model_per_task(predictors: dict[str, Predictor], rows: list[Row]) -> object:
    return [list(predictors[kind].predict(_rows_of(kind, rows))) for kind in KINDS]


def _rows_of(kind: Kind, rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["task"] == kind]


METHODS: dict[str, tuple[str, Predict]] = {
    "mixed": ("one backbone, mixed batches", _mixed),
    "passes": ("one backbone, one pass per task", _one_pass_per_task),
    "models": ("one fine-tuned model per task", _one_model_per_task),
}


def make_artifacts(folder: Path) -> None:
    """Write a prompt and a head for each task, and a whole model with a head for each task."""
    params = parse(
        BackboneParams,
        load_yaml(Path("presets/default.yaml"))["backbone"],
        "presets/default.yaml: backbone",
    )
    backbone = Backbone.load(locate(params))
    for seed, kind in enumerate(KINDS):
        recipe = load_recipe(Path(f"data_recipes/world_{kind}.yaml"))
        task = task_named(recipe.task)
        head = TaskHead(recipe.task, task.head, task.classes(recipe.labels))
        heads = Heads([head.kind], [len(head.classes)], backbone.hidden_size, seed)
        generator = torch.Generator().manual_seed(seed)
        key_values = torch.randn(backbone.prompt_shape(NUM_VIRTUAL_TOKENS), generator=generator)
        prompt = DeepPrompt(key_values)
        fine_tuned = ArtifactConfig(
            FINE_TUNE.name, params, backbone.config.model_type, backbone.hidden_size, {kind: head}
        )
        prompted = dataclasses.replace(fine_tuned, arm=DEEP_PROMPT.name, prompt_shape=prompt.shape)
        save_artifact(
            folder / "prompts" / kind,
            PromptedModel(backbone, prompt, heads, train_backbone=False),
            prompted,
        )
        save_artifact(
            folder / "models" / kind,
            PromptedModel(backbone, None, heads, train_backbone=True),
            fine_tuned,
        )


def make_rows(folder: Path, count: int) -> list[Row]:
    """Generate `count` rows of each task, with alternating tasks."""
    columns = [islice(_generate_rows(folder, kind, count), count) for kind in KINDS]
    return [row for rows in zip(*columns, strict=True) for row in rows]


def _generate_rows(folder: Path, kind: Kind, count: int) -> Iterator[Row]:
    recipe = load_recipe(Path(f"data_recipes/world_{kind}.yaml"))
    problems = Problems()
    path = folder / f"{kind}.{'jsonl' if kind == 'qa' else 'conll'}"
    write_rows(path, iterate_rows(kind, "test", count, SEED))
    reader, task = READERS[recipe.reader], task_named(recipe.task)
    for row in reader.read(path, reader.for_task(recipe.options, task.row_keys), problems):
        yield {"task": kind, **{key: row[key] for key in task.query_keys}}
    problems.raise_if_any()


def load_predictors(method: str, folder: Path) -> dict[str, Predictor]:
    """Load the predictors of a method."""
    if method == "models":
        return {kind: load([folder / "models" / kind], device="cpu") for kind in KINDS}
    return {"all": load([folder / "prompts" / kind for kind in KINDS], device="cpu")}


def peak_memory(method: str, folder: Path, rows: int) -> float:
    """Return the peak memory in MB of a process that uses only this method."""
    command = [sys.executable, "-m", "benchmarks.mixed_batches", "--rows", str(rows)]
    command += ["--folder", str(folder), "--do", method]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout) / 1000


def measure_speeds(
    folder: Path, rows: list[Row], repeats: int
) -> dict[tuple[int, str], list[float]]:
    """Measure predictions per second, by number of rows per request and method."""
    predictors = {method: load_predictors(method, folder) for method in ("mixed", "models")}
    predictors["passes"] = predictors["mixed"]
    speeds: dict[tuple[int, str], list[float]] = {
        (size, method): [] for size in (len(rows), FEW_ROWS) for method in METHODS
    }
    for repeat in range(-1, repeats):  # the first repeat is a warm-up
        for (size, method), values in speeds.items():
            _, predict = METHODS[method]
            started = time.perf_counter()
            for first in range(0, len(rows), size):
                predict(predictors[method], rows[first : first + size])
            if repeat >= 0:
                values.append(len(rows) / (time.perf_counter() - started))
    return speeds


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200, help="rows of each task")
    parser.add_argument("--repeats", type=int, default=5, help="repeats of each measurement")
    # Internal options: the work of a separate process.
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--do", choices=("make", *METHODS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.do == "make":
        make_artifacts(arguments.folder)
    elif arguments.do:
        _, predict = METHODS[arguments.do]
        predictors = load_predictors(arguments.do, arguments.folder)
        predict(predictors, make_rows(arguments.folder, arguments.rows))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    else:
        with tempfile.TemporaryDirectory() as folder:
            _report(Path(folder), arguments.rows, arguments.repeats)


def _report(folder: Path, count: int, repeats: int) -> None:
    # The ru_maxrss of a new process is at least that of its parent, so measure memory first, while
    # this process has done nothing but imports.
    command = [sys.executable, "-m", "benchmarks.mixed_batches", "--folder", str(folder)]
    subprocess.run([*command, "--do", "make"], check=True)
    memory = {method: peak_memory(method, folder, count) for method in METHODS}
    rows = make_rows(folder, count)
    print(
        f"{len(rows)} rows, {repeats} repeats, {torch.get_num_threads()} threads on "
        f"{os.cpu_count()} cores, torch {torch.__version__}\n"
    )
    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
    for (size, method), values in measure_speeds(folder, rows, repeats).items():
        title, _ = METHODS[method]
        cells = (
            "all" if size == len(rows) else str(size),
            title,
            f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})",
            f"{memory[method]:.0f} MB",
        )
        print(f"| {' | '.join(cells)} |")


if __name__ == "__main__":
    main()

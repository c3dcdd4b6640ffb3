"""What it gives that tasks share a backbone: mixed batches, against a pass for each task, against a fine-tuned model for each.

    python -m benchmarks.mixed_batches [--rows N] [--repeats N]

Rows of the generated NER, SRL and QA corpora, one task after the other, on MiniLM with prompts and heads of random numbers: what
is predicted is nonsense, and takes as long as sense. Each way answers all rows at once, and the same rows as they come 8 at a
time. The ways take turns in one process, `--repeats` times; peak memory is that of a process of its own for each. Prints a
Markdown table.
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
from itertools import chain, islice
from pathlib import Path

import torch

from pipeline.artifacts.artifact import save_artifact
from pipeline.artifacts.config import ArtifactConfig, TaskHead
from pipeline.config import load_yaml, parse
from pipeline.data.readers import READERS
from pipeline.data.recipe import load_recipe
from pipeline.errors import Problems
from pipeline.inference.predictor import Predictor, load
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
VIRTUAL_TOKENS = 32
SEED = 7
FEW = 8  # rows that come at a time

Answer = Callable[[dict[str, Predictor], list[Row]], object]


def _mixed(served: dict[str, Predictor], rows: list[Row]) -> object:
    return list(served["all"].predict(rows))


def _apart(served: dict[str, Predictor], rows: list[Row]) -> object:
    return [list(served["all"].predict(_of(kind, rows))) for kind in KINDS]


def _models(served: dict[str, Predictor], rows: list[Row]) -> object:
    return [list(served[kind].predict(_of(kind, rows))) for kind in KINDS]


def _of(kind: Kind, rows: list[Row]) -> list[Row]:
    return [row for row in rows if row["task"] == kind]


WAYS: dict[str, tuple[str, Answer]] = {
    "mixed": ("one backbone, mixed batches", _mixed),
    "apart": ("one backbone, a pass for each task", _apart),
    "models": ("a fine-tuned model for each task", _models),
}


def make_artifacts(folder: Path) -> None:
    """A prompt and a head for each task, and a whole model with a head for each."""
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
        prompt = DeepPrompt(torch.randn(backbone.prompt_shape(VIRTUAL_TOKENS), generator=generator))
        tuned = ArtifactConfig(
            "fine_tune", params, backbone.config.model_type, backbone.hidden_size, {kind: head}
        )
        prompted = dataclasses.replace(tuned, arm="deep_prompt", prompt_shape=prompt.shape)
        save_artifact(
            folder / "prompts" / kind,
            PromptedModel(backbone, prompt, heads, train_backbone=False),
            prompted,
        )
        save_artifact(
            folder / "models" / kind,
            PromptedModel(backbone, None, heads, train_backbone=True),
            tuned,
        )


def make_rows(folder: Path, count: int) -> list[Row]:
    """`count` rows of each task, one task after the other."""
    return list(
        chain.from_iterable(
            zip(*(islice(_rows(folder, kind, count), count) for kind in KINDS), strict=True)
        )
    )


def _rows(folder: Path, kind: Kind, count: int) -> Iterator[Row]:
    recipe, problems, path = (
        load_recipe(Path(f"data_recipes/world_{kind}.yaml")),
        Problems(),
        folder / f"{kind}.txt",
    )
    write_rows(path, iterate_rows(kind, "test", count, SEED))
    for row in READERS[recipe.reader].read(path, recipe.options, problems):
        yield {"task": kind, **{key: row[key] for key in task_named(recipe.task).query_keys}}
    problems.raise_if_any()


def serve(way: str, folder: Path) -> dict[str, Predictor]:
    """What a way of answering needs in memory."""
    if way == "models":
        return {kind: load([folder / "models" / kind], device="cpu") for kind in KINDS}
    return {"all": load([folder / "prompts" / kind for kind in KINDS], device="cpu")}


def peak_memory(way: str, folder: Path, rows: int) -> float:
    """MB at the most, in a process that serves and answers in one way only."""
    words = [
        sys.executable,
        "-m",
        "benchmarks.mixed_batches",
        "--rows",
        str(rows),
        "--folder",
        str(folder),
        "--do",
        way,
    ]
    return int(subprocess.run(words, check=True, capture_output=True, text=True).stdout) / 1000


def rates(folder: Path, rows: list[Row], repeats: int) -> dict[tuple[int, str], list[float]]:
    """Predictions a second of each way, for rows that come all at once and few at a time."""
    served = {way: serve(way, folder) for way in ("mixed", "models")}
    served["apart"] = served["mixed"]
    found: dict[tuple[int, str], list[float]] = {
        (size, way): [] for size in (len(rows), FEW) for way in WAYS
    }
    for repeat in range(-1, repeats):  # the first time is for warming up
        for (size, way), seconds in found.items():
            started = time.perf_counter()
            for first in range(0, len(rows), size):
                WAYS[way][1](served[way], rows[first : first + size])
            if repeat >= 0:
                seconds.append(len(rows) / (time.perf_counter() - started))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200, help="rows of each task")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--do", choices=("make", *WAYS), help=argparse.SUPPRESS
    )  # what a process of its own is for
    given = parser.parse_args()
    if given.do == "make":
        make_artifacts(given.folder)
    elif given.do:
        WAYS[given.do][1](serve(given.do, given.folder), make_rows(given.folder, given.rows))
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    else:
        with tempfile.TemporaryDirectory() as name:
            _report(Path(name), given.rows, given.repeats)


def _report(folder: Path, count: int, repeats: int) -> None:
    # A new process's ru_maxrss is at least what its parent's was: so far, this one has only imported.
    subprocess.run(
        [sys.executable, "-m", "benchmarks.mixed_batches", "--folder", str(folder), "--do", "make"],
        check=True,
    )
    memory = {way: peak_memory(way, folder, count) for way in WAYS}
    rows = make_rows(folder, count)
    print(
        f"{len(rows)} rows, {repeats} repeats, {torch.get_num_threads()} threads on {os.cpu_count()} cores, "
        f"torch {torch.__version__}\n"
    )
    print(
        "| rows come | answered by | predictions/s: median (least to most) | peak memory |\n|---|---|---|---|"
    )
    for (size, way), found in rates(folder, rows, repeats).items():
        come = "all at once" if size == len(rows) else f"{size} at a time"
        print(
            f"| {come} | {WAYS[way][0]} | {statistics.median(found):.1f} ({min(found):.1f} to {max(found):.1f}) | "
            f"{memory[way]:.0f} MB |"
        )


if __name__ == "__main__":
    main()

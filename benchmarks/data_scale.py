"""Size and speed of data processing: python -m benchmarks.data_scale FOLDER ROWS [ROWS ...].

Generated NER corpora (sentences of 4 to 8 words) are prepared and featurized on all cores, and then
opened as a mixture with one corpus. Memory is the peak resident size of a step's process and its
workers together, sampled 20 times per second; shared pages are counted once per process. FOLDER
should be on the disk to measure, and needs about 2 kB per row of the largest corpus.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil

from pipeline.data.prepare import prepare
from pipeline.data.readers import conll_columns
from pipeline.data.readers.base import Splits
from pipeline.data.recipe import Recipe
from pipeline.features.featurize import featurize
from pipeline.features.table import FeatureTable
from pipeline.files import sha256
from pipeline.mixing.rates import RATE_SCALE
from pipeline.pretrained.location import locate
from pipeline.pretrained.tokenizer import Tokenizer
from pipeline.seeding import derive_seed
from pipeline.tasks import task_named
from pipeline.tasks.base.examples import read_examples
from stages.runtime.params import load_params
from stages.workers.processes import Processes

if TYPE_CHECKING:
    from pipeline.mixing.batches import TrainBatches

TASK = "token_classification"
EVALUATION_ROWS = 1000  # of validation, and of test
TOKENS_PER_BATCH = 2048
NUM_RANDOM_STEPS = 300
NUM_ENCODED = 60_000  # sentences for the tokenizer alone
SENTENCES_PER_CALL = 4096
SAMPLING_SECONDS = 0.05
RECIPE = Recipe(
    "scale",
    TASK,
    "CC0",
    "generated",
    "conll_columns",
    Splits("train.conll", "test.conll", "validation.conll"),
    conll_columns.Options(2, 0, 1, "iob2", "\t"),
    ("PER", "LOC"),
    allow=("shared-row", "conflicting-labels"),
)


def generate(folder: Path, rows: int) -> None:
    """Write the raw files; names are rare words, as in real text."""
    folder.mkdir(parents=True)
    sizes = {"train": rows, "validation": EVALUATION_ROWS, "test": EVALUATION_ROWS}
    for split, count in sizes.items():
        rng = random.Random(f"{split} {rows}")
        letters = ("bdfklmnprst", "aeiou", "lmnrst", "aeiouy")
        vocabulary = ["".join(map(rng.choice, letters)) for _ in range(999)]
        with (folder / f"{split}.conll").open("w", encoding="utf-8") as file:
            for number in range(count):
                words = rng.choices(vocabulary, k=rng.randint(2, 6))
                middle = "".join(f"{word}\tO\n" for word in words)
                name = f"{rng.choice(vocabulary).title()}{number % 9973}"
                file.write(f"{name}\tB-PER\n{middle}Oslo\tB-LOC\n\n")


def step_prepare(folder: Path) -> dict[str, Any]:
    """Convert raw files to examples."""
    summary, _ = prepare(
        RECIPE,
        folder / "raw",
        folder / "examples",
        folder / "problems.jsonl",
        folder / "work",
        Processes(num_cores()),
    )
    return {"rows": sum(summary["rows"].values()), "tokens": sum(summary["tokens"].values())}


def step_featurize(folder: Path) -> dict[str, Any]:
    """Convert examples to features."""
    examples = folder / "examples/train.parquet"
    tokenizer = Tokenizer(locate(load_params().backbone))
    classes = task_named(TASK).classes(RECIPE.labels)
    shutil.rmtree(folder / "features", ignore_errors=True)
    started = time.perf_counter()
    rows, _ = featurize(
        examples,
        sha256(examples),
        folder / "features",
        TASK,
        classes,
        tokenizer,
        64,
        16,
        folder / "shards",
        Processes(num_cores()),
    )
    seconds = time.perf_counter() - started
    shutil.rmtree(folder / "shards")
    size = sum(path.stat().st_size for path in (folder / "features").iterdir())
    return {"rows_per_second": round(rows / seconds), "bytes": size}


def step_train(folder: Path) -> dict[str, Any]:
    """Open the mixture with an empty page cache, then make the first batch and random batches."""
    _drop_from_page_cache(folder / "features")
    # Imported here because workers of the other steps would import torch, too.
    from pipeline.mixing.batches import TrainBatches  # noqa: PLC0415

    started = time.perf_counter()
    table = FeatureTable(folder / "features")
    batches = TrainBatches([table], [RATE_SCALE], TOKENS_PER_BATCH, 1, 7)
    opened = time.perf_counter()
    rows_of_first_batch = _make_batch(batches, 0)
    first_batch_made = time.perf_counter()
    seconds = []
    for number in range(NUM_RANDOM_STEPS):
        before = time.perf_counter()
        _make_batch(batches, derive_seed(7, number) % batches.task_batches[0].per_epoch)
        seconds.append(time.perf_counter() - before)
    return {
        "open_ms": 1000 * (opened - started),
        "first_batch_ms": 1000 * (first_batch_made - opened),
        "rows_of_a_batch": rows_of_first_batch,
        "batch_ms": {
            "median": 1000 * float(np.median(seconds)),
            "99%": 1000 * float(np.quantile(seconds, 0.99)),
        },
    }


def _drop_from_page_cache(folder: Path) -> None:
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _make_batch(batches: "TrainBatches", step: int) -> int:
    from pipeline.mixing.batches import collate  # noqa: PLC0415

    (micro,) = batches.step(step)
    return len(collate(batches.tables[0], micro.rows, 0, 0).input_ids)


def step_encode(folder: Path) -> dict[str, Any]:
    """Measure `tokenizers` alone on the same sentences, read into memory beforehand."""
    tokenizer = Tokenizer(locate(load_params().backbone))
    path = folder / "examples/train.parquet"
    examples = read_examples(path, task_named(TASK), range(NUM_ENCODED))
    sentences = (list(example.tokens) for example in examples)
    seconds, rows = 0.0, 0
    while block := list(islice(sentences, SENTENCES_PER_CALL)):
        started = time.perf_counter()
        tokenizer._fast.encode_batch(block, is_pretokenized=True, add_special_tokens=False)
        seconds += time.perf_counter() - started
        rows += len(block)
    return {"rows_per_second": round(rows / seconds)}


STEPS = {
    "prepare": step_prepare,
    "featurize": step_featurize,
    "train": step_train,
    "encode": step_encode,
}


def num_cores() -> int:
    """Return the number of processes that can run at the same time."""
    return len(os.sched_getaffinity(0))


def measure(step: str, folder: Path, kill_after: float | None = None) -> dict[str, Any]:
    """Run a step in a new process, and kill it after `kill_after` seconds.

    Returns the result of the step with its seconds, CPU seconds and peak memory.
    """
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.data_scale", f"--{step}", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    peak_memory, cpu_seconds = 0, dict[int, float]()
    while process.poll() is None:
        if kill_after is not None and time.perf_counter() - started > kill_after:
            process.send_signal(signal.SIGKILL)
        memory = 0
        for member in _process_tree(process.pid):
            try:
                memory += member.memory_info().rss
                cpu_seconds[member.pid] = sum(member.cpu_times()[:2])
            except psutil.Error:
                pass
        peak_memory = max(peak_memory, memory)
        time.sleep(SAMPLING_SECONDS)
    assert process.stdout is not None
    output = process.stdout.read()
    result = json.loads(output) if process.returncode == 0 else {"killed": True}
    return result | {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(sum(cpu_seconds.values()), 1),
        "peak_mb": round(peak_memory / 1e6),
    }


def _process_tree(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def measure_interruption(folder: Path) -> dict[str, Any]:
    """Prepare again with a kill, then to the end; return the times and whether bytes are equal."""
    before = _digests(folder / "examples")
    uninterrupted = measure("prepare", folder)["seconds"]
    killed = measure("prepare", folder, kill_after=0.6 * uninterrupted)
    parts = len(list((folder / "work/parts").glob("[0-9]*")))
    resumed = measure("prepare", folder)
    return {
        "whole_seconds": uninterrupted,
        "killed_after": killed["seconds"],
        "parts_kept": parts,
        "rest_seconds": resumed["seconds"],
        "same_bytes": _digests(folder / "examples") == before,
    }


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir())}


def main(root: Path, sizes: Iterable[int]) -> None:
    """Print a line of JSON for each step of each size, and for an interrupted step."""
    for rows in sizes:
        folder = root / str(rows)
        generate(folder / "raw", rows)
        for step in ("prepare", "featurize", "encode", "train"):
            print(json.dumps({"rows": rows, "step": step} | measure(step, folder)), flush=True)
        result = {"rows": rows, "step": "interrupted"} | measure_interruption(folder)
        print(json.dumps(result), flush=True)
        shutil.rmtree(folder)


if __name__ == "__main__":
    if sys.argv[1].startswith("--"):
        print(json.dumps(STEPS[sys.argv[1].removeprefix("--")](Path(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]), (int(float(argument)) for argument in sys.argv[2:]))

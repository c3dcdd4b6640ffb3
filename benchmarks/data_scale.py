"""Size and speed of the road from raw files to batches: python -m benchmarks.data_scale FOLDER ROWS [ROWS ...].

Generated NER corpora (sentences of 4 to 8 words) are prepared and featurized by all cores, and opened as a mixture of one. Memory
is the most that a step's process and its workers had resident together, sampled 20 times a second; what they share is counted as
often as they share it. FOLDER should be on the disk that is meant: it takes about 2 kB a row of the largest corpus.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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

TASK, HELD_OUT, BATCH_TOKENS, STEPS, ENCODED = "token_classification", 1000, 2048, 300, 60_000
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
    """The raw files; names are rare words, as they are in text."""
    folder.mkdir(parents=True)
    for split, count in (("train", rows), ("validation", HELD_OUT), ("test", HELD_OUT)):
        draw = random.Random(f"{split} {rows}")
        words = [
            "".join(map(draw.choice, ("bdfklmnprst", "aeiou", "lmnrst", "aeiouy")))
            for _ in range(999)
        ]
        with (folder / f"{split}.conll").open("w", encoding="utf-8") as file:
            for number in range(count):
                others = "".join(
                    f"{word}\tO\n" for word in draw.choices(words, k=draw.randint(2, 6))
                )
                file.write(
                    f"{draw.choice(words).title()}{number % 9973}\tB-PER\n{others}Oslo\tB-LOC\n\n"
                )


def step_prepare(folder: Path) -> dict[str, Any]:
    """Raw files to examples."""
    summary, _ = prepare(
        RECIPE,
        folder / "raw",
        folder / "examples",
        folder / "problems.jsonl",
        folder / "work",
        Processes(cores()),
    )
    return {"rows": sum(summary["rows"].values()), "tokens": sum(summary["tokens"].values())}


def step_featurize(folder: Path) -> dict[str, Any]:
    """Examples to features."""
    examples, tokenizer = (
        folder / "examples/train.parquet",
        Tokenizer(locate(load_params().backbone)),
    )
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
        Processes(cores()),
    )
    seconds = time.perf_counter() - started
    shutil.rmtree(folder / "shards")
    size = sum(path.stat().st_size for path in (folder / "features").iterdir())
    return {"rows_per_second": round(rows / seconds), "bytes": size}


def step_train(folder: Path) -> dict[str, Any]:
    """Open the mixture with nothing of it in the page cache, make the first batch, and then batches of random steps."""
    for path in (folder / "features").iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    from pipeline.mixing.batches import TrainBatches  # noqa: PLC0415  (workers of the other steps would load torch with it)

    started = time.perf_counter()
    batches = TrainBatches([FeatureTable(folder / "features")], [RATE_SCALE], BATCH_TOKENS, 1, 7)
    opened = time.perf_counter()
    first = _batch(batches, 0)
    done = time.perf_counter()
    times = []
    for number in range(STEPS):
        before = time.perf_counter()
        _batch(batches, derive_seed(7, number) % batches.task_batches[0].per_epoch)
        times.append(time.perf_counter() - before)
    return {
        "open_ms": 1000 * (opened - started),
        "first_batch_ms": 1000 * (done - opened),
        "rows_of_a_batch": first,
        "batch_ms": {
            "median": 1000 * float(np.median(times)),
            "99%": 1000 * float(np.quantile(times, 0.99)),
        },
    }


def _batch(batches: "TrainBatches", step: int) -> int:
    from pipeline.mixing.batches import collate  # noqa: PLC0415

    (micro,) = batches.step(step)
    return len(collate(batches.tables[0], micro.rows, 0, 0).input_ids)


def step_encode(folder: Path) -> dict[str, Any]:
    """What `tokenizers` alone takes for the same text on all cores: the sentences are in memory before."""
    tokenizer = Tokenizer(locate(load_params().backbone))
    task, seconds, rows = task_named(TASK), 0.0, 0
    found = read_examples(folder / "examples/train.parquet", task, range(ENCODED))
    for words in _blocks(list(example.tokens) for example in found):
        started = time.perf_counter()
        tokenizer._fast.encode_batch(words, is_pretokenized=True, add_special_tokens=False)
        seconds, rows = seconds + time.perf_counter() - started, rows + len(words)
    return {"rows_per_second": round(rows / seconds)}


def _blocks(words: Iterator[list[str]]) -> Iterator[list[list[str]]]:
    block: list[list[str]] = []
    for sentence in words:
        block.append(sentence)
        if len(block) == 4096:
            yield block
            block = []
    if block:
        yield block


STEPS_BY_NAME = {
    "prepare": step_prepare,
    "featurize": step_featurize,
    "train": step_train,
    "encode": step_encode,
}


def cores() -> int:
    """How many processes may run at once."""
    return len(os.sched_getaffinity(0))


def measured(step: str, folder: Path, kill_after: float | None = None) -> dict[str, Any]:
    """Run a step in a process of its own; its result with seconds, seconds of CPU and the most memory. Or kill it on the way."""
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.data_scale", f"--{step}", str(folder)],
        stdout=subprocess.PIPE,
        text=True,
    )
    most, cpu = 0, {}
    while process.poll() is None:
        if kill_after is not None and time.perf_counter() - started > kill_after:
            process.send_signal(signal.SIGKILL)
        memory = 0
        for one in _tree(process.pid):
            try:
                memory += one.memory_info().rss
                cpu[one.pid] = sum(one.cpu_times()[:2])
            except psutil.Error:
                pass
        most = max(most, memory)
        time.sleep(0.05)
    assert process.stdout is not None
    output = process.stdout.read()
    found = json.loads(output) if process.returncode == 0 else {"killed": True}
    return found | {
        "seconds": round(time.perf_counter() - started, 2),
        "cpu_seconds": round(sum(cpu.values()), 1),
        "peak_mb": round(most / 1e6),
    }


def _tree(pid: int) -> list[psutil.Process]:
    try:
        parent = psutil.Process(pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.Error:
        return []


def main(root: Path, sizes: list[int]) -> None:
    """Print a line of JSON for each step of each size, and of what an interruption costs."""
    for rows in sizes:
        folder = root / str(rows)
        generate(folder / "raw", rows)
        for step in ("prepare", "featurize", "encode", "train"):
            print(json.dumps({"rows": rows, "step": step} | measured(step, folder)), flush=True)
        print(json.dumps({"rows": rows, "step": "interrupted"} | interrupted(folder)), flush=True)
        shutil.rmtree(folder)


def interrupted(folder: Path) -> dict[str, Any]:
    """Prepare again, killed on the way, and then to the end: what that took, and whether the bytes are the same."""
    before = _digests(folder / "examples")
    whole = measured("prepare", folder)["seconds"]
    killed = measured("prepare", folder, kill_after=0.6 * whole)
    parts = len(list((folder / "work/parts").glob("[0-9]*"))) if (folder / "work").exists() else 0
    rest = measured("prepare", folder)
    return {
        "whole_seconds": whole,
        "killed_after": killed["seconds"],
        "parts_kept": parts,
        "rest_seconds": rest["seconds"],
        "same_bytes": _digests(folder / "examples") == before,
    }


def _digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(folder.iterdir())}


if __name__ == "__main__":
    if sys.argv[1].startswith("--"):
        print(json.dumps(STEPS_BY_NAME[sys.argv[1][2:]](Path(sys.argv[2]))))
    else:
        main(Path(sys.argv[1]), [int(float(word)) for word in sys.argv[2:]])

"""Memory and time of the leakage check by size: `python -m benchmarks.leakage [ROWS ...]`, each in a process of its own.

Texts are of 100 words, drawn from 50,000 by Zipf's law; 20,000 are held out, and every hundredth train text holds nine tenths
of one.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from pipeline.data.leakage import find_leaks

HELD_OUT, WORDS, VOCABULARY, BLOCK = 20_000, 100, 50_000, 1000


def texts(split: str, rows: int) -> Iterator[str]:
    """The same texts at every call."""
    names = np.array([f"w{number:x}" for number in range(VOCABULARY)])
    for first in range(0, rows, BLOCK):
        generator = np.random.default_rng([first, split == "train"])
        drawn = (generator.zipf(1.2, (BLOCK, WORDS)) % VOCABULARY).astype(np.int64)
        if split == "train":
            source = np.random.default_rng([first % HELD_OUT, False])
            drawn[::100, 5:95] = (source.zipf(1.2, (BLOCK, WORDS)) % VOCABULARY)[::100, 5:95]
        for words in names[drawn[: rows - first]]:
            yield " ".join(words)


def measure(rows: int) -> None:
    """Print one row of the table in RESULTS.md."""
    sizes = {"train": rows, "validation": 0, "test": HELD_OUT}
    started = time.process_time()
    for split, count in sizes.items():
        for _ in texts(split, count):
            pass
    making = time.process_time() - started
    started = time.process_time()
    found = find_leaks(["ours"], lambda _, split: texts(split, sizes[split]))
    seconds = time.process_time() - started - making
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    leaking = sum(leak["train_rows"] for leak in found.pairs)
    print(f"| {rows:,} | {HELD_OUT:,} | {seconds:.1f} | {peak:.0f} | {leaking:,} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        measure(int(sys.argv[2]))
    else:
        print(
            "| train rows | held-out rows | CPU seconds | peak MB | train rows that leak |\n|---|---|---|---|---|",
            flush=True,
        )
        for size in sys.argv[1:] or ("10000", "100000", "1000000"):
            subprocess.run([sys.executable, "-m", "benchmarks.leakage", "--one", size], check=True)

"""Memory and time of the leakage check by corpus size: `python -m benchmarks.leakage [ROWS ...]`.

Each size runs in a new process. A text has 100 words from a vocabulary of 50,000, drawn by Zipf's
law. There are 20,000 held-out texts, and every hundredth training text contains nine tenths of a
held-out text.
"""

import resource
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from pipeline.data.leakage import find_leaks

HELD_OUT, WORDS, VOCABULARY, BLOCK = 20_000, 100, 50_000, 1000
COLUMNS = ("train rows", "held-out rows", "CPU seconds", "peak MB", "train rows that leak")


def texts(split: str, rows: int) -> Iterator[str]:
    """Generate the texts of a split; every call gives the same texts."""
    vocabulary = np.array([f"w{number:x}" for number in range(VOCABULARY)])
    for first in range(0, rows, BLOCK):
        rng = np.random.default_rng([first, split == "train"])
        word_ids = (rng.zipf(1.2, (BLOCK, WORDS)) % VOCABULARY).astype(np.int64)
        if split == "train":
            held_out_rng = np.random.default_rng([first % HELD_OUT, False])
            held_out_ids = held_out_rng.zipf(1.2, (BLOCK, WORDS)) % VOCABULARY
            word_ids[::100, 5:95] = held_out_ids[::100, 5:95]
        for words in vocabulary[word_ids[: rows - first]]:
            yield " ".join(words)


def measure(rows: int) -> None:
    """Print one row of the table in RESULTS.md."""
    sizes = {"train": rows, "validation": 0, "test": HELD_OUT}
    started = time.process_time()
    for split, count in sizes.items():
        for _ in texts(split, count):
            pass
    generation_seconds = time.process_time() - started
    started = time.process_time()
    leaks = find_leaks(["generated"], lambda _, split: texts(split, sizes[split]))
    seconds = time.process_time() - started - generation_seconds
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    leaking = sum(pair["train_rows"] for pair in leaks.pairs)
    cells = (f"{rows:,}", f"{HELD_OUT:,}", f"{seconds:.1f}", f"{peak_mb:.0f}", f"{leaking:,}")
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(int(sys.argv[2]))
    else:
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
        for size in sys.argv[1:] or ("10000", "100000", "1000000"):
            command = [sys.executable, "-m", "benchmarks.leakage", "--measure", size]
            subprocess.run(command, check=True)

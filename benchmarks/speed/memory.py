"""Peak memory of a training step, measured in a separate process per method.

`python -m benchmarks.speed.memory KIND METHOD SETTING` measures one method.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.speed.setting import Setting, load_corpus
from benchmarks.speed.step import (
    FINE_TUNING,
    METHODS,
    PEFT,
    PEFT_NO_DROPOUT,
    TOKENS_PER_BATCH,
    make_batches,
)
from benchmarks.speed.timing import table

BASES = (FINE_TUNING, PEFT, PEFT_NO_DROPOUT)
NUM_STEPS = 3


def run(setting: Setting) -> Iterator[str]:
    """Yield a table of each corpus."""
    columns = ("method", "process", "of the step", *(f"of {base}'s" for base in BASES))
    for kind, tokens in TOKENS_PER_BATCH.items():
        peaks = {method: peak_memory(setting, kind, method) for method in METHODS}
        yield (
            f"Peak memory of a step on {kind.upper()}, batches of {tokens} tokens: of the process, "
            "and without its memory before the model (weights, gradients, moments, activations)."
        )
        yield ""
        rows = []
        for method, (process_mb, step_mb) in peaks.items():
            ratios = [f"{step_mb / peaks[base][1]:.2f}" for base in BASES]
            rows.append((method, f"{process_mb:.0f} MB", f"{step_mb:.0f} MB", *ratios))
        yield from table(columns, rows)


def peak_memory(setting: Setting, kind: str, method: str) -> tuple[float, float]:
    """Return the peak memory in MB during a step: in total, and without the memory before."""
    values = json.dumps(asdict(setting), default=str)
    command = [sys.executable, "-m", "benchmarks.speed.memory", kind, method, values]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    base, peak = map(float, process.stdout.split()[-2:])
    return peak, peak - base


def main(kind: str, method: str, setting_json: str) -> None:
    """Print the memory in MB before the model is loaded, and the peak during some steps."""
    values = json.loads(setting_json)
    for name in ("backbone", "data", "scratch", "project"):
        values[name] = values[name] and Path(values[name])
    setting = Setting(**values)
    corpus = load_corpus(setting, kind)
    batches = make_batches(setting, corpus, TOKENS_PER_BATCH[kind])[:NUM_STEPS]
    base = _status_mb("VmRSS")
    step = METHODS[method](setting, corpus, batches)
    # Reset the peak, to exclude the load of the model.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    for batch in batches:
        step(batch)
    print(base, _status_mb("VmHWM"))


def _status_mb(name: str) -> float:
    match = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert match
    return int(match[1]) / 1000


if __name__ == "__main__":
    main(*sys.argv[1:])

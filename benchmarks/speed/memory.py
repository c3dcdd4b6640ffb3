"""Peak memory of a training step by one way, in a process of its own: `python -m benchmarks.speed.memory KIND WAY SETTING`."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from benchmarks.speed.setting import Setting, corpus
from benchmarks.speed.step import PEFT, STILL, TOKENS, TUNED, WAYS, batches_of
from benchmarks.speed.timing import table


def run(setting: Setting) -> Iterator[str]:
    """A table of each corpus."""
    for kind, tokens in TOKENS.items():
        found = {way: peak_memory(setting, kind, way) for way in WAYS}
        yield (
            f"Peak memory of a step on {kind.upper()}, batches of {tokens} tokens: of the process, and without what it had "
            "before the model: weights, gradients, moments, what backward needs."
        )
        yield ""
        yield from table(
            (
                "way",
                "process",
                "of it for the step",
                *(f"of {base}'s" for base in (TUNED, PEFT, STILL)),
            ),
            [
                (
                    way,
                    f"{whole:.0f} MB",
                    f"{own:.0f} MB",
                    *(f"{own / found[base][1]:.2f}" for base in (TUNED, PEFT, STILL)),
                )
                for way, (whole, own) in found.items()
            ],
        )


def peak_memory(setting: Setting, kind: str, way: str) -> tuple[float, float]:
    """MB at the most while a step is made, in all, and on top of what the process had before it loaded a model."""
    values = json.dumps(asdict(setting), default=str)
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.speed.memory", kind, way, values],
        check=True,
        capture_output=True,
        text=True,
    )
    base, peak = map(float, done.stdout.split()[-2:])
    return peak, peak - base


def main(kind: str, way: str, values: str) -> None:
    """Print MB before there was a model, and the most during some steps."""
    given = json.loads(values)
    setting = Setting(
        **given
        | {
            name: Path(given[name])
            for name in ("backbone", "data", "scratch", "project")
            if given[name]
        }
    )
    found = corpus(setting, kind)
    batches = batches_of(setting, found, TOKENS[kind])[:3]
    base = _status("VmRSS")
    step = WAYS[way](setting, found, batches)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forgets the peak of loading
    for batch in batches:
        step(batch)
    print(base, _status("VmHWM"))


def _status(name: str) -> float:
    found = re.search(rf"{name}:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    assert found
    return int(found[1]) / 1000


if __name__ == "__main__":
    main(*sys.argv[1:])

"""Confidence in answers: methods of tuning, post-hoc, by variants of candidates, and of input.

    python -m benchmarks.confidence OUT collect TASK ARM[,ARM] OTHER[,OTHER] V,T,N [MODEL[,MODEL]]
    python -m benchmarks.confidence OUT table TASK

Run it in a project with the features of the tasks and the artifacts ARM/TASK (`dvc repro`, or
`python -m stages.finetune ARM TASK`). `collect` answers V validation questions of TASK, and T test
questions of TASK and of each OTHER task. It does so with each MODEL (default: all): `plain`, the
artifact as it is; `augmented`, with a training context in the input; `softmax`, `margin` and
`cross_entropy`, tuned with this objective on N training questions. OUT is a JSON lines file;
answers in it are not computed again. `table` fits each method on the validation answers and prints
Markdown.
"""

import sys
import time
from pathlib import Path

from benchmarks.confidence.collect import MODELS, Collector, Sizes
from benchmarks.confidence.table import table
from pipeline.params import Params
from stages.runtime.entry import report_errors
from stages.runtime.params import arm_of, load_params


def collect(
    out: Path, params: Params, task: str, arms: str, others: str, sizes: str, models: str = ""
) -> None:
    """Answer the questions with each arm."""
    numbers = Sizes(*(int(size) for size in sizes.split(",")))
    for arm in arms.split(","):
        started = time.process_time()
        collector = Collector(arm_of(arm), task, params, numbers)
        collector.collect(out, others.split(","), models.split(",") if models else MODELS)
        print(f"{arm}: {time.process_time() - started:.0f} CPU s")


def main(path: str, command: str, task: str, *rest: str) -> None:
    """Run a command."""
    params, out = load_params(), Path(path)
    if command == "table":
        print("\n".join(table(out, task, params.seed)))
    else:
        collect(out, params, task, *rest)


if __name__ == "__main__":
    with report_errors():
        main(*sys.argv[1:])

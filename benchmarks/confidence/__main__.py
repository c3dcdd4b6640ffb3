"""Confidence in answers: methods of tuning, post-hoc, by variants of candidates, and of input.

    python -m benchmarks.confidence OUT collect TASK ARM[,ARM] [OTHER[,OTHER]] [V,T,N]
    python -m benchmarks.confidence OUT table TASK

Run it in a project with the features of the tasks and the artifacts ARM/TASK (`dvc repro`, or
`python -m stages.finetune ARM TASK`). `collect` answers V validation questions of TASK, and T test
questions of TASK and of each OTHER task (500 and 300). It does so with the model as it is, with
augmented input, and tuned on N training questions (400). OUT is a JSON lines file; answers in it
are not computed again. `table` fits each method on the validation answers and prints Markdown.
"""

import sys
import time
from pathlib import Path

from benchmarks.confidence.collect import Collector, Sizes
from benchmarks.confidence.table import table
from stages.runtime.params import arm_of, load_params

DEFAULT_SIZES = "500,300,400"


def main(path: str, command: str, task: str, *rest: str) -> None:
    """Run a command."""
    params, out = load_params(), Path(path)
    if command == "table":
        print("\n".join(table(out, task, params.seed)))
        return
    arms, others, sizes = (*rest, *("", DEFAULT_SIZES)[len(rest) - 1 :])
    numbers = Sizes(*(int(size) for size in sizes.split(",")))
    for arm in arms.split(","):
        started = time.process_time()
        names = [name for name in others.split(",") if name]
        Collector(arm_of(arm), task, params, numbers).collect(out, names)
        print(f"{arm}: {time.process_time() - started:.0f} CPU s")


if __name__ == "__main__":
    main(*sys.argv[1:])

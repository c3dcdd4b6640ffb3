"""Measure the parts that are named, or all: `python -m benchmarks.speed [PART ...]`. Prints Markdown.

The real corpora are looked for under --data, or else $DATA_ROOT, or else ../shared/data: ner/conll2003 and qa/squad as their
recipes want them. Without them, generated ones take their place. One thread (OMP_NUM_THREADS=1) is the least disturbed by others.
"""

import argparse
import os
import platform
import tempfile
import time
import warnings
from importlib import import_module
from pathlib import Path

import torch
import transformers

from benchmarks.speed.setting import REAL, Setting
from pipeline.config import load_yaml, parse
from pipeline.params import BackboneParams
from pipeline.pretrained.location import locate

# `epoch` before what leaves a process group's traces
PARTS = ("step", "memory", "epoch", "overhead", "evaluate", "start", "gpu", "scaling")


def main() -> None:
    """Print what was found, part by part."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("DATA_ROOT", "../shared/data"))
    )
    parser.add_argument(
        "--project", type=Path, default=Path(), help="a folder in which all of `dvc repro` is done"
    )
    parser.add_argument("--rounds", type=int, default=Setting.rounds)
    parser.add_argument(
        "--rows", type=int, default=Setting.rows, help="sentences to train on in the part epoch"
    )
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)  # of transformers about itself
    print(
        f"torch {torch.__version__}, {torch.get_num_threads()} of {os.cpu_count()} cores ({platform.machine()}), "
        f"MiniLM-L6, {given.rounds} rounds."
    )
    missing = [folder for _, folder in REAL.values() if not (given.data / folder).is_dir()]
    if missing:
        print(
            f"{given.data} has no {' and no '.join(missing)}: generated corpora take their place."
        )
    params = parse(
        BackboneParams,
        load_yaml(Path("presets/default.yaml"))["backbone"],
        "presets/default.yaml: backbone",
    )
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(
            locate(params), given.data, Path(scratch), given.project, given.rounds, rows=given.rows
        )
        for part in PARTS:
            if not given.parts or part in given.parts:
                started = time.perf_counter()
                print(f"\n### {part}\n")
                for line in import_module(f"benchmarks.speed.{part}").run(setting):
                    print(line, flush=True)
                print(f"({part}: {time.perf_counter() - started:.0f} s)", flush=True)


if __name__ == "__main__":
    main()

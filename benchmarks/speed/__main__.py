"""Measure all parts, or only some: `python -m benchmarks.speed [PART ...]`. Prints Markdown.

The real corpora are read from --data (default: $DATA_ROOT, or ../shared/data): ner/conll2003 and
qa/squad with the files of their recipes. Generated corpora replace missing corpora. One thread
(OMP_NUM_THREADS=1) is least disturbed by other processes. `python -m benchmarks.speed gpu --page
FILE` measures a GPU in about 10 minutes, and writes the page as it goes.
"""

import argparse
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path

import torch
import transformers

from benchmarks.speed.setting import REAL_CORPORA, Setting
from pipeline.config import load_yaml, parse
from pipeline.params import BackboneParams
from pipeline.pretrained.location import locate

# `epoch` comes before the parts that start a process group, because its traces disturb Trainer.
PARTS = ("step", "memory", "epoch", "overhead", "evaluate", "predict", "start", "gpu", "scaling")


def main() -> None:
    """Print the results, part by part, and write them to the page."""
    arguments = _parse_arguments()
    with ExitStack() as stack:
        page = arguments.page and stack.enter_context(arguments.page.open("w", encoding="utf-8"))
        for line in _lines(arguments):
            print(line, flush=True)
            if page is not None:
                page.write(f"{line}\n")
                page.flush()


def _lines(arguments: argparse.Namespace) -> Iterator[str]:
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)  # transformers about its own code
    yield (
        f"torch {torch.__version__}, {torch.get_num_threads()} of {os.cpu_count()} cores "
        f"({platform.machine()}), MiniLM-L6, {arguments.rounds} rounds."
    )
    folders = [folder for _, folder in REAL_CORPORA.values()]
    missing = [folder for folder in folders if not (arguments.data / folder).is_dir()]
    if missing:
        yield f"{arguments.data} has no {' and no '.join(missing)}: using generated corpora."
    params = parse(
        BackboneParams,
        load_yaml(Path("presets/default.yaml"))["backbone"],
        "presets/default.yaml: backbone",
    )
    with tempfile.TemporaryDirectory() as scratch:
        setting = Setting(
            locate(params),
            arguments.data,
            Path(scratch),
            arguments.project,
            arguments.rounds,
            rows=arguments.rows,
        )
        for part in PARTS:
            if not arguments.parts or part in arguments.parts:
                yield from _part(part, setting)


def _part(part: str, setting: Setting) -> Iterator[str]:
    started = time.perf_counter()
    yield f"\n### {part}\n"
    yield from import_module(f"benchmarks.speed.{part}").run(setting)
    yield f"({part}: {time.perf_counter() - started:.0f} s)"


def _parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    default_data = Path(os.environ.get("DATA_ROOT", "../shared/data"))
    parser.add_argument(
        "--data", type=Path, default=default_data, help="the folder of the real corpora"
    )
    parser.add_argument(
        "--project", type=Path, default=Path(), help="a folder where `dvc repro` is complete"
    )
    parser.add_argument("--rounds", type=int, default=Setting.rounds, help="rounds per method")
    parser.add_argument(
        "--rows", type=int, default=Setting.rows, help="training sentences of the part epoch"
    )
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write the results here")
    arguments = parser.parse_args()
    if unknown := set(arguments.parts) - set(PARTS):
        parser.error(f"unknown part {', '.join(sorted(unknown))}; use {', '.join(PARTS)}")
    return arguments


if __name__ == "__main__":
    main()

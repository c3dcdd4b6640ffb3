"""Compare servers of three tasks under load.

    python -m benchmarks.serve [--seconds N] [--clients N ...] [--rates N ...] [--methods NAME ...]

Rows are those of the generated NER, SRL and QA corpora, with alternating tasks, one row per
request. The backbone is MiniLM, with random prompts and heads: predictions are meaningless, but
take the usual time. The methods run one after the other, each in a fresh process. The client runs
on the same cores. Prints a Markdown table.
"""

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks.mixed_batches import make_artifacts, make_rows
from benchmarks.serve.client import Load, closed_loop, open_loop
from benchmarks.serve.methods import TITLES, make_transformers_models, servers_of
from pipeline.tasks.base.row import Row

COLUMNS = ("method", "load", "rows/s", "p50 ms", "p95 ms", "p99 ms", "not sent", "memory")


def measure(
    method: str,
    folder: Path,
    rows: Sequence[Row],
    clients: Sequence[int],
    rates: Sequence[float],
    seconds: float,
) -> list[tuple[str, ...]]:
    """The rows of the table for a method."""
    with servers_of(method, folder) as servers:
        asyncio.run(closed_loop(servers.ports, rows, 2, min(2.0, seconds)))  # a warm-up
        loads = {
            f"{number} clients": asyncio.run(closed_loop(servers.ports, rows, number, seconds))
            for number in clients
        }
        loads |= {
            f"{rate:g} rows/s": asyncio.run(open_loop(servers.ports, rows, rate, seconds))
            for rate in rates
        }
        memory = f"{servers.memory():.0f} MB"
    return [(TITLES[method], name, *_cells(load), memory) for name, load in loads.items()]


def _cells(load: Load) -> tuple[str, ...]:
    values = [f"{value:.0f}" for value in load.percentiles()]
    return (f"{load.rate:.1f}", *values, str(load.dropped))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=20, help="duration of each load")
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--rates", type=float, nargs="*", default=[10, 20, 40])
    parser.add_argument("--methods", nargs="+", choices=TITLES, default=list(TITLES))
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_artifacts(folder)
        make_transformers_models(folder)
        rows = make_rows(folder, 100)
        print(f"{os.cpu_count()} cores, torch {torch.__version__}, {arguments.seconds:g} s each\n")
        print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}")
        for method in arguments.methods:
            lines = measure(
                method, folder, rows, arguments.clients, arguments.rates, arguments.seconds
            )
            for line in lines:
                print(f"| {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main()

"""Time alternating methods, so that a busy machine slows all of them equally; print tables."""

import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import torch

Name = TypeVar("Name", bound=Hashable)
Method = Callable[[int], object]
"""Runs the call with a number; equal numbers mean the same work for every method."""


@dataclass
class Times:
    """Seconds of each round: wall-clock time, and CPU time of this process."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def alternate(methods: Mapping[Name, Method], rounds: int, calls: int) -> dict[Name, Times]:
    """After a warm-up, run `calls` calls of every method per round; methods do the same work."""
    times = {name: Times() for name in methods}
    for round_number in range(-1, rounds):
        first = max(0, round_number) * calls
        for name, method in methods.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for number in range(first, first + calls):
                method(number)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if round_number >= 0:
                times[name].wall.append(time.perf_counter() - wall)
                times[name].cpu.append(time.process_time() - cpu)
    return times


def ratio(times: Sequence[float], base: Sequence[float]) -> str:
    """Return the median over rounds of times / base, with quartiles: `0.71 (0.70 to 0.73)`."""
    low, middle, high = np.percentile(np.array(times) / np.array(base), [25, 50, 75])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def compare(times: Mapping[str, Times], base: str, calls: int) -> Iterable[tuple[str, ...]]:
    """Return table rows: method, median milliseconds per call, and its times relative to `base`."""
    for name, measured in times.items():
        milliseconds = 1000 * float(np.median(measured.wall)) / calls
        is_base = name == base
        yield (
            name,
            f"{milliseconds:.1f}",
            "1" if is_base else ratio(measured.wall, times[base].wall),
            "1" if is_base else ratio(measured.cpu, times[base].cpu),
        )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Yield the lines of a Markdown table."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""

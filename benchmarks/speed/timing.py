"""Ways that take turns, so that a busy machine slows all of them alike; and tables of what came of it."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

Way = Callable[[int], object]
"""Does what is numbered: the same number is the same work, whatever the way."""


@dataclass
class Times:
    """Seconds of each round, by the clock and of this process's processor time."""

    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def alternate(ways: Mapping[str, Way], rounds: int, calls: int) -> dict[str, Times]:
    """In each round every way does the same `calls` pieces of work; a round before the first warms up."""
    times = {name: Times() for name in ways}
    for number in range(-1, rounds):
        work = range(max(0, number) * calls, (max(0, number) + 1) * calls)
        for name, way in ways.items():
            wall, cpu = time.perf_counter(), time.process_time()
            for piece in work:
                way(piece)
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= 0:
                times[name].wall.append(time.perf_counter() - wall)
                times[name].cpu.append(time.process_time() - cpu)
    return times


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """The median over rounds of how many times as long ours took, and its quartiles: `0.71 (0.70 to 0.73)`."""
    low, middle, high = np.percentile(np.array(ours) / np.array(theirs), [25, 50, 75])
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def against(times: Mapping[str, Times], base: str, calls: int) -> Iterable[tuple[str, ...]]:
    """Rows of a table: a way, its median milliseconds a call, and how long it took against `base`, by clock and by CPU time."""
    for name, found in times.items():
        one = 1000 * float(np.median(found.wall)) / calls
        same = name == base
        yield (
            name,
            f"{one:.1f}",
            "1" if same else ratio(found.wall, times[base].wall),
            "1" if same else ratio(found.cpu, times[base].cpu),
        )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    """Lines of a Markdown table."""
    yield f"| {' | '.join(columns)} |"
    yield f"|{'---|' * len(columns)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""

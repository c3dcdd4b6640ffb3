"""The client of `python -m benchmarks.serve`, on tiny artifacts. No time is asserted."""

import asyncio

import pytest

from benchmarks.serve.client import Load, closed_loop, open_loop
from tests.support.serving import HEADS, ROWS, Running


def ports_of(server: Running) -> dict[str, int]:
    return dict.fromkeys(HEADS, int(server.url.rpartition(":")[2]))


def test_a_closed_loop_counts_answered_rows(server: Running) -> None:
    load = asyncio.run(closed_loop(ports_of(server), ROWS, 3, 0.3))
    assert len(load.latencies) >= 3
    assert load.rate == pytest.approx(len(load.latencies) / 0.3)
    assert not load.dropped


def test_an_open_loop_sends_at_its_rate(server: Running) -> None:
    load = asyncio.run(open_loop(ports_of(server), ROWS, 20, 0.5))
    assert len(load.latencies) == 10
    assert load.seconds > 0.4


def test_a_wrong_answer_ends_the_measurement(server: Running) -> None:
    with pytest.raises(AssertionError, match="tokens"):
        asyncio.run(closed_loop(ports_of(server), [{"task": "ner"}], 1, 1))


def test_percentiles_are_in_milliseconds() -> None:
    load = Load(2.0, [number / 1000 for number in range(1, 102)])
    assert load.percentiles() == pytest.approx([51.0, 96.0, 100.0])
    assert load.rate == 50.5

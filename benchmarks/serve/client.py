"""A bounded HTTP client for load: closed loops of N clients, and open loops at fixed rates."""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import numpy as np

from pipeline.tasks.base.row import Row

MAX_OPEN = 256  # requests of an open loop that wait at the same time


@dataclass
class Load:
    """The latencies of the answered requests in seconds, and the requests that were not sent."""

    seconds: float
    latencies: list[float] = field(default_factory=list)
    dropped: int = 0

    def percentiles(self) -> list[float]:
        """p50, p95 and p99 in milliseconds."""
        return [1000 * float(value) for value in np.percentile(self.latencies, [50, 95, 99])]

    @property
    def rate(self) -> float:
        """Answered rows per second."""
        return len(self.latencies) / self.seconds


class Connection:
    """A connection that is kept open. Only for the servers of this benchmark."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, row: Row) -> None:
        """Send one row, and wait for its result."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        body = json.dumps({"rows": [row]}).encode()
        head = (
            "POST /v1/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        status, *headers = (await reader.readuntil(b"\r\n\r\n")).decode().lower().split("\r\n")
        length = next(line.split(":")[1] for line in headers if line.startswith("content-length"))
        answer = json.loads(await reader.readexactly(int(length)))
        assert "200" in status, answer
        assert "result" in answer["answers"][0], answer

    async def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].close()
            await self._streams[1].wait_closed()


async def closed_loop(
    ports: dict[str, int], rows: Sequence[Row], clients: int, seconds: float
) -> Load:
    """Each client sends a row as soon as its last one is answered.

    `ports` has the port of the server of each task. The clients take the rows in turn.
    """
    load, numbers = Load(seconds), count()
    end = time.perf_counter() + seconds

    async def client() -> None:
        connections = {task: Connection(port) for task, port in ports.items()}
        try:
            while (started := time.perf_counter()) < end:
                row = rows[next(numbers) % len(rows)]
                await connections[row["task"]].ask(row)
                load.latencies.append(time.perf_counter() - started)
        finally:
            for connection in connections.values():
                await connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return load


async def open_loop(
    ports: dict[str, int], rows: Sequence[Row], rate: float, seconds: float
) -> Load:
    """Send `rate` rows per second, whether or not the earlier ones are answered.

    A latency counts from the planned time of a request, so that waiting for a slow server counts.
    """
    load, idle, begun = Load(seconds), dict[str, list[Connection]](), time.perf_counter()
    pending: set[asyncio.Task[None]] = set()

    async def send(row: Row, planned: float) -> None:
        free = idle.setdefault(row["task"], [])
        connection = free.pop() if free else Connection(ports[row["task"]])
        await connection.ask(row)
        load.latencies.append(time.perf_counter() - planned)
        free.append(connection)

    for number in range(int(rate * seconds)):
        planned = begun + number / rate
        await asyncio.sleep(max(0.0, planned - time.perf_counter()))
        if len(pending) >= MAX_OPEN:
            load.dropped += 1
            continue
        task = asyncio.ensure_future(send(rows[number % len(rows)], planned))
        pending.add(task)
        task.add_done_callback(pending.discard)
    await asyncio.gather(*pending)
    for connection in (one for free in idle.values() for one in free):
        await connection.close()
    load.seconds = time.perf_counter() - begun
    return load

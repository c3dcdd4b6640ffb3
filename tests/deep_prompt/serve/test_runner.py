"""Connections of clients that send nothing or read nothing are closed."""

import asyncio
import socket
import time
from pathlib import Path

import pytest
import uvicorn
from uvicorn.server import ServerState

from deep_prompt.serve import runner
from deep_prompt.serve.runner import TimedProtocol
from tests.support.serving import serving


class Transport(asyncio.Transport):
    """A connection that records whether it was aborted."""

    aborted = False

    def abort(self) -> None:
        self.aborted = True

    def is_closing(self) -> bool:
        return self.aborted

    def close(self) -> None:
        """Nothing is left to send."""


def test_a_connection_without_headers_is_closed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "HEADER_SECONDS", 0.3)
    with serving(root) as running:
        host, port = running.url.removeprefix("http://").split(":")
        for sent in (b"", b"GET /health/live HTTP/1.1\r\nHos"):
            with socket.create_connection((host, int(port)), timeout=10) as silent:
                silent.sendall(sent)
                assert silent.recv(10) == b""
        with socket.create_connection((host, int(port)), timeout=10) as slow:
            slow.sendall(b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
            assert slow.recv(4096).startswith(b"HTTP/1.1 200")
            started = time.monotonic()
            with pytest.raises(ConnectionError):
                send_slowly(slow, started + 5)


def send_slowly(connection: socket.socket, end: float) -> None:
    """Send a request that never ends, a byte at a time."""
    while time.monotonic() < end:
        connection.sendall(b"G")
        time.sleep(0.05)


@pytest.mark.parametrize("reads_again", [False, True])
def test_a_connection_that_does_not_read_is_aborted(
    monkeypatch: pytest.MonkeyPatch, reads_again: bool
) -> None:
    monkeypatch.setattr(runner, "WRITE_SECONDS", 0.05)

    async def check() -> bool:
        async def app(scope: object, receive: object, send: object) -> None:
            """It gets no request."""

        config = uvicorn.Config(app, ws="none", log_level="error")
        protocol, transport = TimedProtocol(config, ServerState(), {}), Transport()
        protocol.connection_made(transport)
        protocol.pause_writing()
        if reads_again:
            protocol.resume_writing()
        await asyncio.sleep(0.2)
        protocol.connection_lost(None)
        return transport.aborted

    assert asyncio.run(check()) is not reads_again

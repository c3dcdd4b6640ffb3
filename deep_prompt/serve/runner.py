"""Run the server: sockets, timeouts of connections, and an orderly end at a stop signal."""

import asyncio
import contextlib
import signal
import socket
from asyncio import Transport
from collections.abc import Iterator
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from deep_prompt.serve.app import create_app
from deep_prompt.serve.model import ServedModel
from deep_prompt.serve.settings import Settings
from deep_prompt.serve.state import ServerState
from pipeline.errors import UserError

HEADER_SECONDS = 10.0  # time for the first line and the headers of a request
WRITE_SECONDS = 10.0  # time in which a client must read what is waiting for it
KEEP_ALIVE_SECONDS = 30


class TimedProtocol(H11Protocol):
    """HTTP that closes the connections of clients that send no headers, or read no answer."""

    _timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Start the timer of the first request."""
        super().connection_made(transport)
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        """Start the timer with the first byte of a request; stop it when the headers are there."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._timer is None:
            self._wait_for_headers()

    def pause_writing(self) -> None:
        """Start the timer of a client that reads too slowly."""
        super().pause_writing()
        self._write_timer = self.loop.call_later(WRITE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer: the client reads again."""
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._stop_timer()
        if self._write_timer is not None:
            self._write_timer.cancel()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        self._timer = self.loop.call_later(HEADER_SECONDS, self.transport.close)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Server(uvicorn.Server):
    """A server that ends in order at a stop signal.

    It is no longer ready, still accepts requests for some time, so that load balancers see this,
    answers all accepted requests, and returns. A second signal ends it without the wait.
    """

    def __init__(self, config: uvicorn.Config, state: ServerState) -> None:
        super().__init__(config)
        self._state = state

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals in the event loop, and do not raise them again at the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self._state.status == "stopping":
            self.should_exit = True
            return
        self._state.status = "stopping"
        asyncio.get_running_loop().call_later(self._state.settings.drain_seconds, self._exit)

    def _exit(self) -> None:
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open the port, then warm the model up."""
        await super().startup(sockets)
        await self._state.warm_up()


def run_server(model: ServedModel, settings: Settings, listening: socket.socket) -> None:
    """Serve until a stop signal. Returns when all accepted requests are answered."""
    asyncio.run(_run(model, settings, listening))


async def _run(model: ServedModel, settings: Settings, listening: socket.socket) -> None:
    state = ServerState(model, settings)
    options: dict[str, Any] = {
        "http": TimedProtocol,
        "ws": "none",
        "lifespan": "off",
        "log_level": "error",
        "access_log": False,
        "server_header": False,
        "limit_concurrency": settings.limits.connections,
        "timeout_keep_alive": KEEP_ALIVE_SECONDS,
        "timeout_graceful_shutdown": round(settings.limits.seconds + settings.limits.body_seconds),
    }
    state.thread.start()
    try:
        await Server(uvicorn.Config(create_app(state), **options), state).serve([listening])
    finally:
        await asyncio.to_thread(state.thread.stop)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. Raises UserError if the address is not usable."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UserError(
            f"--host {host} --port {port}: cannot listen: {error}; give another address"
        ) from None

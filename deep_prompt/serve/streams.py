"""Generated texts as server-sent events: a piece of the text after each token, then the answer."""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from functools import partial
from typing import Any

from fastapi import HTTPException, Request
from fastapi.sse import EventSourceResponse, format_sse_event
from starlette.types import Receive, Scope, Send

from deep_prompt.serve.jobs import RowAnswer
from deep_prompt.serve.requests import BUG, busy, wait_for
from deep_prompt.serve.state import ServerState
from deep_prompt.serve.steps import Steps
from pipeline.errors import UserError, quantity
from pipeline.tasks.base.row import Row

Json = dict[str, Any]
MEDIA_TYPE = EventSourceResponse.media_type
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}  # a proxy must not hold events
DESCRIPTION = (
    "Events `text` with the pieces of a generated text, then `answer` with the complete answer, or "
    "`error` with the errors of the row."
)
EXAMPLE = 'event: text\ndata: {"text": " is a pub"}\n\n'
_logger = logging.getLogger(__name__)


def wants_events(request: Request) -> bool:
    """Whether the client asks for server-sent events."""
    return MEDIA_TYPE in request.headers.get("accept", "")


async def stream_text(
    request: Request, state: ServerState, row: Row, describe: Callable[[RowAnswer], Json]
) -> "TextStream":
    """The response that sends the text for a row piece by piece. It starts with the first piece.

    `describe` gives the JSON of the answer. Raises HTTPException if too many texts are being
    generated, if the row is not valid, and as `wait_for` does.
    """
    limits = state.settings.limits
    if state.num_streams >= limits.streams:
        raise busy(f"already generating {quantity(state.num_streams, 'text')}")
    steps = Steps(partial(state.model.write, row))
    deadline = time.monotonic() + limits.seconds
    with ExitStack() as cleanup:
        cleanup.callback(_close, state, steps)
        state.num_streams += 1
        piece = await wait_for(
            request, state.thread, lambda: state.thread.call(steps.step, [row]), limits
        )
        if piece is None and isinstance(error := steps.result.result(), UserError):
            raise HTTPException(422, describe(error)["errors"])
        events = _events(state, steps, piece, deadline, describe)
        return TextStream(events, cleanup.pop_all().close)


def _close(state: ServerState, steps: Steps[RowAnswer]) -> None:
    state.num_streams -= 1
    state.thread.call(steps.close)


async def _events(
    state: ServerState,
    steps: Steps[RowAnswer],
    piece: str | None,
    deadline: float,
    describe: Callable[[RowAnswer], Json],
) -> AsyncIterator[bytes]:
    """The events of a text whose first piece is known."""
    try:
        while piece is not None:
            yield _event("text", {"text": piece})
            remaining = deadline - time.monotonic()
            piece = await asyncio.wait_for(state.call(steps.step), remaining)
        yield _event("answer", describe(steps.result.result()))
    except TimeoutError:
        seconds = state.settings.limits.seconds
        late = f"rows[0]: the text is not complete after {seconds:g} s; try again later"
        yield _event("error", describe(UserError(late)))
    except Exception:
        _logger.exception("a text was not generated")
        yield _event("error", describe(UserError(f"rows[0]: {BUG}")))


def _event(name: str, value: Json) -> bytes:
    return format_sse_event(event=name, data_str=json.dumps(value, allow_nan=False))


class TextStream(EventSourceResponse):
    """A response of events. `close` is called at its end, also if the client leaves."""

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        super().__init__(events, headers=HEADERS)
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._close()

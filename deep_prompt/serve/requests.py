"""Read the body of a request within the limits, and wait for the model's answers to its rows."""

import asyncio
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, TypeVar

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from deep_prompt.serve.batching import ModelThread, QueueFullError
from deep_prompt.serve.jobs import num_characters
from deep_prompt.serve.settings import Limits
from pipeline.data.readers.json_values import decode
from pipeline.errors import describe, quantity
from pipeline.tasks.base.row import Row

T = TypeVar("T")
RETRY_SECONDS = 1
CLIENT_LEFT = 499  # the status that nginx uses; only the metrics see it
BUG = "a bug of the server; its log has the traceback"


async def read_json(request: Request, limits: Limits) -> Any:
    """The body of a request as JSON.

    Raises HTTPException if it is compressed, too long (before it is read to its end), too slow, or
    not JSON.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        message = f"content-encoding is {encoding[:40]!r}; send the body without compression"
        raise HTTPException(415, message, {"connection": "close"})
    try:
        async with asyncio.timeout(limits.body_seconds):
            body = await _read_body(request, limits.body_bytes)
    except TimeoutError:
        message = f"the body did not arrive within {limits.body_seconds:g} s; send it faster"
        raise HTTPException(408, message, {"connection": "close"}) from None
    except ClientDisconnect:
        raise HTTPException(CLIENT_LEFT, "the client left") from None
    try:
        return decode(body.decode(), allow_nan=False)
    except UnicodeDecodeError as error:
        raise HTTPException(400, f"the body is not UTF-8: {error}; correct it") from None
    except ValueError as error:
        raise HTTPException(400, f"the body: {error}; correct it") from None


async def _read_body(request: Request, max_bytes: int) -> bytes:
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and len(declared) < 20 and int(declared) > max_bytes:
        raise _too_long(max_bytes)
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_long(max_bytes)
    return bytes(body)


def _too_long(max_bytes: int) -> HTTPException:
    message = f"the body has more than {max_bytes} bytes; send fewer rows at a time"
    return HTTPException(413, message, {"connection": "close"})


def checked_rows(rows: Any, limits: Limits) -> list[Row]:
    """The rows of a request.

    Raises HTTPException if `rows` is not a list, or has too many rows or characters. What is wrong
    within a row is an error of this row: see `row_problem`.
    """
    if not isinstance(rows, list):
        raise HTTPException(422, f"rows: found {describe(rows)}, expected a list of rows")
    if len(rows) > limits.rows:
        message = f"rows: the request has {len(rows)} rows; send at most {limits.rows} at a time"
        raise HTTPException(413, message)
    for number, row in enumerate(rows):
        if num_characters(row, limits.characters) > limits.characters:
            message = f"rows[{number}]: has more than {limits.characters} characters; send less"
            raise HTTPException(413, message)
    return rows


def row_problem(row: Any, number: int) -> str | None:
    """The problem of a row that the server detects without the model; None if there is none."""
    where = f"rows[{number}]"
    if not isinstance(row, Mapping):
        return f"{where}: found {describe(row)}, expected a mapping of keys to values"
    id_ = row.get("id")
    if id_ is not None and (isinstance(id_, bool) or not isinstance(id_, str | int)):
        return f"{where}: id is {str(id_)[:40]!r}; give text or an integer, or leave it out"
    if not isinstance(row.get("prompt"), str | None):
        return f"{where}: prompt is {str(row['prompt'])[:40]!r}; give a task's name, or none"
    return None


def busy(reason: str) -> HTTPException:
    """The error of a request that the server has no room for."""
    return HTTPException(503, f"{reason}; try again later", {"retry-after": str(RETRY_SECONDS)})


async def wait_for(
    request: Request, thread: ModelThread, submit: Callable[[], "Future[T]"], limits: Limits
) -> T:
    """The result of what `submit` puts into the queue of the model's thread.

    If the client leaves, it is removed from the queue. Raises HTTPException if the queue is full,
    or if the result takes too long.
    """
    try:
        result = asyncio.wrap_future(submit())
    except QueueFullError:
        raise busy(f"the queue already has {quantity(thread.queued_rows, 'row')}") from None
    left = asyncio.ensure_future(_disconnected(request))
    either: set[asyncio.Future[Any]] = {result, left}
    try:
        done, _ = await asyncio.wait(
            either, timeout=limits.seconds, return_when=asyncio.FIRST_COMPLETED
        )
    finally:
        left.cancel()
        if not result.done():
            result.cancel()
    if result in done:
        return result.result()
    if left in done:
        raise HTTPException(CLIENT_LEFT, "the client left")
    raise HTTPException(504, f"no answer within {limits.seconds:g} s; send fewer rows at a time")


async def _disconnected(request: Request) -> None:
    """Wait until the client closes the connection. The body must have been read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass

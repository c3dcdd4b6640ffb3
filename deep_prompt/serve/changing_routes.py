"""The routes that change something: corrections, and the served artifacts."""

import asyncio
import hmac
from typing import Any

from fastapi import APIRouter, HTTPException, Request

from deep_prompt.serve.requests import checked_rows, read_json, row_problem
from deep_prompt.serve.routes import body_of
from deep_prompt.serve.state import ServerState

Json = dict[str, Any]
correcting = APIRouter(tags=["corrections"])


@correcting.post("/v1/corrections", openapi_extra=body_of({"type": "object"}))
async def correct(request: Request) -> Json:
    """Append an annotated row to the corrections of its task.

    The body is a row to predict with its annotation: `spans` of characters with labels for tasks
    that tag words, else the keys of the annotation, such as `answers` or `label`.
    """
    state: ServerState = request.app.state.server
    if state.corrections is None:
        raise HTTPException(403, "corrections are off; start the server with --corrections DIR")
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        # Pages of other sites can send any other type without asking the browser's user.
        raise HTTPException(415, "send the header Content-Type: application/json")
    (body,) = checked_rows([await read_json(request, state.settings.limits)], state.settings.limits)
    if problem := row_problem(body, 0):
        raise HTTPException(422, problem)
    if body.get("task") is None:
        names = ", ".join(state.model.served.predictor.tasks)
        raise HTTPException(422, f"rows[0]: key 'task' is missing; give one of {names}")
    task = str(body["task"])
    head = state.model.served.predictor.tasks.get(task)
    if head is None:
        raise HTTPException(422, state.unknown_task(task))
    try:
        return {"id": await asyncio.to_thread(state.corrections.add, task, head, body)}
    except OSError as error:
        message = f"the correction cannot be saved: {error.strerror}; tell the operator"
        raise HTTPException(503, message) from None


administering = APIRouter(tags=["artifacts"])
_FOLDER = {
    "type": "object",
    "properties": {"folder": {"type": "string", "description": "a folder in --admin-folder"}},
    "required": ["folder"],
}


@administering.put("/v1/artifacts/{name}", openapi_extra=body_of(_FOLDER))
async def put_artifact(name: str, request: Request) -> Json:
    """Add an artifact, or replace the one with this name."""
    state = _authorized(request)
    body = await read_json(request, state.settings.limits)
    if not isinstance(body, dict) or not isinstance(body.get("folder"), str):
        raise HTTPException(422, 'the body names no folder; send {"folder": "..."}')
    return await state.put_artifact(name, body["folder"])


@administering.delete("/v1/artifacts/{name}")
async def delete_artifact(name: str, request: Request) -> Json:
    """Remove an artifact. Requests in the queue that ask its tasks get an error."""
    state = _authorized(request)
    return await state.delete_artifact(name)


def _authorized(request: Request) -> ServerState:
    """The state, if the request has the token of --admin-token."""
    state: ServerState = request.app.state.server
    token = state.settings.admin_token
    if not token:
        raise HTTPException(403, "artifacts cannot change; start the server with --admin-token")
    sent = request.headers.get("authorization", "").encode()
    if not hmac.compare_digest(sent, f"Bearer {token}".encode()):
        message = "send the token of --admin-token: Authorization: Bearer TOKEN"
        raise HTTPException(401, message, {"www-authenticate": "Bearer"})
    return state

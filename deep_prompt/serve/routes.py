"""The routes of the server."""

import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST

from deep_prompt.serve import streams
from deep_prompt.serve.jobs import Answers, RowAnswer
from deep_prompt.serve.requests import checked_rows, read_json, row_problem, wait_for
from deep_prompt.serve.state import ServerState
from pipeline.errors import UserError, describe, did_you_mean
from pipeline.inference.prediction import Prediction
from pipeline.tasks.base.row import Row

Json = dict[str, Any]
_ROW = {"$ref": "#/components/schemas/Row"}
_ANSWER = {
    "type": "object",
    "description": "a result, or the errors of this row",
    "properties": {
        "row": {"type": "integer"},
        "id": {"anyOf": [{"type": "string"}, {"type": "integer"}]},
        "task": {"type": "string"},
        "result": {"$ref": "#/components/schemas/Result"},
        "html": {"type": "string"},
        "cut": {
            "type": "object",
            "description": "counts of the parts of the row that the model did not read as a whole",
            "additionalProperties": {"type": "integer"},
        },
        "errors": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["row"],
}
_ANSWERS = {
    "type": "object",
    "properties": {
        "answers": {"type": "array", "items": _ANSWER},
        "tasks": {"type": "integer", "description": "tasks of the answered rows"},
        "passes": {
            "type": "integer",
            "description": "forward passes, shared with other requests; without those that "
            "generate texts or rank candidates",
        },
        "milliseconds": {"type": "number"},
    },
    "required": ["answers", "tasks", "passes", "milliseconds"],
}


def body_of(schema: Json) -> Json:
    """The part of the schema that describes a body of JSON."""
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _returns(schema: Json, other_content: Mapping[str, Json] = MappingProxyType({})) -> Any:
    return {200: {"content": {"application/json": {"schema": schema}, **other_content}}}


_ROWS = {
    "type": "object",
    "properties": {
        "rows": {"type": "array", "items": _ROW},
        "html": {"type": "boolean", "description": "answers also have their spans as HTML"},
    },
    "required": ["rows"],
}
predicting = APIRouter(tags=["predict"])


@predicting.post("/v1/predict", openapi_extra=body_of(_ROWS), responses=_returns(_ANSWERS))
async def predict(request: Request) -> Json:
    """Predict rows of any tasks. Each answer is a result, or has the errors of its row."""
    state: ServerState = request.app.state.server
    body = await read_json(request, state.settings.limits)
    if not isinstance(body, dict):
        message = f'the body: found {describe(body)}, expected a mapping; send {{"rows": [...]}}'
        raise HTTPException(422, message)
    if "rows" not in body:
        raise HTTPException(422, 'the body has no rows; send {"rows": [...]}')
    html = body.get("html", False)
    if not isinstance(html, bool):
        raise HTTPException(422, f"html: found {describe(html)}, expected true or false")
    if unknown := body.keys() - {"rows", "html"}:
        raise HTTPException(
            422, f"unknown key {min(unknown)[:40]!r}{did_you_mean(min(unknown), ('rows', 'html'))}"
        )
    rows = checked_rows(body["rows"], state.settings.limits)
    started = time.perf_counter()
    result = await _answer_rows(request, state, rows)
    return {
        "answers": [
            _answer(number, row, answer, html)
            for number, (row, answer) in enumerate(zip(rows, result.answers, strict=True))
        ],
        "tasks": len({answer.task for answer in result.answers if isinstance(answer, Prediction)}),
        "passes": len(result.passes),
        "milliseconds": round(1000 * (time.perf_counter() - started), 1),
    }


_EVENTS = {
    streams.MEDIA_TYPE: {
        "schema": {"type": "string", "description": streams.DESCRIPTION},
        "example": streams.EXAMPLE,
    }
}


@predicting.post(
    "/v1/tasks/{name}",
    openapi_extra=body_of(_ROW),
    responses=_returns(_ANSWER, _EVENTS),
    response_model=None,
)
async def predict_one(name: str, request: Request) -> Json | streams.TextStream:
    """Predict one row of a task; the row needs no key `task`.

    With the header `Accept: text/event-stream`, a task that generates text answers with events.
    """
    state: ServerState = request.app.state.server
    task = state.tasks.get(name)
    if task is None:
        raise HTTPException(404, state.unknown_task(name))
    as_events = streams.wants_events(request)
    if as_events:
        _check_generates_text(task)
    body = await read_json(request, state.settings.limits)
    if isinstance(body, dict) and body.get("task") not in (None, name):
        other = str(body["task"])[:40]
        raise HTTPException(422, f"task: found {other!r} in the path of {name!r}; leave it out")
    row = {**body, "task": name} if isinstance(body, dict) else body
    rows = checked_rows([row], state.settings.limits)
    if as_events:
        return await _stream(request, state, row)
    (answer,) = (await _answer_rows(request, state, rows)).answers
    if isinstance(answer, UserError):
        raise HTTPException(422, answer.problems)
    return _answer(0, row, answer, html=False)


def _check_generates_text(task: Json) -> None:
    if not task["generates_text"]:
        raise HTTPException(
            406,
            f"the task {task['name']!r} is of the type {task['type']}, and only generated texts "
            "are sent as events; accept application/json",
        )


async def _stream(request: Request, state: ServerState, row: Any) -> streams.TextStream:
    """The answer to a row as events."""

    def describe(answer: RowAnswer) -> Json:
        state.metrics.rows([_task_of(row, state)], [answer])
        return _answer(0, row, answer, html=False)

    if problem := row_problem(row, 0):
        raise HTTPException(422, describe(UserError(problem))["errors"])
    return await streams.stream_text(request, state, {**row, "where": "rows[0]"}, describe)


@predicting.post("/v1/attention", openapi_extra=body_of(_ROW))
async def attention(request: Request) -> Json:
    """The share of attention on the prompt, by layer and head, averaged over the row's tokens."""
    state: ServerState = request.app.state.server
    (row,) = checked_rows([await read_json(request, state.settings.limits)], state.settings.limits)
    if problem := row_problem(row, 0):
        raise HTTPException(422, problem)
    query = {key: value for key, value in row.items() if key not in ("id", "prompt")}
    query["where"] = "rows[0]"
    layers = await wait_for(
        request,
        state.thread,
        lambda: state.thread.call(lambda: state.model.attention(query), [query]),
        state.settings.limits,
    )
    return {"layers": [{"layer": layer, "heads": heads} for layer, heads in layers.items()]}


async def _answer_rows(request: Request, state: ServerState, rows: Sequence[Any]) -> Answers:
    """The answers to all rows of a request, in order. Malformed rows do not reach the model."""
    problems = [row_problem(row, number) for number, row in enumerate(rows)]
    valid: list[Row] = [
        {**row, "where": f"rows[{number}]"}
        for number, row in enumerate(rows)
        if problems[number] is None
    ]
    result = Answers([], [])
    if valid:
        result = await wait_for(
            request, state.thread, lambda: state.thread.submit(valid), state.settings.limits
        )
    remaining = iter(result.answers)
    answers = [next(remaining) if problem is None else UserError(problem) for problem in problems]
    state.metrics.rows([_task_of(row, state) for row in rows], answers)
    return Answers(answers, result.passes)


def _task_of(row: Any, state: ServerState) -> str:
    """The task that a row names, for the metrics: only names of served tasks."""
    name = row.get("task") if isinstance(row, dict) else None
    return name if isinstance(name, str) and name in state.tasks else "unknown"


def _answer(number: int, row: Any, answer: RowAnswer, html: bool) -> Json:
    """The answer to a row as JSON. Its id is that of the row, if it has one."""
    id_ = row.get("id") if isinstance(row, dict) else None
    base: Json = {"row": number, "id": number if id_ is None else id_}
    if isinstance(answer, UserError):
        return base | {"errors": list(answer.problems)}
    shown = {"html": answer._repr_html_()} if html else {}
    return base | {key: value for key, value in answer.asdict().items() if key != "id"} | shown


describing = APIRouter(tags=["describe"])


@describing.get("/v1/tasks")
async def tasks(request: Request) -> Json:
    """The served tasks: type, labels, an example row, corpora, test score, calibration."""
    state: ServerState = request.app.state.server
    return {"tasks": list(state.tasks.values()), "corrections": state.corrections is not None}


@describing.get("/health/live")
async def live() -> Json:
    """Whether the process answers."""
    return {"status": "live"}


@describing.get("/health/ready")
async def ready(request: Request, response: Response) -> Json:
    """Whether the server answers requests: after the warm-up, until a stop signal."""
    state: ServerState = request.app.state.server
    response.status_code = 200 if state.status == "ready" else 503
    return {"status": state.status}


@describing.get("/metrics", include_in_schema=False)
async def metrics(request: Request) -> Response:
    """The metrics in the text format of Prometheus."""
    state: ServerState = request.app.state.server
    return Response(state.metrics.text(), media_type=CONTENT_TYPE_LATEST)

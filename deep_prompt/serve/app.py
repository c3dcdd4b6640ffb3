"""The application: routes, errors as JSON, security headers, and the static page."""

import json
import logging
import time
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match, Mount
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deep_prompt.serve.changing_routes import administering, correcting
from deep_prompt.serve.metrics import ServerCounts
from deep_prompt.serve.requests import BUG
from deep_prompt.serve.routes import describing, predicting
from deep_prompt.serve.schemas import add_task_types
from deep_prompt.serve.state import ServerState
from pipeline.errors import UserError

PAGE = Path(__file__).parent / "page"
METHODS = ("GET", "POST", "PUT", "DELETE")
HEADERS = (
    # The spans' HTML has inline styles.
    (b"content-security-policy", b"default-src 'self'; style-src 'self' 'unsafe-inline'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
DESCRIPTION = (
    "Tasks of one or many artifacts over one frozen backbone; rows of different tasks share its "
    "forward passes."
)
_logger = logging.getLogger(__name__)


class AsciiResponse(JSONResponse):
    """JSON in ASCII, so that half a surrogate pair in a message can be sent."""

    def render(self, content: Any) -> bytes:
        """The bytes of the body."""
        return json.dumps(content, allow_nan=False).encode("ascii")


class Observer:
    """Counts each request with its route, and adds the security headers."""

    def __init__(self, app: ASGIApp, metrics: ServerCounts) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application on a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        finally:
            route = getattr(scope.get("route"), "path", None) or "other"
            self._metrics.request(route, status, time.perf_counter() - started)


def create_app(state: ServerState) -> FastAPI:
    """The application of a server."""
    app = FastAPI(
        title="deep-prompt",
        description=DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        default_response_class=AsciiResponse,
    )
    app.state.server = state
    app.add_middleware(Observer, metrics=state.metrics)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(UserError, _user_error)
    app.add_exception_handler(Exception, _bug)
    for router in (predicting, describing, correcting, administering):
        app.include_router(router)
    app.add_api_route("/docs", _docs, include_in_schema=False)
    app.mount("/", StaticFiles(directory=PAGE, html=True))
    _describe_task_types(app, state)
    return app


def _describe_task_types(app: FastAPI, state: ServerState) -> None:
    """Add the schemas of the served task types to /openapi.json."""
    of_routes = app.openapi

    def openapi() -> dict[str, Any]:
        app.openapi_schema = None  # the artifacts may have changed
        return add_task_types(of_routes(), (task["type"] for task in state.tasks.values()))

    app.openapi = openapi  # type: ignore[method-assign]


async def _docs() -> FileResponse:
    return FileResponse(PAGE / "docs.html")


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if error.detail in ("Not Found", "Method Not Allowed"):  # the texts of Starlette
        return _no_route(request)
    problems = [error.detail] if isinstance(error.detail, str) else list(error.detail)
    return AsciiResponse({"errors": problems}, error.status_code, dict(error.headers or {}))


def _no_route(request: Request) -> JSONResponse:
    """The answer to a request for an unknown path, or with a method that its path does not have.

    Starlette gives these requests to the mounted page, whose answers say less.
    """
    routes = [route for route in request.app.routes if not isinstance(route, Mount)]
    methods = ", ".join(
        method
        for method in METHODS
        if any(
            route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes
        )
    )
    path = request.url.path[:80]
    if methods:
        message = f"{request.method} is not a method of {path}; use {methods}"
        return AsciiResponse({"errors": [message]}, 405, {"allow": methods})
    return AsciiResponse({"errors": [f"there is no {path}; /docs lists all paths"]}, 404)


async def _user_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, UserError)
    return AsciiResponse({"errors": list(error.problems)}, 422)


async def _bug(request: Request, error: Exception) -> JSONResponse:
    _logger.error("%s %s failed: %s", request.method, request.url.path, error)
    return AsciiResponse({"errors": [BUG]}, 500)

"""The factory of every HTTP service, and how one is served."""

import re
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from uuid import uuid4

import structlog
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from opentelemetry import context, trace
from opentelemetry.propagate import extract
from prometheus_client import Counter, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs.web.problems import Problem, TooLarge, problem_response

HealthCheck = Callable[[], Awaitable[None]]
"""Raises when what it looks at does not work."""

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]

_REQUESTS = Counter("lightbox_http_requests_total", "Requests answered", ["service", "method", "status"])
_SECONDS = Histogram("lightbox_http_request_seconds", "Time to the end of the answer", ["service", "method"])
_REQUEST_ID = re.compile(r"^[A-Za-z0-9._-]{1,64}$")
_log = structlog.get_logger(__name__)


class RequestContext:
    """Gives each request an id and a trace, counts and times it, and bounds its body.

    It is plain ASGI, so that bodies and answers stream through it.

    Arguments:
        app: what answers.
        service: the service's name.
        max_body: the largest body in bytes.
        refuse_declared: whether a body that declares itself larger is refused here; otherwise by the application, as
            soon as it reads, so that it can see who sends before it refuses.
    """

    def __init__(self, app: ASGIApp, *, service: str, max_body: int, refuse_declared: bool = True) -> None:
        self._app = app
        self._service = service
        self._max_body = max_body
        self._refuse_declared = refuse_declared

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection event (ASGI 3.0)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        asked = headers.get("x-request-id", "")
        request_id = asked if _REQUEST_ID.match(asked) else uuid4().hex
        started = time.perf_counter()
        status = 500

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        token = context.attach(extract(headers))
        structlog.contextvars.bind_contextvars(service=self._service, request_id=request_id)
        try:
            with trace.get_tracer("lightbox").start_as_current_span(scope["method"]):
                declared = headers.get("content-length", "0")
                too_large = not declared.isdigit() or int(declared) > self._max_body
                if too_large and self._refuse_declared:
                    await _too_large(self._max_body)(scope, receive, send_with_id)
                    return
                bounded = _bounded(receive, self._max_body)
                await self._app(scope, bounded, send_with_id)
        finally:
            context.detach(token)
            structlog.contextvars.unbind_contextvars("request_id")
            _REQUESTS.labels(self._service, scope["method"], status).inc()
            _SECONDS.labels(self._service, scope["method"]).observe(time.perf_counter() - started)


def _too_large(limit: int) -> JSONResponse:
    return problem_response(413, TooLarge.title, f"The body may have {limit} bytes at most.")


def _bounded(receive: Receive, limit: int) -> Receive:
    """Stops a body that turns out larger than allowed, whatever its length header said."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise TooLarge(f"The body may have {limit} bytes at most.")
        return message

    return bounded


def create_app(
    service: str,
    *,
    title: str,
    description: str,
    lifespan: Lifespan,
    health: Mapping[str, HealthCheck] | None = None,
    max_body: int = 1 << 20,
    refuse_declared: bool = True,
) -> FastAPI:
    """An application with the errors, health, metrics and limits that all services share.

    Arguments:
        service: the service's name, a label of its logs and metrics.
        title: the title of its OpenAPI document.
        description: what it does, for the OpenAPI document.
        lifespan: opens and closes what the service needs.
        health: for each thing that is needed, a check that raises when it does not work.
        max_body: the largest request body in bytes.
        refuse_declared: whether a body that declares itself larger is refused before anything else is looked at; a
            service that keeps a record of refusals looks first who sends, and refuses by itself.
    """
    app = FastAPI(
        title=title,
        description=description,
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.add_middleware(RequestContext, service=service, max_body=max_body, refuse_declared=refuse_declared)
    _explain_errors(app)
    _add_health(app, dict(health or {}))

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return PlainTextResponse(generate_latest(), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return app


def _explain_errors(app: FastAPI) -> None:
    """Every error becomes problem+json (RFC 9457)."""

    @app.exception_handler(Problem)
    async def on_problem(_: Request, error: Problem) -> Response:
        return problem_response(error.status, error.title, error.detail, error.headers)

    @app.exception_handler(HTTPException)
    async def on_http_exception(_: Request, error: HTTPException) -> Response:
        return problem_response(error.status_code, str(error.detail), headers=error.headers)

    @app.exception_handler(RequestValidationError)
    async def on_invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return problem_response(400, "The request can't be understood", f"{where}: {first['msg']}")

    @app.exception_handler(Exception)
    async def on_bug(_: Request, error: Exception) -> Response:
        _log.error("unexpected error", exc_info=error)
        return problem_response(500, Problem.title, "It was logged; the request id says where.")


def _add_health(app: FastAPI, checks: Mapping[str, HealthCheck]) -> None:
    """Whether the process lives, and whether what it needs works."""

    @app.get("/health/live", include_in_schema=False)
    async def live() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/health/ready", include_in_schema=False)
    async def ready() -> Response:
        report: dict[str, str] = {}
        for name, check in checks.items():
            try:
                await check()
                report[name] = "ok"
            except Exception as error:
                _log.warning("not ready", part=name, error=repr(error))
                report[name] = "not available"
        failed = any(value != "ok" for value in report.values())
        return JSONResponse(report, 503 if failed else 200)


def serve(app: FastAPI, *, host: str, port: int) -> None:
    """Serves the application until SIGTERM or SIGINT; open requests get ten seconds to end."""
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
        timeout_keep_alive=65,
        h11_max_incomplete_event_size=64 * 1024,
    )

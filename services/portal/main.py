"""Wires the portal together."""

import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from types import FrameType

from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs import telemetry
from libs.auth import Authenticated, TokenVerifier
from libs.web import Problem, problem_response, serve
from libs.web import create_app as create_web_app
from services.portal import store
from services.portal.api import failure, make_router, record_refusal
from services.portal.api_static import make_static_router
from services.portal.live import Live
from services.portal.pages import PAGE_POLICY, Assets, Pages
from services.portal.resources import open_resources
from services.portal.settings import Settings


class PageHeaders:
    """Adds the headers that confine a page, unless the answer has its own."""

    _HEADERS = (
        (b"content-security-policy", PAGE_POLICY.encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"same-origin"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
    )

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection event (ASGI 3.0)."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                present = {name.lower() for name, _ in message["headers"]}
                added = [pair for pair in self._HEADERS if pair[0] not in present]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, send_with_headers if scope["type"] == "http" else send)


def create_app(settings: Settings) -> FastAPI:
    """The application; nothing it needs has to be reachable yet."""
    assets = Assets()
    pages = Pages(assets)
    auth = Authenticated(TokenVerifier(settings.jwks_url, settings.issuer), settings.public_url, record_refusal)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings) as resources:
            app.state.resources = resources
            with _ending_streams(resources.live):
                yield

    async def database() -> None:
        await store.check(app.state.resources.engine)

    app = create_web_app(
        "portal",
        title="Lightbox portal",
        description="The subscribers' pages: worklist, study page, live updates.",
        lifespan=lifespan,
        health={"database": database},
    )
    app.add_middleware(PageHeaders)
    app.include_router(make_router(settings, auth, pages))
    app.include_router(make_static_router(assets, pages))
    _explain_failures(app, pages)
    return app


def _explain_failures(app: FastAPI, pages: Pages) -> None:
    """Browsers get failures in words; everybody else gets problem+json."""

    @app.exception_handler(Problem)
    async def on_problem(request: Request, error: Problem) -> Response:
        page = failure(pages, request, error.status, error.title, error.detail)
        if page is None:
            return problem_response(error.status, error.title, error.detail, error.headers)
        page.headers.update(error.headers)
        return page

    @app.exception_handler(HTTPException)
    async def on_http_exception(request: Request, error: HTTPException) -> Response:
        page = failure(pages, request, error.status_code, str(error.detail), "")
        return page or problem_response(error.status_code, str(error.detail), headers=error.headers)


@contextmanager
def _ending_streams(live: Live) -> Iterator[None]:
    """Ends the live streams at the signal that stops the server, which waits for open answers."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def stop(number: int, frame: FrameType | None) -> None:
        live.close()
        handler = before[signal.Signals(number)]
        if callable(handler):
            handler(number, frame)

    for number, handler in before.items():
        if callable(handler):
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def run(arguments: list[str]) -> None:
    """Serves until told to stop. It takes no arguments."""
    settings = Settings()
    telemetry.configure("portal", level=settings.log_level)
    serve(create_app(settings), host=settings.host, port=settings.port)

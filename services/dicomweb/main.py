"""Wires the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from libs import telemetry, web
from libs.auth import Authenticated, TokenVerifier
from services.dicomweb.api_metadata import metadata_routes
from services.dicomweb.api_quality import quality_routes, version_routes
from services.dicomweb.api_rendered import rendered_routes
from services.dicomweb.api_retrieve import retrieve_routes
from services.dicomweb.api_search import search_routes
from services.dicomweb.audit import SERVICE, on_refusal
from services.dicomweb.resources import Resources, open_resources
from services.dicomweb.settings import Settings


class Private:
    """Marks every answer as the caller's own: a shared cache keeps none, a browser asks again before it uses one.

    So each use of what a browser has kept is seen, allowed and recorded.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection event (ASGI 3.0)."""

        async def send_private(message: Message) -> None:
            if message["type"] == "http.response.start":
                further = [(b"cache-control", b"private, no-cache"), (b"x-content-type-options", b"nosniff")]
                message["headers"] = [*message["headers"], *further]
            await send(message)

        await self._app(scope, receive, send_private if scope["type"] == "http" else send)


def create_app(settings: Settings, verifier: TokenVerifier | None = None) -> FastAPI:
    """The application; its resources open with its lifespan.

    Arguments:
        settings: what is set from outside.
        verifier: verifies tokens; made from the settings when there is none.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings) as resources:
            app.state.resources = resources
            yield

    def resources() -> Resources:
        opened: Resources = app.state.resources
        return opened

    async def check_catalog() -> None:
        await resources().store.check()

    async def check_objects() -> None:
        await resources().objects.ready()

    app = web.create_app(
        SERVICE,
        title="Lightbox: finding and retrieving",
        description="QIDO-RS and WADO-RS (PS3.18 sections 10.4 and 10.6) over what the caller's own tenant has stored.",
        lifespan=lifespan,
        health={"catalog": check_catalog, "objects": check_objects},
    )
    app.add_middleware(Private)
    tokens = verifier or TokenVerifier(settings.jwks_url, settings.issuer)
    read = Authenticated(tokens, settings.public_url, on_refusal=on_refusal).require("dicom:read")
    for routes in (search_routes, metadata_routes, retrieve_routes, rendered_routes, version_routes, quality_routes):
        app.include_router(routes(read))
    return app


def run(arguments: list[str]) -> None:
    """Serves until it is told to stop. It takes no arguments; everything is set by the environment."""
    settings = Settings()
    telemetry.configure(SERVICE, level=settings.log_level)
    web.serve(create_app(settings), host=settings.host, port=settings.port)

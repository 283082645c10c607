"""Wires the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from libs import telemetry, web
from libs.auth import Authenticated, TokenVerifier
from libs.events import in_background
from services.ingest_gateway.api import create_router, on_refusal
from services.ingest_gateway.api_quarantine import create_quarantine_router
from services.ingest_gateway.consumers import consume_tenants
from services.ingest_gateway.dimse import DicomDoor
from services.ingest_gateway.handlers import SERVICE
from services.ingest_gateway.leftover import LeftoverBody
from services.ingest_gateway.reconcile import reconcile_command, reconcile_in_background
from services.ingest_gateway.resources import Resources, open_resources
from services.ingest_gateway.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The application; its resources open with its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings) as resources:
            app.state.resources = resources
            async with (
                in_background(
                    lambda stop: consume_tenants(resources, settings.kafka_bootstrap, stop), "tenants.changed", grace=2
                ),
                in_background(lambda stop: reconcile_in_background(resources, settings, stop), "reconciling"),
            ):
                if settings.dimse_port is None:
                    yield
                    return
                app.state.door = door = DicomDoor(settings, resources)
                door.start()
                try:
                    async with in_background(lambda _: door.renew(), "certificates", grace=0):
                        yield
                finally:
                    await door.stop()

    def resources() -> Resources:
        opened: Resources = app.state.resources
        return opened

    async def check_events() -> None:
        await resources().producer.check()

    async def check_objects() -> None:
        await resources().objects.ready()

    async def check_spool() -> None:
        await resources().spool.run(resources().spool.require_space)

    async def check_door() -> None:
        await app.state.door.check()

    health = {"objects": check_objects, "events": check_events, "spool": check_spool}
    app = web.create_app(
        SERVICE,
        title="Lightbox: storing",
        description="Takes instances in by STOW-RS (PS3.18 section 10.5), and by DIMSE over TLS where that is set up, "
        "and answers once they are durable.",
        lifespan=lifespan,
        health=health if settings.dimse_port is None else {**health, "dimse": check_door},
        max_body=settings.max_request,
        refuse_declared=False,
    )
    app.add_middleware(LeftoverBody)
    auth = Authenticated(TokenVerifier(settings.jwks_url, settings.issuer), settings.public_url, on_refusal=on_refusal)
    app.include_router(create_router(auth, settings))
    app.include_router(create_quarantine_router(auth))
    return app


def run(arguments: list[str]) -> None:
    """Serves until it is told to stop; with ``reconcile …``, compares buckets and catalog once and ends."""
    settings = Settings()
    if arguments[:1] == ["reconcile"]:
        raise SystemExit(reconcile_command(settings, arguments[1:]))
    telemetry.configure(SERVICE, level=settings.log_level)
    web.serve(create_app(settings), host=settings.host, port=settings.port)

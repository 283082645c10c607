"""Wires the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy import text

from libs import telemetry, web
from libs.events import in_background, relay_outbox
from libs.tenancy import SYSTEM_TENANT, tenant_transaction
from services.indexing.consumers import consume_instances
from services.indexing.reindex import reindex_command
from services.indexing.resources import SERVICE, Resources, open_resources
from services.indexing.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The application; it consumes as long as its lifespan lasts."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings) as opened:
            app.state.resources = opened
            await opened.producer.start()
            async with (
                in_background(
                    lambda _: relay_outbox(opened.engine, opened.producer, wake=opened.committed), "outbox relay"
                ),
                in_background(
                    lambda stop: consume_instances(
                        opened, settings.kafka_bootstrap, max_batch=settings.max_batch, stop=stop
                    ),
                    "instances.stored",
                    grace=15,
                ),
            ):
                yield

    def resources() -> Resources:
        opened: Resources = app.state.resources
        return opened

    async def check_database() -> None:
        async with tenant_transaction(resources().engine, SYSTEM_TENANT) as connection:
            await connection.execute(text("SELECT 1"))

    async def check_objects() -> None:
        await resources().objects.ready()

    async def check_events() -> None:
        await resources().producer.check()

    app = web.create_app(
        SERVICE,
        title="Lightbox: indexing",
        description="Keeps the catalog. It has no API: it works on events.",
        lifespan=lifespan,
        health={"database": check_database, "objects": check_objects, "events": check_events},
    )
    return app


def run(arguments: list[str]) -> None:
    """Serves until it is stopped; with ``reindex …``, rebuilds the catalog and ends."""
    settings = Settings()
    if arguments[:1] == ["reindex"]:
        raise SystemExit(reindex_command(settings, arguments[1:]))
    telemetry.configure(SERVICE, level=settings.log_level)
    web.serve(create_app(settings), host=settings.host, port=settings.port)

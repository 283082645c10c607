"""Wires the service."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from sqlalchemy import text

from libs import telemetry, web
from libs.auth import Authenticated, TokenVerifier
from libs.events import in_background
from libs.tenancy import SYSTEM_TENANT, tenant_transaction
from services.audit.api import create_router, on_refusal
from services.audit.consumers import consume_records
from services.audit.handlers import SERVICE
from services.audit.resources import Resources, open_resources
from services.audit.settings import Settings


def create_app(settings: Settings) -> FastAPI:
    """The application; its resources open with its lifespan."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings) as resources:
            app.state.resources = resources
            async with in_background(
                lambda stop: consume_records(resources, settings, stop), "audit.recorded", grace=5
            ):
                yield

    def resources() -> Resources:
        opened: Resources = app.state.resources
        return opened

    async def check_database() -> None:
        async with tenant_transaction(resources().engine, SYSTEM_TENANT) as connection:
            await connection.execute(text("SELECT 1"))

    async def check_events() -> None:
        await resources().producer.check()

    app = web.create_app(
        SERVICE,
        title="Lightbox: audit",
        description="Who did what to whose data, in a tamper-evident chain of the tenant.",
        lifespan=lifespan,
        health={"database": check_database, "events": check_events},
    )
    auth = Authenticated(TokenVerifier(settings.jwks_url, settings.issuer), settings.public_url, on_refusal=on_refusal)
    app.include_router(create_router(auth))
    return app


def run(arguments: list[str]) -> None:
    """Serves until it is told to stop. It takes no arguments; everything is set by the environment."""
    settings = Settings()
    telemetry.configure(SERVICE, level=settings.log_level)
    web.serve(create_app(settings), host=settings.host, port=settings.port)

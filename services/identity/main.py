"""Wires the identity service."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

from fastapi import FastAPI, Request
from fastapi.staticfiles import StaticFiles

from libs.auth import Authenticated, Principal, TokenVerifier
from libs.telemetry import configure
from libs.web import Problem, serve
from libs.web import create_app as create_web_app
from services.identity.api import administration, nodes, pages, tokens
from services.identity.api.callers import caller_of, resources_of
from services.identity.errors import TokenRefused
from services.identity.handlers.audit import record_refusal
from services.identity.handlers.keys import keep_keys
from services.identity.resources import open_resources
from services.identity.settings import Settings
from services.identity.signing import KeyHolder
from services.identity.store.transactions import check

_MAX_BODY = 64 * 1024


def create_app(settings: Settings) -> FastAPI:
    """The application.

    Arguments:
        settings: read once, here and nowhere else.
    """
    holder = KeyHolder(settings.sealing_key)

    async def own_key_set() -> bytes:
        return holder.ring.key_set(datetime.now(UTC))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_resources(settings, holder) as resources:
            app.state.resources = resources
            secret = settings.bootstrap_secret
            task = asyncio.create_task(
                keep_keys(resources, secret.get_secret_value() if secret else None), name="signing keys"
            )
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task

    async def database_answers() -> None:
        await check(app.state.resources.engine)

    async def keys_are_loaded() -> None:
        holder.ring.signing_key(datetime.now(UTC))

    async def on_refusal(request: Request, principal: Principal | None, problem: Problem) -> None:
        tenant = principal.tenant if principal else None
        detail = f"{problem.status}: {problem.detail}"
        await record_refusal(resources_of(request), tenant, caller_of(request, principal), detail)

    app = create_web_app(
        "identity",
        title="Lightbox identity",
        description="Tenants, users, clients, sessions, access tokens and the keys that they are verified with.",
        lifespan=lifespan,
        # Kafka is not among them: without it log-ins go on, and events wait in the outbox and the audit spool.
        health={"database": database_answers, "signing keys": keys_are_loaded},
        max_body=_MAX_BODY,
    )
    app.state.settings = settings
    verifier = TokenVerifier("", settings.issuer, cache_seconds=5, refetch_seconds=0, fetch=own_key_set)
    auth = Authenticated(verifier, settings.public_url, on_refusal)
    app.mount("/auth/static", StaticFiles(directory=pages.FOLDER / "static"))
    app.include_router(pages.pages)
    app.include_router(pages.session)
    app.include_router(tokens.make_router(auth))
    app.include_router(administration.make_router(auth))
    app.include_router(nodes.make_router(auth))
    app.exception_handler(TokenRefused)(tokens.token_problem)
    return app


def run(_arguments: list[str]) -> None:
    """Serves until it is told to stop."""
    settings = Settings()
    configure("identity", level=settings.log_level)
    serve(create_app(settings), host=settings.host, port=settings.port)

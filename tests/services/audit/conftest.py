"""The audit service on real PostgreSQL and Kafka."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from httpx import ASGITransport, AsyncClient
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.tenancy import create_engine
from services.audit.main import create_app
from services.audit.settings import Settings
from tests.support.backing import Backing
from tests.support.tokens import TokenIssuer, token_issuer

__all__ = ["token_issuer"]

Waiter = Callable[[Callable[[], Awaitable[bool]]], Awaitable[None]]


@pytest.fixture
async def engine(backing: Backing) -> AsyncIterator[AsyncEngine]:
    made = create_engine(backing.database_url("audit"), pool_size=2)
    yield made
    await made.dispose()


@pytest.fixture
async def app(backing: Backing, token_issuer: TokenIssuer, tmp_path: Path) -> AsyncIterator[FastAPI]:
    made = create_app(
        Settings(
            database_url=backing.database_url("audit"),
            kafka_bootstrap=backing.kafka_bootstrap,
            jwks_url=token_issuer.jwks_url,
            spool_dir=tmp_path,
        )
    )
    async with made.router.lifespan_context(made):
        yield made


@pytest.fixture
async def client(app: FastAPI) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(transport=ASGITransport(app), base_url="http://audit") as made:
        yield made

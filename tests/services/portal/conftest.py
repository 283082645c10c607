"""A portal on real PostgreSQL and Kafka, with tokens of a test issuer."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.auth import ACCESS_COOKIE, DICOM_READ, DICOM_WRITE
from libs.tenancy import create_engine
from services.portal.main import create_app
from services.portal.settings import Settings
from tests.services.portal.catalog_rows import Study, add_studies
from tests.support.backing import Backing
from tests.support.tokens import TokenIssuer

HTML = {"accept": "text/html"}


@pytest.fixture(scope="session")
def issuer() -> Iterator[TokenIssuer]:
    running = TokenIssuer()
    yield running
    running.close()


class _Server(uvicorn.Server):
    """A server inside the test's event loop, which leaves the signals to pytest."""

    def capture_signals(self) -> Any:
        return nullcontext()


@asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[str]:
    """Serves a portal; gives its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(create_app(settings), log_config=None, timeout_graceful_shutdown=5)
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    while not server.started:
        if task.done():
            task.result()
        await asyncio.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


def settings_for(backing: Backing, issuer: TokenIssuer, folder: Path, **changes: Any) -> Settings:
    values = {
        "database_url": backing.database_url("portal"),
        "kafka_bootstrap": backing.kafka_bootstrap,
        "jwks_url": issuer.jwks_url,
        "public_url": "http://127.0.0.1:8080",
        "spool_dir": folder,
        "page_size": 5,
        **changes,
    }
    return Settings(**values)


@pytest.fixture(scope="session")
async def portal_url(
    backing: Backing, issuer: TokenIssuer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[str]:
    folder = tmp_path_factory.mktemp("portal-spool")
    async with serving(settings_for(backing, issuer, folder, streams_per_tenant=2)) as url:
        yield url


@pytest.fixture(scope="session")
async def owner(backing: Backing) -> AsyncIterator[AsyncEngine]:
    engine = create_engine(backing.database_url("owner"))
    yield engine
    await engine.dispose()


@dataclass
class Reader:
    """Somebody of a clinic with a browser, and a way to put studies into the clinic's catalog."""

    tenant: str
    http: httpx.AsyncClient
    engine: AsyncEngine

    async def add(self, *studies: Study) -> None:
        await add_studies(self.engine, self.tenant, *studies)

    async def page(self, path: str, **headers: str) -> httpx.Response:
        return await self.http.get(path, headers={**HTML, **headers})


@asynccontextmanager
async def reading(
    url: str, issuer: TokenIssuer, engine: AsyncEngine, tenant: str, *scopes: str, **claims: Any
) -> AsyncIterator[Reader]:
    token = issuer.token_for(tenant, scopes, **{"subject": "user:anna", "name": "Anna", **claims})
    async with httpx.AsyncClient(base_url=url, cookies={ACCESS_COOKIE: token}, trust_env=False) as http:
        yield Reader(tenant, http, engine)


@pytest.fixture
async def reader(portal_url: str, issuer: TokenIssuer, owner: AsyncEngine, tenant: str) -> AsyncIterator[Reader]:
    async with reading(portal_url, issuer, owner, tenant, DICOM_READ, DICOM_WRITE, roles=("radiologist",)) as one:
        yield one


@pytest.fixture
async def pair(
    portal_url: str, issuer: TokenIssuer, owner: AsyncEngine, tenant_pair: tuple[str, str]
) -> AsyncIterator[tuple[Reader, Reader]]:
    north, south = tenant_pair
    async with (
        reading(portal_url, issuer, owner, north, DICOM_READ) as one,
        reading(portal_url, issuer, owner, south, DICOM_READ) as other,
    ):
        yield one, other

"""The identity service on real PostgreSQL and Kafka, called as its front door calls it."""

import asyncio
import base64
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from fastapi import FastAPI

from libs.auth import TokenVerifier
from services.identity.errors import KeysUnavailable
from services.identity.main import create_app
from services.identity.settings import Settings
from services.identity.signing import SealedKey, unseal
from tests.support.backing import Backing

PUBLIC = "http://lightbox.test"
OWN = {"Origin": PUBLIC}
PASSWORD = "correct horse battery"
BOOTSTRAP = "bootstrap-secret-of-the-tests"
# The same in each run, since the servers and the keys that it sealed may outlive a run.
SEALING_KEY = base64.b64encode(hashlib.sha256(b"lightbox tests").digest()).decode()


@dataclass(frozen=True)
class Identity:
    """A running service.

    Attributes:
        app: the application.
        settings: what it was made with.
        backing: the servers behind it.
    """

    app: FastAPI
    settings: Settings
    backing: Backing

    def browser(self, address: str = "192.0.2.1") -> httpx.AsyncClient:
        """A browser without cookies, at an address."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(self.app, client=(address, 50000)), base_url=self.settings.public_url
        )

    def verifier(self) -> TokenVerifier:
        """Another service's verifier, which fetches the published keys."""

        async def fetch() -> bytes:
            async with self.browser() as browser:
                return (await browser.get("/.well-known/jwks.json")).raise_for_status().content

        return TokenVerifier("", "lightbox", refetch_seconds=0, fetch=fetch)

    async def client_token(self, client_id: str, secret: str, **fields: str) -> httpx.Response:
        """The answer of the token endpoint."""
        data = {"grant_type": "client_credentials", "client_id": client_id, "client_secret": secret, **fields}
        async with self.browser() as browser:
            return await browser.post("/auth/token", data=data)

    async def operator(self) -> dict[str, str]:
        """The header of an operator."""
        answer = await self.client_token("system.cli", BOOTSTRAP)
        return {"Authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}

    async def call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> httpx.Response:
        """Calls the API, as an operator unless other headers are given."""
        async with self.browser() as browser:
            return await browser.request(
                method, f"/api/identity{path}", json=body, headers=headers or await self.operator()
            )

    async def add_user(
        self, tenant: str, name: str = "anna", roles: tuple[str, ...] = ("radiologist",), password: str = PASSWORD
    ) -> None:
        """Makes a user."""
        body = {"name": name, "display_name": name.title(), "roles": list(roles), "password": password}
        (await self.call("POST", f"/tenants/{tenant}/users", body)).raise_for_status()

    async def add_client(self, tenant: str, name: str = "edge-1", scopes: tuple[str, ...] = ("dicom:write",)) -> str:
        """Makes a client and returns its secret."""
        made = await self.call("POST", f"/tenants/{tenant}/clients", {"name": name, "scopes": list(scopes)})
        return str(made.raise_for_status().json()["client_secret"])

    async def log_in(
        self,
        browser: httpx.AsyncClient,
        tenant: str,
        name: str = "anna",
        password: str = PASSWORD,
        **fields: str,
    ) -> httpx.Response:
        """Sends the log-in form as a browser does."""
        return await browser.post(
            f"/auth/login/{tenant}", data={"name": name, "password": password, **fields}, headers=OWN
        )

    async def token_of(self, tenant: str, name: str = "anna") -> dict[str, str]:
        """The header of a logged-in user."""
        async with self.browser() as browser:
            assert (await self.log_in(browser, tenant, name)).status_code == 303
            return {"Authorization": f"Bearer {browser.cookies['lightbox_access']}"}

    async def sql(self, statement: str, *arguments: object, tenant: str = "system") -> list[Any]:
        """Runs a statement as the owner of the database, within a tenant."""
        url = self.backing.database_url("owner").replace("+asyncpg", "")
        connection = await asyncpg.connect(url)
        try:
            async with connection.transaction():
                await connection.execute("SELECT set_config('lightbox.tenant', $1, true)", tenant)
                return list(await connection.fetch(statement, *arguments))
        finally:
            await connection.close()

    async def events(self, topic: str, tenant: str, wanted: int, seconds: float = 10) -> list[bytes]:
        """The events of a tenant in a topic; waits until there are as many as wanted."""
        consumer = AIOKafkaConsumer(
            topic, bootstrap_servers=self.backing.kafka_bootstrap, auto_offset_reset="earliest", group_id=None
        )
        await consumer.start()
        found: list[bytes] = []
        try:
            deadline = asyncio.get_running_loop().time() + seconds
            while len(found) < wanted and asyncio.get_running_loop().time() < deadline:
                for batch in (await consumer.getmany(timeout_ms=200)).values():
                    found += [m.value for m in batch if f'"tenant":"{tenant}"'.encode() in m.value]
        finally:
            await consumer.stop()
        return found


@asynccontextmanager
async def running(
    backing: Backing, spool: Path, *, becomes_ready: bool = True, **settings: Any
) -> AsyncIterator[Identity]:
    """Runs the service, and waits until it is ready if it is to become so."""
    wanted: dict[str, Any] = {
        "database_url": backing.database_url("identity"),
        "kafka_bootstrap": backing.kafka_bootstrap,
        "public_url": PUBLIC,
        "spool_dir": spool,
        "key_encryption_key": SEALING_KEY,
        "bootstrap_secret": BOOTSTRAP,
        "hashing_rounds": 1,
        "hashing_memory_kib": 8 * 1024,
        **settings,
    }
    made = Settings(**wanted)
    app = create_app(made)
    async with app.router.lifespan_context(app):
        identity = Identity(app, made, backing)
        async with identity.browser() as browser:
            for _ in range(200 if becomes_ready else 0):
                if (await browser.get("/health/ready")).status_code == 200:
                    break
                await asyncio.sleep(0.05)
        yield identity


@pytest.fixture(scope="session")
async def identity(backing: Backing, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Identity]:
    """The service of this run."""
    url = backing.database_url("owner").replace("+asyncpg", "")
    connection = await asyncpg.connect(url)
    for row in await connection.fetch("SELECT id, sealed_key, signs_from FROM signing_keys"):
        try:
            unseal(SealedKey(row["id"], {}, row["sealed_key"], row["signs_from"]), base64.b64decode(SEALING_KEY))
        except KeysUnavailable:  # of another installation that used these servers
            await connection.execute("DELETE FROM signing_keys WHERE id = $1", row["id"])
    await connection.execute("DELETE FROM signing_keys WHERE signs_from > now()")
    await connection.close()
    async with running(backing, tmp_path_factory.mktemp("identity-spool")) as service:
        yield service

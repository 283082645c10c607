"""A gateway for tests: the real application in a real server, on a port of its own; and a line that can be cut."""

import asyncio
import errno
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from services.ingest_gateway.main import create_app
from services.ingest_gateway.settings import Settings
from tests.support.backing import Backing
from tests.support.tokens import TokenIssuer

PUBLIC_URL = "http://lightbox.test"


def settings_for(backing: Backing, issuer: TokenIssuer, spool: Path, **overrides: Any) -> Settings:
    """Settings that point at the servers of the test run."""
    values: dict[str, Any] = {
        "database_url": backing.database_url("ingest_gateway"),
        "kafka_bootstrap": backing.kafka_bootstrap,
        "s3_endpoint": backing.s3_endpoint,
        "s3_access_key": backing.s3_access_key,
        "s3_secret_key": backing.s3_secret_key,
        "jwks_url": issuer.jwks_url,
        "issuer": issuer.issuer,
        "public_url": PUBLIC_URL,
        "spool_dir": spool,
        "min_free": 0,
        "visible_timeout": 1,
        "rules_age": 0,
    }
    return Settings(**{**values, **overrides})


class Gateway:
    """A running gateway.

    Attributes:
        url: its address.
        port: its port on 127.0.0.1.
        settings: how it was started.
        app: the application, where it runs in this process.
    """

    def __init__(self, url: str, port: int, settings: Settings, issuer: TokenIssuer, app: Any = None) -> None:
        self.url = url
        self.port = port
        self.settings = settings
        self.app = app
        self._issuer = issuer

    def headers(
        self, tenant: str, subject: str = "client:edge-1", scopes: tuple[str, ...] = ("dicom:write",)
    ) -> dict[str, str]:
        """The Authorization header of a sender."""
        return self._issuer.header_for(tenant, scopes, subject)

    def leftovers(self) -> list[Path]:
        """What is in the spool."""
        return list((self.settings.spool_dir / "requests").glob("*"))

    async def post(
        self,
        tenant: str,
        body: Any,
        content_type: str,
        *,
        study: str = "",
        subject: str = "client:edge-1",
        headers: dict[str, str] | None = None,
        timeout: float = 60,
    ) -> httpx.Response:
        """One STOW-RS request."""
        path = f"/dicom-web/studies/{study}" if study else "/dicom-web/studies"
        sent = {**self.headers(tenant, subject), "Content-Type": content_type, **(headers or {})}
        async with httpx.AsyncClient(timeout=timeout, verify=False) as client:
            return await client.post(self.url + path, content=body, headers=sent)


@contextmanager
def running_gateway(settings: Settings, issuer: TokenIssuer) -> Iterator[Gateway]:
    """Serves the application until the end of the block."""
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    app = create_app(settings)
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=10, lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=_run, args=(server, listener), daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.started, "the gateway did not start"
    try:
        yield Gateway(f"http://127.0.0.1:{port}", port, settings, issuer, app)
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


def _run(server: uvicorn.Server, listener: socket.socket) -> None:
    try:
        server.run(sockets=[listener])
    except OSError as error:
        if error.errno != errno.EBUSY:  # uvloop does not close a loop with a handle that is still closing
            raise


async def eventually(check: Any, *, timeout: float = 10) -> None:
    """Waits until the check is true."""
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.05)

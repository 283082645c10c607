"""A gateway for tests: the real application in a real server, on a port of its own; and a line that can be cut."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
    """

    def __init__(self, url: str, port: int, settings: Settings, issuer: TokenIssuer) -> None:
        self.url = url
        self.port = port
        self.settings = settings
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
    config = uvicorn.Config(
        create_app(settings), log_config=None, access_log=False, timeout_graceful_shutdown=2, lifespan="on"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    deadline = time.monotonic() + 20
    while not server.started and thread.is_alive() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert server.started, "the gateway did not start"
    try:
        yield Gateway(f"http://127.0.0.1:{port}", port, settings, issuer)
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()


class Line:
    """A TCP line to a server that can be cut and mended.

    Attributes:
        port: where it listens; the port stays the same.
    """

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self._whole = True
        self._connections: set[socket.socket] = set()
        self._listener: socket.socket | None = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Refuses new connections and ends those that are open."""
        if self._listener is not None:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self._listener = None
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Takes connections again."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._thread = threading.Thread(target=self._accept, args=(self._listener,), daemon=True)
        self._thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            self._connections |= {near, far}
            for a, b in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(a, b), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            self._connections.discard(end)
            end.close()


async def eventually(check: Any, *, timeout: float = 10) -> None:
    """Waits until the check is true."""
    deadline = time.monotonic() + timeout
    while not check():
        assert time.monotonic() < deadline, "it did not come true in time"
        await asyncio.sleep(0.05)

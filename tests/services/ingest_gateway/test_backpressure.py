"""A server is away, or there and silent: each door says so in bounded time, and goes on by itself when it is back.

A modality that waits without end keeps its images to itself, and one that hears nothing of a retry gives up.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from services.ingest_gateway.settings import Settings
from tests.services.ingest_gateway.door import Pki, door_settings, register
from tests.services.ingest_gateway.gateway import Gateway, running_gateway
from tests.services.ingest_gateway.instances import TYPE, make_instance, multipart, new_uid
from tests.support.backing import Backing
from tests.support.dimse_tls import Sender
from tests.support.fault_proxy import FaultProxy, LineFault
from tests.support.tokens import TokenIssuer

pytestmark = pytest.mark.timeout(240)

STORE_TIMEOUT = 2.0
BOUND = 20.0
"""Seconds for any answer; the servers' time-outs are two seconds each, the rest is for a busy machine."""
FAULTS = [LineFault("cut"), LineFault("swallow")]
fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda one: one.kind)


class Doors:
    """Both doors of one gateway, with a sender at each."""

    def __init__(self, gateway: Gateway, scanner: Sender, tenant: str, folder: Path) -> None:
        self.gateway = gateway
        self._scanner = scanner
        self._tenant = tenant
        self._folder = folder

    async def stow(self) -> tuple[int, int]:
        """Status and Retry-After of a STOW-RS request."""
        answer = await self._bounded(self.gateway.post(self._tenant, multipart([make_instance()]), TYPE))
        return answer.status_code, int(answer.headers.get("retry-after", "0"))

    async def c_store(self) -> int:
        """The status of a C-STORE over TLS."""
        path = self._folder / f"{new_uid()}.dcm"
        path.write_bytes(make_instance())
        (status,) = await self._bounded(asyncio.to_thread(self._scanner.send, path))
        return int(status)

    async def take_images(self) -> None:
        """Both doors store again, by themselves, within the bound."""
        until = time.monotonic() + BOUND
        while (await self.stow())[0] != 200 or await self.c_store() != 0:
            assert time.monotonic() < until, "it does not go on by itself"
            await asyncio.sleep(0.2)

    async def _bounded(self, work: Any) -> Any:
        began = time.monotonic()
        answer = await work
        assert time.monotonic() - began < BOUND
        return answer


@pytest.fixture
def doors(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path
) -> Callable[..., tuple[Settings, Callable[[Gateway], Doors]]]:
    """Settings of a gateway with both doors, and what makes senders for it."""
    pki = Pki(tmp_path / "pki")
    credential = pki.client("scanner")
    called = register(backing, tenant, credential)

    def make(**overrides: Any) -> tuple[Settings, Callable[[Gateway], Doors]]:
        bounds = {"store_timeout": STORE_TIMEOUT, "publish_timeout": 2, "lookup_timeout": 2}
        settings = door_settings(backing, token_issuer, tmp_path / "spool", pki, **bounds, **overrides)
        scanner = Sender(pki.ca, settings.dimse_port or 0, called, credential)
        return settings, lambda gateway: Doors(gateway, scanner, tenant, tmp_path)

    return make


@fault
async def test_the_object_store(backing: Backing, token_issuer: TokenIssuer, doors: Any, fault: LineFault) -> None:
    line = FaultProxy(int(backing.s3_endpoint.rsplit(":", 1)[1]))
    settings, senders = doors(s3_endpoint=f"http://127.0.0.1:{line.port}")
    with running_gateway(settings, token_issuer) as gateway:
        both = senders(gateway)
        await both.take_images()
        line.inject(fault)
        status, retry_after = await both.stow()
        assert status == 503
        assert 0 < retry_after <= 60
        assert await both.c_store() == 0xA700
        line.mend()
        await both.take_images()
        assert gateway.leftovers() == []
    line.close()


@fault
async def test_the_event_log(backing: Backing, token_issuer: TokenIssuer, doors: Any, fault: LineFault) -> None:
    """What is stored and can't be announced is not acknowledged."""
    line = FaultProxy(int(backing.kafka_bootstrap.rsplit(":", 1)[1]))
    line.inject(fault)
    settings, senders = doors(kafka_bootstrap=f"127.0.0.1:{line.port}")
    with running_gateway(settings, token_issuer) as gateway:
        both = senders(gateway)
        status, retry_after = await both.stow()
        assert status == 503
        assert 0 < retry_after <= 60
        assert await both.c_store() == 0xA700
        line.mend()
        await both.take_images()
    line.close()


@fault
async def test_the_database(backing: Backing, token_issuer: TokenIssuer, doors: Any, fault: LineFault) -> None:
    """Storing goes on without it: the catalog catches up from the events."""
    line = FaultProxy(backing.postgres_port)
    url = backing.database_url("ingest_gateway").replace(f":{backing.postgres_port}/", f":{line.port}/")
    settings, senders = doors(database_url=url)
    with running_gateway(settings, token_issuer) as gateway:
        both = senders(gateway)
        await both.take_images()
        line.inject(fault)
        for _ in range(3):
            assert (await both.stow())[0] == 200
            assert await both.c_store() == 0
        line.mend()
        await both.take_images()
    line.close()

"""The whole service on real servers: killed in mid-work, and with servers that are away."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import orjson
import pytest
from aiokafka import AIOKafkaConsumer
from sqlalchemy import text

from deploy.local.ports import find_free
from libs.events import INSTANCES_STORED, STUDIES_CHANGED, Envelope, Producer, StudiesChanged
from libs.events.deadletters import read_dead_letters
from libs.events.outbox import relay_once
from libs.tenancy import tenant_transaction
from services.indexing.consumers import handle_events
from services.indexing.resources import Resources
from services.indexing.settings import Settings
from tests.services.indexing.conftest import Dump
from tests.services.indexing.packing import pack_of, store_pack
from tests.support.backing import Backing


class Service:
    """The service as a process of its own, which can be killed and started again."""

    def __init__(self, settings: Settings, log: Path) -> None:
        self.port = find_free(set())
        values = {**settings.model_dump(), "port": self.port, "max_batch": 4}
        named = {f"LIGHTBOX_INDEXING_{name.upper()}": str(value) for name, value in values.items()}
        self._environment = {**os.environ, **named}
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, **changes: str) -> None:
        """Starts it; ``changes`` replace environment variables."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "services", "indexing"],
                env={**self._environment, **changes},
                stdout=log,
                stderr=log,
            )

    def kill(self, how: signal.Signals = signal.SIGKILL) -> int:
        """Ends it and gives its exit code."""
        assert self._process is not None
        self._process.send_signal(how)
        return self._process.wait(30)

    async def answers(self, path: str, status: int) -> None:
        """Waits for this answer."""
        async with asyncio.timeout(40), httpx.AsyncClient() as client:
            while True:
                try:
                    if (await client.get(f"http://127.0.0.1:{self.port}{path}", timeout=15)).status_code == status:
                        return
                except httpx.HTTPError:
                    pass
                await asyncio.sleep(0.1)


@pytest.fixture
def service(settings: Settings, tmp_path: Path) -> Iterator[Service]:
    """The service, not started yet."""
    made = Service(settings, tmp_path / "indexing.log")
    yield made
    if made._process is not None and made._process.poll() is None:
        made.kill()


@pytest.fixture
async def producer(backing: Backing) -> AsyncIterator[Producer]:
    """A started producer."""
    made = Producer(backing.kafka_bootstrap, "test")
    await made.start()
    yield made
    await made.stop()


async def until(check: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    """Waits until the check holds."""
    async with asyncio.timeout(seconds):
        while True:
            if await check():
                return
            await asyncio.sleep(0.2)


async def test_killed_again_and_again_it_loses_and_doubles_nothing(
    backing: Backing,
    service: Service,
    resources: Resources,
    tenant_pair: tuple[str, str],
    dump: Dump,
    producer: Producer,
) -> None:
    """Every acknowledged image is in the catalog once, whatever happens to the process."""
    tenant, other = tenant_pair
    packs = [
        pack_of(f"1.{n % 5}", f"1.{n % 5}.{n % 2}", [f"1.{n % 5}.{n % 2}.{n + 1}{i}" for i in range(3)], n)
        for n in range(40)
    ]
    events = [await store_pack(resources.objects, tenant, pack) for pack in packs]
    poison = events[0].model_copy(update={"data": events[0].data.model_copy(update={"pack_key": "packs/none"})})

    async def complete() -> bool:
        return len((await dump(tenant))["instances"]) == 120

    async def begun() -> bool:
        return len((await dump(tenant))["instances"]) > 0

    service.start()
    await service.answers("/health/ready", 200)
    await producer.publish(INSTANCES_STORED, [*events[:20], poison, *events[20:]])
    await until(begun)
    for _ in range(2):
        service.kill()
        service.start()
        await asyncio.sleep(2.5)
    await until(complete)
    await producer.publish(INSTANCES_STORED, list(reversed(events)))
    found = await dump(tenant)

    async def poison_is_dead() -> bool:
        letters = await read_dead_letters(backing.kafka_bootstrap, INSTANCES_STORED, limit=1000)
        return str(poison.id).encode() in b"".join(letter.value for letter in letters if b"packs/none" in letter.value)

    await until(poison_is_dead)
    assert service.kill(signal.SIGTERM) in {0, -signal.SIGTERM}
    assert [s["instance_count"] for s in found["studies"]] == [24] * 5
    assert all(s["documented"] for s in found["series"])
    for pack in packs:
        await handle_events(resources, [await store_pack(resources.objects, other, pack)])
    expected = await dump(other)
    for table in ("studies", "series", "instances", "patients", "packs"):
        assert found[table] == expected[table]


async def test_it_starts_and_stays_without_its_servers(service: Service) -> None:
    """While Kafka and the database are away the service waits; it must not need somebody to start it again."""
    nowhere = "127.0.0.1:9"
    service.start(
        LIGHTBOX_INDEXING_KAFKA_BOOTSTRAP=nowhere,
        LIGHTBOX_INDEXING_DATABASE_URL=f"postgresql+asyncpg://u:p@{nowhere}/x",
        LIGHTBOX_INDEXING_S3_ENDPOINT=f"http://{nowhere}",
    )
    await service.answers("/health/live", 200)
    await service.answers("/health/ready", 503)
    assert service.kill(signal.SIGTERM) in {0, -signal.SIGTERM}


async def test_the_outbox_reaches_kafka_in_order_and_once(
    resources: Resources, tenant: str, producer: Producer, backing: Backing
) -> None:
    """The worklist is told of each change after it can be seen, and in order."""
    for number in range(5):
        pack = pack_of("1.2", f"1.2.{number}", [f"1.2.{number}.1"], number)
        await handle_events(resources, [await store_pack(resources.objects, tenant, pack)])
    while await relay_once(resources.engine, producer):
        pass
    assert await relay_once(resources.engine, producer) == 0
    async with tenant_transaction(resources.engine, tenant) as connection:
        assert (await connection.execute(text("SELECT 1 FROM outbox"))).all() == []
    assert [e.data.series_count for e in await told(backing, tenant, 5)] == [1, 2, 3, 4, 5]


async def told(backing: Backing, tenant: str, count: int) -> list[Envelope[StudiesChanged]]:
    """The tenant's ``studies.changed``."""
    consumer = AIOKafkaConsumer(
        STUDIES_CHANGED.name, bootstrap_servers=backing.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    found: list[Envelope[StudiesChanged]] = []
    try:
        async with asyncio.timeout(20):
            while len(found) < count:
                record = await consumer.getone()
                if orjson.loads(record.value)["tenant"] == tenant:
                    found.append(Envelope[StudiesChanged].model_validate_json(record.value))
    finally:
        await consumer.stop()
    return found

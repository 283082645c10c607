"""Live updates and the audit record, on real Kafka."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from aiokafka import AIOKafkaConsumer
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.auth import DICOM_READ
from libs.events import AUDIT_RECORDED, STUDIES_CHANGED, AuditRecorded, Producer, StudiesChanged, decode, envelope
from libs.web.problems import TooManyRequests, Unavailable
from services.portal.consumers import announce
from services.portal.live import MAX_PENDING, Change, Live
from tests.services.portal.catalog_rows import Study
from tests.services.portal.conftest import Reader, reading, serving, settings_for
from tests.support.backing import Backing
from tests.support.tokens import TokenIssuer


@asynccontextmanager
async def listening(reader: Reader) -> AsyncIterator[AsyncIterator[tuple[str, object]]]:
    """The events of a live stream, after the greeting."""
    async with reader.http.stream("GET", "/events", timeout=30) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        events = _events(answer)
        assert (await anext(events))[0] == "hello"
        yield events


async def _events(answer: httpx.Response) -> AsyncIterator[tuple[str, object]]:
    kind = ""
    async for line in answer.aiter_lines():
        if line.startswith("event: "):
            kind = line[7:]
        elif line.startswith("data: "):
            yield kind, json.loads(line[6:])


async def publish(backing: Backing, tenant: str, uid: str, *, kind: str = "created") -> None:
    producer = Producer(backing.kafka_bootstrap, "test")
    await producer.start()
    try:
        change = StudiesChanged.model_validate(
            {"study_uid": uid, "change": kind, "series_count": 1, "instance_count": 3}
        )
        await producer.publish(STUDIES_CHANGED, envelope(STUDIES_CHANGED, tenant, change))
    finally:
        await producer.stop()


async def test_a_new_study_is_told_to_its_own_clinic_only(backing: Backing, pair: tuple[Reader, Reader]) -> None:
    north, south = pair
    async with listening(north) as mine, listening(south) as theirs:
        await publish(backing, north.tenant, "1.2.3")
        await publish(backing, south.tenant, "4.5.6")
        async with asyncio.timeout(20):
            seen = await _changes(mine)
            assert [(c["study_uid"], c["change"], c["instance_count"]) for c in seen] == [("1.2.3", "created", 3)]
            assert [c["study_uid"] for c in await _changes(theirs)] == ["4.5.6"]


async def _changes(events: AsyncIterator[tuple[str, object]]) -> list[dict[str, object]]:
    """The next changes; a call to look for oneself, as after a reconnect to Kafka, may come before."""
    async for kind, data in events:
        if kind == "studies":
            assert isinstance(data, list)
            return data
    raise AssertionError("the stream ended")


async def test_a_clinic_cannot_take_all_connections(portal_url: str, pair: tuple[Reader, Reader]) -> None:
    north, south = pair
    async with listening(north), listening(north):
        refused = await north.http.get("/events")
        assert refused.status_code == 429
        async with listening(south):
            pass
    async with listening(north):
        pass


async def test_a_stream_ends_so_that_the_session_is_looked_at_again(
    backing: Backing, issuer: TokenIssuer, owner: AsyncEngine, tenant: str, tmp_path: Path
) -> None:
    settings = settings_for(backing, issuer, tmp_path, stream_seconds=0.5)
    async with (
        serving(settings) as url,
        reading(url, issuer, owner, tenant, DICOM_READ) as reader,
        asyncio.timeout(10),
        listening(reader) as events,
    ):
        assert [kind async for kind, _ in events if kind == "studies"] == []


async def test_while_the_database_is_away_pages_say_so_and_liveness_holds(
    backing: Backing, issuer: TokenIssuer, owner: AsyncEngine, tenant: str, tmp_path: Path
) -> None:
    away = "postgresql+asyncpg://portal:x@127.0.0.1:9/lightbox"
    settings = settings_for(backing, issuer, tmp_path, database_url=away, kafka_bootstrap="127.0.0.1:9")
    async with serving(settings) as url, reading(url, issuer, owner, tenant, DICOM_READ) as reader:
        page = await reader.page("/")
        assert page.status_code == 503
        assert "nothing that was acknowledged is lost" in page.text
        assert page.headers["retry-after"]
        assert (await reader.http.get("/health/live")).status_code == 200
        assert (await reader.http.get("/health/ready")).status_code == 503


async def test_each_look_is_recorded_once(backing: Backing, reader: Reader) -> None:
    study = Study("Doe^Jane", "P-77")
    await reader.add(study)
    started = time.time() * 1000
    await reader.page("/?q=doe")
    await reader.page(f"/studies/{study.uid}")
    await reader.page("/studies/9.9.9")
    consumer = AIOKafkaConsumer(
        AUDIT_RECORDED.name, bootstrap_servers=backing.kafka_bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    seen: list[AuditRecorded] = []
    try:
        async with asyncio.timeout(20):
            while len(seen) < 3:
                for records in (await consumer.getmany(timeout_ms=500)).values():
                    events = [decode(AUDIT_RECORDED, record.value) for record in records if record.timestamp >= started]
                    seen += [event.data for event in events if event.tenant == reader.tenant]
    finally:
        await consumer.stop()
    query, view, failed = seen
    assert (query.action, query.query, query.actor, query.outcome) == ("query", "q=doe", "user:anna", "success")
    assert (view.action, view.study_uid, view.patient_id) == ("view", study.uid, "P-77")
    assert (failed.action, failed.study_uid, failed.outcome) == ("view", "9.9.9", "minor-failure")


async def test_a_busy_study_is_one_message_and_stays_new() -> None:
    live = Live(per_tenant=1, total=1)
    async with live.stream("north") as stream:
        live.publish("north", Change("1.2", "created", 1, 1))
        live.publish("north", Change("1.2", "updated", 1, 9))
        assert await stream.take(1) == [Change("1.2", "created", 1, 9)]
        assert await stream.take(0.01) == []


async def test_what_waits_for_a_browser_is_bounded() -> None:
    live = Live(per_tenant=1, total=1)
    async with live.stream("north") as stream:
        for n in range(MAX_PENDING + 1):
            live.publish("north", Change(f"1.{n}", "updated", 1, 1))
        assert await stream.take(1) is None
        assert await stream.take(0.01) == []


async def test_connections_are_bounded_and_given_back() -> None:
    live = Live(per_tenant=1, total=2)
    async with live.stream("a"):
        with pytest.raises(TooManyRequests):
            async with live.stream("a"):
                pass
        async with live.stream("b"):
            with pytest.raises(Unavailable):
                async with live.stream("c"):
                    pass
    assert live.open_streams.total() == 0


async def test_a_stop_ends_all_streams() -> None:
    live = Live(per_tenant=1, total=1)
    async with live.stream("a") as stream:
        live.close()
        await stream.take(1)
        assert stream.is_closed


async def test_an_announcement_reaches_a_stream() -> None:
    live = Live(per_tenant=1, total=1)
    change = StudiesChanged(study_uid="1.2", change="updated", series_count=2, instance_count=4)
    async with live.stream("north") as stream:
        await announce(live, [envelope(STUDIES_CHANGED, "north", change), envelope(STUDIES_CHANGED, "south", change)])
        assert await stream.take(1) == [Change("1.2", "updated", 2, 4)]

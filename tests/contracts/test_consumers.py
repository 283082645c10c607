"""Every consumer handles every example of its topics, with the real stores that its handler needs."""

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from libs.events import (
    AUDIT_RECORDED,
    INSTANCES_STORED,
    STUDIES_CHANGED,
    TENANTS_CHANGED,
    TOPICS,
    Envelope,
    InstancesStored,
    Topic,
    decode,
)
from libs.events.schemas import examples_of
from libs.objects import ObjectStore
from libs.tenancy import create_engine
from services.audit.handlers import append_records, verify_chain
from services.indexing.consumers import handle_events
from services.indexing.resources import open_resources
from services.indexing.settings import Settings as IndexingSettings
from services.ingest_gateway.handlers import provision_tenant
from services.portal.consumers import announce
from services.portal.live import Live
from tests.services.indexing.packing import pack_of, store_pack
from tests.support.backing import Backing

Run = Callable[[Backing, str, list[Envelope[Any]]], Awaitable[None]]


async def index(backing: Backing, tenant: str, events: list[Envelope[InstancesStored]]) -> None:
    """An event of this topic is about a pack that lies in the bucket, so one is put there."""
    settings = IndexingSettings(
        database_url=backing.database_url("indexing"),
        s3_endpoint=backing.s3_endpoint,
        s3_access_key=backing.s3_access_key,
        s3_secret_key=backing.s3_secret_key,
    )
    async with open_resources(settings) as resources:
        real = []
        for event in events:
            study, series = event.data.study_uid, event.data.series_uid
            stored = await store_pack(resources.objects, tenant, pack_of(study, series, [f"{series}.1"]))
            place = stored.data.model_dump(include={"pack_key", "pack_size", "index_offset", "index_length"})
            real.append(event.model_copy(update={"data": event.data.model_copy(update=place)}))
        await handle_events(resources, real)


async def append(backing: Backing, tenant: str, events: list[Envelope[Any]]) -> None:
    """Appends to the audit record, which is whole afterwards."""
    engine = create_engine(backing.database_url("audit"))
    try:
        await append_records(engine, events)
        verdict = await verify_chain(engine, tenant)
        assert (verdict.records, verdict.broken_at) == (len(events), None)
    finally:
        await engine.dispose()


async def provision(backing: Backing, tenant: str, events: list[Envelope[Any]]) -> None:
    """Makes the tenant's bucket."""
    objects = ObjectStore(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key)
    for event in events:
        await provision_tenant(objects, event.tenant)
    assert tenant in await objects.tenants()
    await objects.close()


async def tell(_: Backing, tenant: str, events: list[Envelope[Any]]) -> None:
    """Tells browsers; none is connected."""
    assert all(event.tenant == tenant for event in events)
    await announce(Live(per_tenant=1, total=1), events)


CONSUMERS: dict[tuple[str, str], Run] = {
    (INSTANCES_STORED.name, "indexing"): index,
    (STUDIES_CHANGED.name, "portal"): tell,
    (TENANTS_CHANGED.name, "ingest_gateway"): provision,
    (AUDIT_RECORDED.name, "audit"): append,
}


def test_no_consumer_is_left_out() -> None:
    """A consumer that no example was tried on meets its first event in production."""
    assert set(CONSUMERS) == {(topic.name, service) for topic in TOPICS for service in topic.consumers}


CASES = [(topic, service) for topic in TOPICS for service in topic.consumers]


@pytest.mark.parametrize(("topic", "service"), CASES, ids=[f"{topic.name}-{service}" for topic, service in CASES])
async def test_every_consumer_handles_every_example(
    backing: Backing, tenant: str, topic: Topic[Any], service: str
) -> None:
    """What a producer may send must not end in the dead letters; handled twice it changes nothing."""
    events = [decode(topic, content).model_copy(update={"tenant": tenant}) for content in examples_of(topic).values()]
    for _ in range(2):
        await CONSUMERS[topic.name, service](backing, tenant, events)

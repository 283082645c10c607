"""Database, object store, Kafka: opened together, closed together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.events import Producer
from libs.objects import ObjectStore
from libs.tenancy import create_engine
from services.indexing.packreader import PackReader
from services.indexing.settings import Settings

SERVICE = "indexing"


@dataclass(frozen=True)
class Resources:
    """What the service works with.

    Attributes:
        engine: the catalog.
        objects: the object store.
        packs: reads what packs say of themselves.
        producer: publishes events; it connects when it is started.
        committed: set after each commit, so that the outbox is looked at.
        max_instances: instances after which a transaction is closed.
    """

    engine: AsyncEngine
    objects: ObjectStore
    packs: PackReader
    producer: Producer
    committed: asyncio.Event
    max_instances: int


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Opens everything; none of the servers need be there yet."""
    engine = create_engine(settings.database_url, application_name=SERVICE)
    objects = ObjectStore(
        settings.s3_endpoint,
        settings.s3_region,
        settings.s3_access_key,
        settings.s3_secret_key,
        settings.bucket_prefix,
    )
    producer = Producer(settings.kafka_bootstrap, SERVICE)
    try:
        yield Resources(
            engine=engine,
            objects=objects,
            packs=PackReader(objects, cache_bytes=settings.cache_bytes, at_once=settings.reads_at_once),
            producer=producer,
            committed=asyncio.Event(),
            max_instances=settings.max_instances,
        )
    finally:
        await producer.stop()
        await objects.close()
        await engine.dispose()

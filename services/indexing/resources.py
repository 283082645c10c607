"""Database, object store, Kafka: opened together, closed together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.events import Producer
from libs.objects import ObjectStore
from libs.servers import open_servers
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
    async with open_servers(
        SERVICE,
        database_url=settings.database_url,
        kafka_bootstrap=settings.kafka_bootstrap,
        s3_endpoint=settings.s3_endpoint,
        s3_region=settings.s3_region,
        s3_access_key=settings.s3_access_key,
        s3_secret_key=settings.s3_secret_key,
        bucket_prefix=settings.bucket_prefix,
    ) as servers:
        yield Resources(
            engine=servers.engine,
            objects=servers.objects,
            packs=PackReader(servers.objects, cache_bytes=settings.cache_bytes, at_once=settings.reads_at_once),
            producer=servers.producer,
            committed=asyncio.Event(),
            max_instances=settings.max_instances,
        )

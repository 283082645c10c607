"""The servers that most services work with: database, object store and Kafka, opened together and closed together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.events import Producer
from libs.objects import ObjectStore
from libs.tenancy import create_engine


@dataclass(frozen=True)
class Servers:
    """What a service reaches its servers by.

    Attributes:
        engine: the database.
        objects: the object store.
        producer: publishes events; it connects when it is started.
    """

    engine: AsyncEngine
    objects: ObjectStore
    producer: Producer


@asynccontextmanager
async def open_servers(
    service: str,
    *,
    database_url: str,
    kafka_bootstrap: str,
    s3_endpoint: str,
    s3_region: str,
    s3_access_key: str,
    s3_secret_key: str,
    bucket_prefix: str,
    pool_size: int = 5,
) -> AsyncIterator[Servers]:
    """Makes ready to reach all three; none of them need be there yet.

    Arguments:
        service: the name under which the servers see the caller.
        database_url: see ``create_engine``.
        kafka_bootstrap: see ``Producer``.
        s3_endpoint: address of the object store; this and the next four: see ``ObjectStore``.
        s3_region: its region.
        s3_access_key: access key id.
        s3_secret_key: secret access key.
        bucket_prefix: what all buckets of this installation begin with.
        pool_size: connections to the database that are kept.
    """
    engine = create_engine(database_url, pool_size=pool_size, application_name=service)
    objects = ObjectStore(s3_endpoint, s3_region, s3_access_key, s3_secret_key, bucket_prefix)
    producer = Producer(kafka_bootstrap, service)
    try:
        yield Servers(engine, objects, producer)
    finally:
        await producer.stop()
        await objects.close()
        await engine.dispose()

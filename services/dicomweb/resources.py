"""Catalog, object store, Kafka, worker processes and caches: opened together, closed together."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from libs.events import AuditTrail, Producer
from libs.objects import ObjectStore
from libs.servers import Servers, open_servers
from services.dicomweb.audit import SERVICE
from services.dicomweb.caches import Cache
from services.dicomweb.handlers_rendered import RenderedCache
from services.dicomweb.handlers_retrieve import Retrieving
from services.dicomweb.settings import Settings
from services.dicomweb.store import Store
from services.dicomweb.workers import Workers


@dataclass(frozen=True)
class Resources:
    """What the service works with.

    Attributes:
        store: the catalog and the objects, read.
        objects: the object store, for its health.
        producer: publishes audit records.
        audit: keeps audit records.
        retrieving: what retrieving works with.
        rendered: rendered images.
        base: the address under which the service is seen.
    """

    store: Store
    objects: ObjectStore
    producer: Producer
    audit: AuditTrail
    retrieving: Retrieving
    rendered: RenderedCache
    base: str


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Opens everything; none of the servers need be there yet."""
    workers = Workers(settings.worker_processes, seconds=settings.worker_seconds)
    base = f"{settings.public_url.rstrip('/')}/dicom-web"
    try:
        async with _servers(settings) as servers:
            await servers.producer.start()
            store = Store(
                servers.engine,
                servers.objects,
                index_cache=settings.index_cache,
                document_cache=settings.document_cache,
            )
            async with AuditTrail(servers.producer, SERVICE, settings.spool_dir / "audit") as audit:
                yield Resources(
                    store=store,
                    objects=servers.objects,
                    producer=servers.producer,
                    audit=audit,
                    retrieving=Retrieving(store, workers, base, settings.largest_transcode),
                    rendered=Cache(settings.rendered_cache, len),
                    base=base,
                )
    finally:
        await workers.close()


def _servers(settings: Settings) -> AbstractAsyncContextManager[Servers]:
    return open_servers(
        SERVICE,
        database_url=settings.database_url.get_secret_value(),
        kafka_bootstrap=settings.kafka_bootstrap,
        s3_endpoint=settings.s3_endpoint,
        s3_region=settings.s3_region,
        s3_access_key=settings.s3_access_key,
        s3_secret_key=settings.s3_secret_key.get_secret_value(),
        bucket_prefix=settings.bucket_prefix,
        pool_size=settings.pool_size,
    )

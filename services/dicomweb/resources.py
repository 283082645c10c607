"""Catalog, object store, Kafka, worker processes and caches: opened together, closed together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from libs.events import AuditTrail, Producer
from libs.objects import ObjectStore
from libs.tenancy import create_engine
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
    engine = create_engine(
        settings.database_url.get_secret_value(), pool_size=settings.pool_size, application_name=SERVICE
    )
    objects = ObjectStore(
        settings.s3_endpoint,
        settings.s3_region,
        settings.s3_access_key,
        settings.s3_secret_key.get_secret_value(),
        settings.bucket_prefix,
    )
    producer = Producer(settings.kafka_bootstrap, SERVICE)
    workers = Workers(settings.worker_processes, seconds=settings.worker_seconds)
    store = Store(engine, objects, index_cache=settings.index_cache, document_cache=settings.document_cache)
    base = f"{settings.public_url.rstrip('/')}/dicom-web"
    await producer.start()
    try:
        async with AuditTrail(producer, SERVICE, settings.spool_dir / "audit") as audit:
            yield Resources(
                store=store,
                objects=objects,
                producer=producer,
                audit=audit,
                retrieving=Retrieving(store, workers, base, settings.largest_transcode),
                rendered=Cache(settings.rendered_cache, len),
                base=base,
            )
    finally:
        await workers.close()
        await producer.stop()
        await objects.close()
        await engine.dispose()

"""Database, object store, Kafka, spool: opened together, closed together."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.events import AuditTrail, Producer
from libs.objects import ObjectStore
from libs.servers import Servers, open_servers
from services.ingest_gateway.admission import Admission
from services.ingest_gateway.domain import PackLimits
from services.ingest_gateway.earlier import EarlierInstances
from services.ingest_gateway.fairness import TURN_BYTES, Turns
from services.ingest_gateway.handlers import SERVICE, StoreLimits, Storing
from services.ingest_gateway.quarantine import Quarantine, QuarantineLimits
from services.ingest_gateway.rules import Pause, StoringRules
from services.ingest_gateway.settings import Settings
from services.ingest_gateway.spool import Spool

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Resources:
    """What the service works with.

    Attributes:
        engine: the catalog.
        objects: the object store.
        producer: publishes events.
        audit: keeps audit records.
        spool: temporary files.
        admission: bounds the requests under way.
        storing: what storing works with.
    """

    engine: AsyncEngine
    objects: ObjectStore
    producer: Producer
    audit: AuditTrail
    spool: Spool
    admission: Admission
    storing: Storing


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Opens everything; none of the servers need be there yet."""
    executor = ThreadPoolExecutor(settings.threads, thread_name_prefix="spool")
    spool = Spool(
        settings.spool_dir / "requests",
        min_free=settings.min_free,
        max_part=settings.max_part,
        executor=executor,
        turns=_shared("threads", settings.threads, settings),
    )
    left = await spool.run(spool.clear)
    if left:
        _log.info("removed what an earlier process left in the spool", requests=left)
    try:
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
            await servers.producer.start()
            async with AuditTrail(servers.producer, SERVICE, settings.spool_dir / "audit") as audit:
                yield Resources(
                    engine=servers.engine,
                    objects=servers.objects,
                    producer=servers.producer,
                    audit=audit,
                    spool=spool,
                    admission=_admission(settings),
                    storing=_storing(settings, servers, audit),
                )
    finally:
        executor.shutdown(wait=False, cancel_futures=True)


def _admission(settings: Settings) -> Admission:
    return Admission(
        at_once=settings.requests_at_once,
        per_tenant=settings.requests_per_tenant,
        waiting=settings.requests_waiting,
        timeout=settings.queue_timeout,
    )


def _storing(settings: Settings, servers: Servers, audit: AuditTrail) -> Storing:
    pause = Pause()
    timeout = settings.lookup_timeout
    return Storing(
        objects=servers.objects,
        producer=servers.producer,
        audit=audit,
        # Packs take long; one tenant never has all of these turns, so that another need not wait for a pack to end.
        uploads=Turns(
            "uploads", settings.uploads_at_once, per_tenant=max(1, settings.uploads_at_once * 3 // 4), strict=False
        ),
        blocks=_shared("blocks", settings.blocks_at_once, settings),
        limits=_limits(settings),
        rules=StoringRules(servers.engine, pause, timeout=timeout, max_age=settings.rules_age),
        earlier=EarlierInstances(servers.engine, servers.objects, pause, timeout=timeout),
        quarantine=Quarantine(
            servers.objects,
            QuarantineLimits(
                entries=settings.quarantine_entries,
                size=settings.quarantine_bytes,
                largest=settings.quarantine_largest,
                days=settings.quarantine_days,
                timeout=settings.store_timeout,
            ),
        ),
    )


def _shared(name: str, at_once: int, settings: Settings) -> Turns:
    """Turns at small pieces of work, where tenants that do little go before those that do much."""
    burst = settings.fair_burst / TURN_BYTES
    return Turns(
        name,
        at_once,
        burst=burst,
        apart=burst / 8,
        patience=settings.fair_patience,
        recent=settings.fair_recent,
    )


def _limits(settings: Settings) -> StoreLimits:
    return StoreLimits(
        pack=PackLimits(settings.pack_instances, settings.pack_bytes),
        uploads=settings.uploads_per_request,
        store_timeout=settings.store_timeout,
        publish_timeout=settings.publish_timeout,
        visible_timeout=settings.visible_timeout,
    )

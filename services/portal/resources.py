"""The database, Kafka and what follows from them, opened and closed together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.events import AuditTrail, Producer, in_background
from libs.tenancy import create_engine
from services.portal.consumers import follow_studies
from services.portal.live import Live
from services.portal.settings import Settings


@dataclass(frozen=True)
class Resources:
    """What the service works with."""

    engine: AsyncEngine
    trail: AuditTrail
    live: Live


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Opens everything; none of it has to be reachable yet."""
    engine = create_engine(settings.database_url, application_name="lightbox-portal")
    producer = Producer(settings.kafka_bootstrap, "portal")
    live = Live(per_tenant=settings.streams_per_tenant, total=settings.streams)
    await producer.start()
    try:
        async with (
            AuditTrail(producer, "portal", settings.spool_dir) as trail,
            in_background(lambda _: follow_studies(live, settings.kafka_bootstrap), "studies.changed"),
        ):
            try:
                yield Resources(engine, trail, live)
            finally:
                live.close()
    finally:
        await producer.stop()
        await engine.dispose()

"""The database, Kafka and what follows from them, opened and closed together."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.events import AuditTrail, Producer
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
    following = asyncio.create_task(follow_studies(live, settings.kafka_bootstrap), name="follow studies")
    try:
        async with AuditTrail(producer, "portal", settings.spool_dir) as trail:
            yield Resources(engine, trail, live)
    finally:
        live.close()
        following.cancel()
        with suppress(asyncio.CancelledError):
            await following
        await producer.stop()
        await engine.dispose()

"""Database and Kafka: opened together, closed together."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.events import AuditTrail, Producer
from libs.tenancy import create_engine
from services.audit.handlers import SERVICE
from services.audit.settings import Settings


@dataclass(frozen=True)
class Resources:
    """What the service works with.

    Attributes:
        engine: the database.
        producer: publishes events and dead letters.
        audit: records who reads the record.
    """

    engine: AsyncEngine
    producer: Producer
    audit: AuditTrail


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncIterator[Resources]:
    """Opens everything; none of the servers need be there yet."""
    engine = create_engine(settings.database_url, application_name=SERVICE)
    producer = Producer(settings.kafka_bootstrap, SERVICE)
    await producer.start()
    try:
        async with AuditTrail(producer, SERVICE, settings.spool_dir / "audit") as audit:
            yield Resources(engine, producer, audit)
    finally:
        await producer.stop()
        await engine.dispose()

"""Kafka message → handler → outcome."""

import asyncio

from libs.events import AUDIT_RECORDED, AuditRecorded, Envelope, consume
from services.audit import handlers
from services.audit.resources import Resources
from services.audit.settings import Settings


async def consume_records(resources: Resources, settings: Settings, stop: asyncio.Event) -> None:
    """Appends what ``audit.recorded`` brings, until told to stop."""

    async def handle(events: list[Envelope[AuditRecorded]]) -> None:
        await handlers.append_records(resources.engine, events)

    await consume(
        AUDIT_RECORDED,
        handlers.SERVICE,
        handle,
        bootstrap=settings.kafka_bootstrap,
        producer=resources.producer,
        max_batch=settings.max_batch,
        stop=stop,
    )

"""Kafka message → handler → outcome."""

import asyncio

from libs.events import TENANTS_CHANGED, Envelope, TenantsChanged, consume
from services.ingest_gateway import handlers
from services.ingest_gateway.resources import Resources


async def consume_tenants(resources: Resources, bootstrap: str, stop: asyncio.Event) -> None:
    """Makes the bucket of each tenant that appears in ``tenants.changed``, and has its rules read again.

    It goes on until told to stop.
    """

    async def handle(events: list[Envelope[TenantsChanged]]) -> None:
        for tenant in dict.fromkeys(event.tenant for event in events):
            resources.storing.rules.forget(tenant)
            await handlers.provision_tenant(resources.objects, tenant)

    await consume(
        TENANTS_CHANGED,
        handlers.SERVICE,
        handle,
        bootstrap=bootstrap,
        producer=resources.producer,
        stop=stop,
    )

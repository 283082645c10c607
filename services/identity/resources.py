"""What the service holds open while it runs."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.events import AuditTrail, Producer, Throttle, in_background, relay_outbox
from libs.tenancy import create_engine
from services.identity.passwords import Passwords
from services.identity.settings import Settings
from services.identity.signing import KeyHolder, TokenMaker


@dataclass(frozen=True)
class Resources:
    """Handed to each handler.

    Attributes:
        engine: PostgreSQL, as the role of this service.
        trail: the audit trail.
        passwords: password hashing.
        keys: the signing keys of this process.
        tokens: signs access tokens with them.
        outbox_filled: set after a commit that left an event in the outbox.
        noise: holds back audit records of refusals that only repeat.
    """

    engine: AsyncEngine
    trail: AuditTrail
    passwords: Passwords
    keys: KeyHolder
    tokens: TokenMaker
    outbox_filled: asyncio.Event = field(default_factory=asyncio.Event)
    noise: Throttle = field(default_factory=Throttle)


@asynccontextmanager
async def open_resources(settings: Settings, keys: KeyHolder) -> AsyncIterator[Resources]:
    """Opens everything; nothing here fails because a server is away."""
    engine = create_engine(settings.database_url, application_name="identity")
    producer = Producer(settings.kafka_bootstrap, "identity")
    passwords = await asyncio.to_thread(
        Passwords,
        threads=settings.hashing_threads,
        rounds=settings.hashing_rounds,
        memory_kib=settings.hashing_memory_kib,
    )
    await producer.start()
    try:
        async with AuditTrail(producer, "identity", settings.spool_dir) as trail:
            resources = Resources(
                engine=engine,
                trail=trail,
                passwords=passwords,
                keys=keys,
                tokens=TokenMaker(keys, settings.issuer, settings.access_seconds),
            )
            async with in_background(
                lambda _: relay_outbox(engine, producer, wake=resources.outbox_filled), "outbox relay"
            ):
                yield resources
    finally:
        await producer.stop()
        passwords.close()
        await engine.dispose()

"""Events that belong to a transaction: written with it, sent after it."""

import asyncio
from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.crash import crash_point
from libs.events.envelopes import encode
from libs.events.errors import EventsUnavailable
from libs.events.models import Envelope
from libs.events.producer import Message, Producer
from libs.events.topics import Topic

_BATCH = 500
_ADD = text(
    "INSERT INTO outbox (tenant_id, producer, topic, key, event) "
    "SELECT tenant, current_user, :topic, key, event "
    "FROM unnest(CAST(:tenants AS text[]), CAST(:keys AS bytea[]), CAST(:events AS bytea[])) "
    "WITH ORDINALITY AS added (tenant, key, event, place) ORDER BY place"
)
# One relay of a service at a time, so that the order is kept; the lock ends with the transaction.
_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtext('outbox'), hashtext(current_user))")
_NEXT = text(
    "SELECT tenant_id, id, topic, key, event FROM outbox WHERE producer = current_user ORDER BY id LIMIT :limit"
)
_SENT = text(
    "DELETE FROM outbox WHERE producer = current_user AND (tenant_id, id) IN "
    "(SELECT * FROM unnest(CAST(:tenants AS text[]), CAST(:ids AS bigint[])))"
)
_log = structlog.get_logger(__name__)


async def add_to_outbox(
    connection: AsyncConnection, topic: Topic[Any], events: Envelope[Any] | Sequence[Envelope[Any]]
) -> None:
    """Writes events with the transaction under way; they are published once it is committed, and only then.

    The events of one key are published in the order of their rows, provided that the transaction holds a lock that
    other writers of the same key wait for (the row of the study, say). The rows belong to the database role that is
    logged in, and its relay sends them.

    Arguments:
        connection: from ``tenant_transaction``; the events must be that tenant's.
        topic: their topic.
        events: one event or several.

    Raises:
        EventTooLarge: one is larger than allowed.
    """
    several = [events] if isinstance(events, Envelope) else events
    await connection.execute(
        _ADD,
        {
            "topic": topic.name,
            "tenants": [event.tenant for event in several],
            "keys": [topic.key_of(event) for event in several],
            "events": [encode(event) for event in several],
        },
    )


async def relay_outbox(
    engine: AsyncEngine,
    producer: Producer,
    *,
    interval: float = 0.5,
    wake: asyncio.Event | None = None,
) -> None:
    """Publishes what the role's transactions left in the outbox, in order, until it is cancelled.

    Arguments:
        engine: logged in as the role that wrote the events.
        producer: where they go.
        interval: seconds between two looks at an empty outbox.
        wake: set it after a commit to have the outbox looked at without delay.
    """
    delay = interval
    while True:
        try:
            sent = await relay_once(engine, producer)
        except (EventsUnavailable, SQLAlchemyError, OSError, TimeoutError) as error:
            _log.warning("the outbox can't be relayed; trying again", error=repr(error), seconds=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, 10)
            continue
        delay = interval
        if sent == _BATCH:
            continue
        await _pause(interval, wake)


async def relay_once(engine: AsyncEngine, producer: Producer) -> int:
    """Publishes one batch and removes its rows.

    A failure between the two leaves the rows, so an event may be sent twice, never lost.

    Returns:
        How many events were sent.

    Raises:
        EventsUnavailable: Kafka did not acknowledge; the rows are still there.
    """
    async with engine.begin() as connection:  # not tenant data: a relay sends all events of its role
        if not (await connection.execute(_LOCK)).scalar_one():
            return 0
        rows = (await connection.execute(_NEXT, {"limit": _BATCH})).all()
        if rows:
            crash_point("outbox.taken")
            await producer.send([Message(row.topic, row.key, row.event) for row in rows])
            crash_point("outbox.sent")
            await connection.execute(
                _SENT, {"tenants": [row.tenant_id for row in rows], "ids": [row.id for row in rows]}
            )
        return len(rows)


async def _pause(seconds: float, wake: asyncio.Event | None) -> None:
    if wake is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return
    wake.clear()

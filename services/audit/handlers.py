"""What can be done with the audit record: append, search, verify."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.crash import crash_point
from libs.events import AuditRecorded, Envelope
from libs.tenancy import tenant_transaction
from services.audit import store
from services.audit.domain import FIRST_PREVIOUS, Link, chain, first_broken, storable

SERVICE: Final = "audit"
_PAGE: Final = 1000


@dataclass(frozen=True)
class Verdict:
    """What a walk along a chain found.

    Attributes:
        records: how many were found whole.
        head: hash of the last of these, hexadecimal; note it elsewhere to notice a chain that was cut short.
        broken_at: sequence of the first record that is not what it was, or ``None``.
    """

    records: int
    head: str
    broken_at: int | None


async def append_records(engine: AsyncEngine, events: Iterable[Envelope[AuditRecorded]]) -> None:
    """Appends what is new to the chain of each tenant; an event that is there already changes nothing."""
    by_tenant: dict[str, dict[str, Envelope[AuditRecorded]]] = defaultdict(dict)
    for event in events:
        by_tenant[event.tenant].setdefault(str(event.id), event)
    for tenant, unique in sorted(by_tenant.items()):
        async with tenant_transaction(engine, tenant) as connection:
            last = await store.lock_chain(connection, tenant)
            known = await store.known_events(connection, tenant, [event.id for event in unique.values()])
            new = [
                (event.id, event.time, storable(event.data.model_dump(mode="json")))
                for event in unique.values()
                if event.id not in known
            ]
            if new:
                await store.append(connection, tenant, chain(tenant, new, last))
                crash_point("audit.appended")


async def search_records(engine: AsyncEngine, tenant: str, wanted: store.RecordFilter, limit: int) -> list[Link]:
    """The newest records of the tenant that match, at most ``limit``."""
    async with tenant_transaction(engine, tenant) as connection:
        return await store.search(connection, tenant, wanted, limit)


async def verify_chain(engine: AsyncEngine, tenant: str) -> Verdict:
    """Walks the tenant's chain from its beginning and computes every hash anew."""
    last = (0, FIRST_PREVIOUS)
    while True:
        async with tenant_transaction(engine, tenant) as connection:
            links = await store.walk(connection, tenant, last[0], _PAGE)
        if not links:
            return Verdict(last[0], last[1].hex(), None)
        broken = first_broken(tenant, links, last)
        if broken is not None:
            whole = [link for link in links if link.sequence < broken]
            head = whole[-1].hash if whole else last[1]
            return Verdict(broken - 1, head.hex(), broken)
        last = (links[-1].sequence, links[-1].hash)

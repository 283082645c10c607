"""The table ``audit_records``."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

import orjson
from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.audit.domain import FIRST_PREVIOUS, Link

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('audit ' || :tenant, 0))")
_LAST = text("SELECT sequence, hash FROM audit_records WHERE tenant_id = :tenant ORDER BY sequence DESC LIMIT 1")
_KNOWN = text(
    "SELECT event_id FROM audit_records WHERE tenant_id = :tenant AND event_id = ANY(CAST(:events AS uuid[]))"
)
_INSERT = text("""
    INSERT INTO audit_records (tenant_id, sequence, event_id, time, record, previous, hash)
    SELECT :tenant, u.sequence, u.event_id, u.time, u.record, u.previous, u.hash
    FROM unnest(CAST(:sequences AS bigint[]), CAST(:events AS uuid[]), CAST(:times AS timestamptz[]),
                CAST(:records AS jsonb[]), CAST(:previous AS bytea[]), CAST(:hashes AS bytea[]))
         AS u (sequence, event_id, time, record, previous, hash)
""")
_WALK = text("""
    SELECT sequence, event_id, time, record, previous, hash FROM audit_records
    WHERE tenant_id = :tenant AND sequence > :after ORDER BY sequence LIMIT :limit
""")
_SEARCH = """
    SELECT sequence, event_id, time, record, previous, hash FROM audit_records
    WHERE tenant_id = :tenant {conditions} ORDER BY sequence DESC LIMIT :limit
"""


@dataclass(frozen=True)
class RecordFilter:
    """What is looked for; ``None`` matches everything.

    Attributes:
        study: Study Instance UID.
        patient: Patient ID.
        actor: subject of the token, such as ``user:anna``.
        action: one of the actions of ``AuditRecorded``.
        since: not before this instant.
        until: before this instant.
        before: sequence numbers below this one: where the last page ended.
    """

    study: str | None = None
    patient: str | None = None
    actor: str | None = None
    action: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None


_CONDITIONS = {
    "study": "AND record ->> 'study_uid' = :study",
    "patient": "AND record ->> 'patient_id' = :patient",
    "actor": "AND record ->> 'actor' = :actor",
    "action": "AND record ->> 'action' = :action",
    "since": "AND time >= :since",
    "until": "AND time < :until",
    "before": "AND sequence < :before",
}


async def lock_chain(connection: AsyncConnection, tenant: str) -> tuple[int, bytes]:
    """Keeps others from appending until the transaction ends; gives sequence and hash of the chain's end."""
    await connection.execute(_LOCK, {"tenant": tenant})
    row = (await connection.execute(_LAST, {"tenant": tenant})).one_or_none()
    return (row.sequence, row.hash) if row else (0, FIRST_PREVIOUS)


async def known_events(connection: AsyncConnection, tenant: str, events: Sequence[UUID]) -> set[UUID]:
    """Which of the events are in the chain already."""
    rows = await connection.execute(_KNOWN, {"tenant": tenant, "events": list(events)})
    return set(rows.scalars())


async def append(connection: AsyncConnection, tenant: str, links: Sequence[Link]) -> None:
    """Writes links at the end of the chain, all in one statement."""
    await connection.execute(
        _INSERT,
        {
            "tenant": tenant,
            "sequences": [link.sequence for link in links],
            "events": [link.event_id for link in links],
            "times": [link.time for link in links],
            "records": [orjson.dumps(link.record).decode() for link in links],
            "previous": [link.previous for link in links],
            "hashes": [link.hash for link in links],
        },
    )


async def walk(connection: AsyncConnection, tenant: str, after: int, limit: int) -> list[Link]:
    """The links that follow a sequence number, in order."""
    rows = await connection.execute(_WALK, {"tenant": tenant, "after": after, "limit": limit})
    return [_link(row) for row in rows.mappings()]


async def search(connection: AsyncConnection, tenant: str, wanted: RecordFilter, limit: int) -> list[Link]:
    """The newest links that match."""
    given = {name: value for name, value in vars(wanted).items() if value is not None}
    statement = text(_SEARCH.format(conditions=" ".join(_CONDITIONS[name] for name in given)))
    rows = await connection.execute(statement, {"tenant": tenant, "limit": limit, **given})
    return [_link(row) for row in rows.mappings()]


def _link(row: RowMapping) -> Link:
    record: dict[str, Any] = row["record"] if isinstance(row["record"], dict) else orjson.loads(row["record"])
    return Link(row["sequence"], row["event_id"], row["time"], record, row["previous"], row["hash"])

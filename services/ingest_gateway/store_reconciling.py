"""How far reconciling is: one row for each tenant and direction, and the lock that lets one replica work on it."""

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

Direction = Literal["bucket", "catalog"]
"""From the bucket to the catalog (packs that it does not have), or the other way (packs that are not there)."""

_TENANT = "current_setting('lightbox.tenant')"
_LOCK = text(f"SELECT pg_try_advisory_xact_lock(hashtext('reconcile'), hashtext({_TENANT} || '/' || :direction))")
_READ = text(
    "SELECT position, checked, found, begun_at, finished_at, now() AS now FROM reconciliations "
    "WHERE direction = :direction"
)
_WRITE = text(f"""
INSERT INTO reconciliations (tenant_id, direction, position, checked, found, begun_at, finished_at)
VALUES ({_TENANT}, :direction, :position, :checked, :found, :begun_at, :finished_at)
ON CONFLICT (tenant_id, direction) DO UPDATE SET
    position = EXCLUDED.position, checked = EXCLUDED.checked, found = EXCLUDED.found,
    begun_at = EXCLUDED.begun_at, finished_at = EXCLUDED.finished_at
""")


@dataclass(frozen=True)
class Pass:
    """One walk over all packs of a tenant in one direction, done in slices.

    Attributes:
        position: where the next slice begins; empty at the beginning.
        checked: packs that were looked at.
        found: packs that were not as they should be.
        begun_at: when it began.
        finished_at: when it ended; None while it is under way.
    """

    position: str
    checked: int
    found: int
    begun_at: datetime
    finished_at: datetime | None = None


async def try_lock(connection: AsyncConnection, direction: Direction) -> bool:
    """Whether nobody else works on this tenant's direction; nobody will until the transaction ends."""
    return bool((await connection.execute(_LOCK, {"direction": direction})).scalar())


async def current_pass(connection: AsyncConnection, direction: Direction, pause: float) -> Pass | None:
    """The pass that is to be gone on with, or a new one; nothing while the last one ended less than ``pause`` ago.

    Arguments:
        connection: of the tenant's transaction, with the lock.
        direction: which way.
        pause: seconds between the end of a pass and the beginning of the next.
    """
    row = (await connection.execute(_READ, {"direction": direction})).one_or_none()
    if row is None:
        now: datetime = (await connection.execute(text("SELECT now()"))).scalar_one()
        return Pass("", 0, 0, now)
    if row.finished_at is None:
        return Pass(row.position, row.checked, row.found, row.begun_at)
    if (row.now - row.finished_at).total_seconds() < pause:
        return None
    return Pass("", 0, 0, row.now)


async def keep_pass(connection: AsyncConnection, direction: Direction, done: Pass, *, finished: bool) -> None:
    """Writes down how far a pass is."""
    now: datetime = (await connection.execute(text("SELECT now()"))).scalar_one()
    kept = replace(done, finished_at=now if finished else None)
    await connection.execute(
        _WRITE,
        {
            "direction": direction,
            "position": kept.position,
            "checked": kept.checked,
            "found": kept.found,
            "begun_at": kept.begun_at,
            "finished_at": kept.finished_at,
        },
    )

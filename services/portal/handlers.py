"""What a page needs, and the record that somebody saw it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from sqlalchemy.ext.asyncio import AsyncEngine

from libs.auth import Principal
from libs.catalog.queries import Cursor, SeriesRow, StudyRow
from libs.events import AuditRecorded, AuditTrail
from libs.web.problems import NotFound
from services.portal import store
from services.portal.domain import Search

SERVICE = "portal"


@dataclass(frozen=True)
class Caller:
    """Who asks, from where, for what."""

    principal: Principal
    address: str
    resource: str


@dataclass(frozen=True)
class Worklist:
    """One page of the worklist.

    Attributes:
        rows: the studies, the latest arrival first.
        next: the place after which the next page begins, if there is one.
    """

    rows: list[StudyRow]
    next: Cursor | None = None


@dataclass(frozen=True)
class StudyPage:
    """Everything that is known of a study."""

    study: StudyRow
    series: list[SeriesRow]
    priors: list[store.Prior] = field(default_factory=list)


async def list_studies(
    engine: AsyncEngine, trail: AuditTrail, caller: Caller, wanted: Search, *, before: Cursor | None, limit: int
) -> Worklist:
    """One page of the worklist, recorded as a query."""
    async with store.catalog(engine, caller.principal.tenant) as connection:
        rows = await store.search(connection, wanted, before=before, limit=limit + 1)
    page = Worklist(rows[:limit], rows[limit - 1].cursor("arrival") if len(rows) > limit else None)
    await _record_query(trail, caller, wanted.query_string, len(page.rows))
    return page


async def list_newer(
    engine: AsyncEngine, trail: AuditTrail, caller: Caller, wanted: Search, *, since: Cursor | None, limit: int
) -> list[StudyRow]:
    """The studies that arrived after a place in the worklist, recorded as a query when there are any."""
    async with store.catalog(engine, caller.principal.tenant) as connection:
        rows = await store.search(connection, wanted, before=None, limit=limit)
    if since is not None:
        rows = [row for row in rows if _place(row.cursor("arrival")) > _place(since)]
    if rows:
        await _record_query(trail, caller, wanted.query_string, len(rows))
    return rows


async def list_chosen(
    engine: AsyncEngine, trail: AuditTrail, caller: Caller, study_uids: Sequence[str]
) -> list[StudyRow]:
    """The current lines of studies that are on the screen already, recorded as a query."""
    async with store.catalog(engine, caller.principal.tenant) as connection:
        rows = await store.pick(connection, study_uids)
    if rows:
        await _record_query(trail, caller, "StudyInstanceUID=" + ",".join(study_uids), len(rows))
    return rows


async def show_study(engine: AsyncEngine, trail: AuditTrail, caller: Caller, study_uid: str) -> StudyPage:
    """A study with its series and the patient's other studies, recorded as a view.

    Raises:
        NotFound: there is no such study for this caller; the attempt is recorded too.
    """
    async with store.catalog(engine, caller.principal.tenant) as connection:
        found = await store.find(connection, study_uid)
        priors = await store.priors(connection, study_uid) if found else []
    record = _record(caller, "view").model_copy(update={"study_uid": study_uid})
    if found is None:
        absent = {"outcome": "minor-failure", "detail": "There is no such study."}
        await trail.record(caller.principal.tenant, record.model_copy(update=absent))
        raise NotFound("There is no such study.")
    study, series = found
    seen = {"patient_id": study.patient_id, "instance_count": study.instance_count}
    await trail.record(caller.principal.tenant, record.model_copy(update=seen))
    return StudyPage(study, series, priors)


async def record_refusal(trail: AuditTrail, caller: Caller, why: str) -> None:
    """Records that somebody was refused."""
    record = _record(caller, "refuse").model_copy(update={"outcome": "minor-failure", "detail": why})
    await trail.record(caller.principal.tenant, record)


async def _record_query(trail: AuditTrail, caller: Caller, query: str, count: int) -> None:
    record = _record(caller, "query").model_copy(update={"query": query[:2000], "instance_count": count})
    await trail.record(caller.principal.tenant, record)


def _record(caller: Caller, action: Literal["query", "view", "refuse"]) -> AuditRecorded:
    """What all records of this caller's request have in common."""
    return AuditRecorded(
        action=action,
        outcome="success",
        actor=caller.principal.subject,
        actor_name=caller.principal.name,
        service=SERVICE,
        address=caller.address,
        resource=caller.resource,
    )


def _place(cursor: Cursor) -> tuple[str, int]:
    """An order of cursors by arrival."""
    return (str(cursor.value.isoformat()) if cursor.value else "", cursor.key)

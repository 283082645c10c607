"""Reading the audit record: HTTP in and out."""

from datetime import datetime
from typing import Annotated, get_args
from uuid import UUID

from fastapi import APIRouter, Depends, Query, Request
from pydantic import AwareDatetime, BaseModel

from libs.auth import AUDIT_READ, Authenticated, Principal
from libs.events import AuditRecorded
from libs.events.models import Action
from libs.tenancy import SYSTEM_TENANT
from libs.web.problems import BadRequest, Problem
from services.audit import handlers
from services.audit.domain import Link
from services.audit.resources import Resources
from services.audit.store import RecordFilter


class Record(BaseModel):
    """One record and its place in the chain; hashes are hexadecimal."""

    sequence: int
    event_id: UUID
    time: datetime
    record: AuditRecorded
    previous: str
    hash: str


class Records(BaseModel):
    """A page of records, newest first.

    Attributes:
        next_before: pass it as ``before`` for the next page; ``None`` at the end.
    """

    records: list[Record]
    next_before: int | None


class Verification(BaseModel):
    """What a walk along the whole chain found."""

    intact: bool
    records: int
    head: str
    broken_at: int | None


def create_router(auth: Authenticated) -> APIRouter:
    """The routes below ``/api/audit``."""
    router = APIRouter(prefix="/api/audit", tags=["audit"])
    reader = Depends(auth.require(AUDIT_READ))

    @router.get("/records", summary="Search the audit record")
    async def search_records(
        request: Request,
        principal: Annotated[Principal, reader],
        study: Annotated[str | None, Query(max_length=64)] = None,
        patient: Annotated[str | None, Query(max_length=256)] = None,
        actor: Annotated[str | None, Query(max_length=256)] = None,
        action: Annotated[str | None, Query(max_length=16)] = None,
        since: Annotated[AwareDatetime | None, Query(alias="from")] = None,
        until: Annotated[AwareDatetime | None, Query(alias="to")] = None,
        before: Annotated[int | None, Query(ge=1, le=2**62)] = None,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    ) -> Records:
        if action is not None and action not in get_args(Action):
            raise BadRequest(f"action is one of: {', '.join(get_args(Action))}.")
        if any(value and "\0" in value for value in (study, patient, actor)):
            raise BadRequest("A filter can't contain U+0000.")
        wanted = RecordFilter(study, patient, actor, action, since, until, before)
        await _record(request, principal)
        links = await handlers.search_records(resources_of(request).engine, principal.tenant, wanted, limit)
        following = links[-1].sequence if len(links) == limit else None
        return Records(records=[_record_of(link) for link in links], next_before=following)

    @router.get("/verify", summary="Verify the hash chain")
    async def verify_chain(request: Request, principal: Annotated[Principal, reader]) -> Verification:
        await _record(request, principal)
        verdict = await handlers.verify_chain(resources_of(request).engine, principal.tenant)
        return Verification(
            intact=verdict.broken_at is None,
            records=verdict.records,
            head=verdict.head,
            broken_at=verdict.broken_at,
        )

    return router


def resources_of(request: Request) -> Resources:
    """What the lifespan opened."""
    resources: Resources = request.app.state.resources
    return resources


async def on_refusal(request: Request, principal: Principal | None, problem: Problem) -> None:
    """Records a caller who was not let in."""
    await resources_of(request).audit.record(
        principal.tenant if principal else SYSTEM_TENANT,
        AuditRecorded(
            action="refuse",
            outcome="minor-failure",
            actor=principal.subject if principal else "anonymous",
            actor_name=principal.name if principal else "",
            service=handlers.SERVICE,
            address=request.client.host if request.client else "",
            resource=f"{request.method} {request.url.path[:200]}",
            detail=f"{problem.status} {problem.title}",
        ),
    )


async def _record(request: Request, principal: Principal) -> None:
    await resources_of(request).audit.record(
        principal.tenant,
        AuditRecorded(
            action="query",
            outcome="success",
            actor=principal.subject,
            actor_name=principal.name,
            service=handlers.SERVICE,
            address=request.client.host if request.client else "",
            resource=f"{request.method} {request.url.path}",
            query=request.url.query[:1024],
        ),
    )


def _record_of(link: Link) -> Record:
    return Record(
        sequence=link.sequence,
        event_id=link.event_id,
        time=link.time,
        record=AuditRecorded.model_validate(link.record),
        previous=link.previous.hex(),
        hash=link.hash.hex(),
    )

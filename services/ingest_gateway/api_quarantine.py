"""The quarantine over HTTP: what was refused, for those who look after a tenant's data."""

from dataclasses import asdict
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from libs.auth import QUARANTINE_ADMIN, Authenticated, Principal
from services.ingest_gateway import handlers_decisions as decisions
from services.ingest_gateway.api import resources_of, sender_of
from services.ingest_gateway.quarantine import Entry

_Id = Annotated[str, Path(max_length=128, description="the SHA-256 of the bytes, in hexadecimal")]
# Neither comes in a body: a service that takes gigabytes must not read one into memory for a word.
_AsVersion = Annotated[
    bool, Query(description="where its UID is taken by other bytes, keep it as a version, whatever the policy")
]
_Why = Annotated[
    str, Query(min_length=3, max_length=500, pattern=r"^[^\x00]*\S[^\x00]*$", description="goes into the audit record")
]


class EntryView(BaseModel):
    """Something in quarantine: why it was refused, who sent it, when and by which door."""

    id: str = Field(description="the SHA-256 of the bytes, in hexadecimal")
    size: int
    received: datetime
    code: int = Field(description="the Failure Reason (0008,1197) that its sender was given")
    reason: str
    sender: str
    sender_name: str
    address: str
    door: str
    part: int
    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str

    @classmethod
    def of(cls, entry: Entry) -> "EntryView":
        """The entry as the API shows it."""
        return cls(**asdict(entry))


class Entries(BaseModel):
    """Some entries; ``next`` is the ``after`` of the following page, if there is one."""

    entries: list[EntryView]
    next: str | None
    total: int = Field(description="entries in all, as counted within the last half minute")
    total_bytes: int


class Released(BaseModel):
    """What was stored, and what to beware of."""

    sop_instance_uid: str
    study_uid: str
    series_uid: str
    warning: str


def create_quarantine_router(auth: Authenticated) -> APIRouter:
    """The routes below ``/api/ingest/quarantine``."""
    router = APIRouter(prefix="/api/ingest/quarantine", tags=["quarantine"])
    caretaker = Depends(auth.require(QUARANTINE_ADMIN))

    @router.get("", summary="List what is in quarantine")
    async def list_entries(
        request: Request,
        principal: Annotated[Principal, caretaker],
        after: Annotated[str, Query(pattern=r"^([0-9a-f]{64})?$", description="the last of the page before")] = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 200,
    ) -> Entries:
        storing = resources_of(request).storing
        found, usage = await decisions.list_entries(storing, sender_of(request, principal), after, limit)
        return Entries(
            entries=[EntryView.of(entry) for entry in found],
            next=found[-1].id if len(found) == limit else None,
            total=usage.entries,
            total_bytes=usage.size,
        )

    @router.get("/{entry}", summary="Show one entry")
    async def show_entry(request: Request, principal: Annotated[Principal, caretaker], entry: _Id) -> EntryView:
        storing = resources_of(request).storing
        return EntryView.of(await decisions.show_entry(storing, sender_of(request, principal), entry))

    @router.get("/{entry}/content", summary="Download its bytes, as they were received")
    async def download_entry(
        request: Request, principal: Annotated[Principal, caretaker], entry: _Id
    ) -> StreamingResponse:
        storing = resources_of(request).storing
        found, content = await decisions.download_entry(storing, sender_of(request, principal), entry)
        headers = {
            # Nobody knows what it is, so no program shall take it for something to be opened.
            "Content-Disposition": f'attachment; filename="{found.id[:16]}.bin"',
            "X-Content-Type-Options": "nosniff",
            "Content-Length": str(found.size),
            "Cache-Control": "private, no-store",
        }
        return StreamingResponse(content, media_type="application/octet-stream", headers=headers)

    @router.post("/{entry}/release", summary="Store it after all, by the present rules")
    async def release_entry(
        request: Request, principal: Annotated[Principal, caretaker], entry: _Id, as_version: _AsVersion = False
    ) -> Released:
        resources = resources_of(request)
        caller = sender_of(request, principal)
        outcome = await decisions.release_entry(
            resources.storing, resources.spool, caller, entry, as_version=as_version
        )
        return Released(
            sop_instance_uid=outcome.sop_instance_uid,
            study_uid=outcome.study_uid,
            series_uid=outcome.series_uid,
            warning=outcome.warning.words if outcome.warning else "",
        )

    @router.post("/{entry}/discard", status_code=204, summary="Remove it for good")
    async def discard_entry(
        request: Request, principal: Annotated[Principal, caretaker], entry: _Id, reason: _Why
    ) -> None:
        storing = resources_of(request).storing
        await decisions.discard_entry(storing, sender_of(request, principal), entry, reason.strip())

    return router

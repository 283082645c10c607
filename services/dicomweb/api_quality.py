"""What a quality check looks at: versions of an instance, duplicates that differ, instances that are odd."""

import re
from dataclasses import asdict
from datetime import datetime
from typing import Annotated, Final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, Field

from libs.auth import Principal
from libs.catalog.versions import Version
from services.dicomweb.api import Read, answer, begin, begin_target, if_none_match, make_router, resources_of
from services.dicomweb.audit import AuditedRoute
from services.dicomweb.domain import Target
from services.dicomweb.errors import NoSuchResource
from services.dicomweb.handlers_retrieve import retrieve_version

_HASH: Final = r"[0-9a-f]{64}"
_Study = Annotated[str, Query(pattern=r"^([0-9]+(\.[0-9]+)*)?$", max_length=64, description="only of this study")]
_Limit = Annotated[int, Query(ge=1, le=1000)]


class VersionView(BaseModel):
    """One of several instances with the same SOP Instance UID."""

    sha256: str
    shown: bool = Field(description="whether it is the one that searches and retrievals give")
    stored: datetime
    size: int
    study_uid: str
    series_uid: str

    @classmethod
    def of(cls, version: Version) -> "VersionView":
        """The version as the API shows it."""
        row = version.row
        return cls(
            sha256=row.sha256.hex(),
            shown=version.shown,
            stored=version.stored,
            size=row.byte_length,
            study_uid=row.study_uid,
            series_uid=row.series_uid,
        )


class Versions(BaseModel):
    """All that is kept under a SOP Instance UID, in the order of arrival."""

    sop_instance_uid: str
    versions: list[VersionView]


class Duplicate(BaseModel):
    """A version that is kept beside the instance that is shown under the same SOP Instance UID."""

    sop_uid: str
    sha256: str
    size: int
    stored: datetime
    study_uid: str
    series_uid: str
    shown: str = Field(description="the SHA-256 of the instance that is shown")
    shown_study: str
    shown_series: str


class Duplicates(BaseModel):
    """Some duplicates; ``next`` is the ``after`` of the following page, if there is one."""

    duplicates: list[Duplicate]
    next: str | None


class Odd(BaseModel):
    """An instance that was stored although something is wrong with it."""

    sop_uid: str
    study_uid: str
    series_uid: str
    warnings: list[str]


class OddInstances(BaseModel):
    """Some odd instances; ``next`` is the ``after`` of the following page, if there is one."""

    instances: list[Odd]
    next: str | None


def version_routes(read: Read) -> APIRouter:
    """The versions of an instance. They are beside the standard: WADO-RS knows one instance of a UID."""
    router = make_router("Versions")
    caller = Depends(read)
    place = "/studies/{study}/series/{series}/instances/{instance}/versions"

    @router.get(place, summary="List all that is kept under a SOP Instance UID")
    async def versions(
        request: Request, principal: Annotated[Principal, caller], study: str, series: str, instance: str
    ) -> Versions:
        operation, _ = begin_target(request, principal, study, series, instance)
        found = await resources_of(request).store.list_versions(operation.tenant, study, series, instance)
        operation.patient_id, operation.instance_count = found[0].row.patient_id, len(found)
        return Versions(sop_instance_uid=instance, versions=[VersionView.of(version) for version in found])

    @router.get(place + "/{sha256}", summary="Retrieve one of them, as it was received", response_class=Response)
    async def one_version(
        request: Request,
        principal: Annotated[Principal, caller],
        *,
        study: str,
        series: str,
        instance: str,
        sha256: str,
    ) -> Response:
        operation, target = begin_target(request, principal, study, series, instance)
        if not re.fullmatch(_HASH, sha256):
            raise NoSuchResource
        retrieving = resources_of(request).retrieving
        return answer(await retrieve_version(retrieving, operation, target, sha256, if_none_match(request)))

    return router


def quality_routes(read: Read) -> APIRouter:
    """Lists for whoever checks the quality of what was stored."""
    router = APIRouter(prefix="/api/quality", tags=["quality"], route_class=AuditedRoute)
    caller = Depends(read)

    @router.get("/duplicates", summary="List versions that are kept beside other bytes")
    async def duplicates(
        request: Request,
        principal: Annotated[Principal, caller],
        study: _Study = "",
        after: Annotated[str, Query(pattern=rf"^([0-9.]{{1,64}}/{_HASH})?$")] = "",
        limit: _Limit = 200,
    ) -> Duplicates:
        operation = begin(request, principal, Target(study) if study else None)
        operation.action = "query"
        uid, _, sha256 = after.partition("/")
        rows = await resources_of(request).store.list_differing(operation.tenant, study, (uid, sha256), limit)
        operation.instance_count = len(rows)
        return Duplicates(
            duplicates=[Duplicate(**asdict(row)) for row in rows],
            next=f"{rows[-1].sop_uid}/{rows[-1].sha256}" if len(rows) == limit else None,
        )

    @router.get("/warnings", summary="List instances that were stored with a warning")
    async def warnings(
        request: Request,
        principal: Annotated[Principal, caller],
        study: _Study = "",
        after: Annotated[str, Query(pattern=r"^[0-9.]{0,64}$")] = "",
        limit: _Limit = 200,
    ) -> OddInstances:
        operation = begin(request, principal, Target(study) if study else None)
        operation.action = "query"
        rows = await resources_of(request).store.list_odd(operation.tenant, study, after, limit)
        operation.instance_count = len(rows)
        return OddInstances(
            instances=[Odd(**asdict(row)) for row in rows],
            next=rows[-1].sop_uid if len(rows) == limit else None,
        )

    return router

"""WADO-RS metadata (PS3.18 section 10.4.1.1.2)."""

import re
from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from libs.auth import Principal
from services.dicomweb.api import (
    Read,
    acceptable_of,
    answer,
    begin_target,
    if_none_match,
    make_router,
    resources_of,
)
from services.dicomweb.handlers_metadata import retrieve_metadata


def takes_gzip(header: str) -> bool:
    """Whether an ``Accept-Encoding`` header allows gzip (RFC 9110 section 12.5.3)."""
    allowed = {}
    for part in header.lower().split(","):
        matched = re.fullmatch(r"\s*([a-z0-9*-]+)\s*(?:;\s*q=([0-9.]{1,5}))?\s*", part)
        if matched:
            allowed[matched[1]] = matched[2] is None or matched[2].strip("0.") != ""
    return allowed.get("gzip", allowed.get("x-gzip", allowed.get("*", False)))


async def _answer(
    request: Request, principal: Principal, study: str, series: str | None = None, instance: str | None = None
) -> Response:
    operation, target = begin_target(request, principal, study, series, instance)
    content = await retrieve_metadata(
        resources_of(request).store,
        operation,
        target,
        acceptable_of(request),
        takes_gzip=takes_gzip(request.headers.get("accept-encoding", "")),
        if_none_match=if_none_match(request),
    )
    return answer(content)


def metadata_routes(read: Read) -> APIRouter:
    """The routes of metadata."""
    router = make_router("Metadata (WADO-RS)")
    caller = Depends(read)

    @router.get("/studies/{study}/metadata", summary="Metadata of a study")
    async def study_metadata(request: Request, principal: Annotated[Principal, caller], study: str) -> Response:
        return await _answer(request, principal, study)

    @router.get("/studies/{study}/series/{series}/metadata", summary="Metadata of a series")
    async def series_metadata(
        request: Request, principal: Annotated[Principal, caller], study: str, series: str
    ) -> Response:
        return await _answer(request, principal, study, series)

    @router.get("/studies/{study}/series/{series}/instances/{instance}/metadata", summary="Metadata of an instance")
    async def instance_metadata(
        request: Request, principal: Annotated[Principal, caller], study: str, series: str, instance: str
    ) -> Response:
        return await _answer(request, principal, study, series, instance)

    return router

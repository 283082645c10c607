"""WADO-RS: instances, frames and bulk data (PS3.18 section 10.4)."""

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
from services.dicomweb.handlers_frames import read_frame_list, retrieve_bulkdata, retrieve_frames
from services.dicomweb.handlers_retrieve import retrieve_instance, retrieve_instances


async def _many(request: Request, principal: Principal, study: str, series: str | None = None) -> Response:
    operation, target = begin_target(request, principal, study, series)
    tiers = acceptable_of(request, dicom=True)
    return answer(await retrieve_instances(resources_of(request).retrieving, operation, target, tiers))


def retrieve_routes(read: Read) -> APIRouter:
    """The routes of retrieving."""
    router = make_router("Retrieve (WADO-RS)")
    caller = Depends(read)
    place = "/studies/{study}/series/{series}/instances/{instance}"

    @router.get("/studies/{study}", summary="Retrieve a study")
    async def study_instances(request: Request, principal: Annotated[Principal, caller], study: str) -> Response:
        return await _many(request, principal, study)

    @router.get("/studies/{study}/series/{series}", summary="Retrieve a series")
    async def series_instances(
        request: Request, principal: Annotated[Principal, caller], study: str, series: str
    ) -> Response:
        return await _many(request, principal, study, series)

    @router.get(place, summary="Retrieve an instance")
    async def one_instance(
        request: Request, principal: Annotated[Principal, caller], study: str, series: str, instance: str
    ) -> Response:
        operation, target = begin_target(request, principal, study, series, instance)
        tiers = acceptable_of(request, dicom=True)
        retrieving = resources_of(request).retrieving
        return answer(await retrieve_instance(retrieving, operation, target, tiers, if_none_match(request)))

    @router.get(place + "/frames/{frames}", summary="Retrieve frames")
    async def some_frames(
        request: Request,
        principal: Annotated[Principal, caller],
        *,
        study: str,
        series: str,
        instance: str,
        frames: str,
    ) -> Response:
        operation, target = begin_target(request, principal, study, series, instance)
        retrieving, tiers = resources_of(request).retrieving, acceptable_of(request)
        numbers = read_frame_list(frames)
        content = await retrieve_frames(
            retrieving, operation, target, numbers, tiers=tiers, if_none_match=if_none_match(request)
        )
        return answer(content)

    @router.get(place + "/bulkdata/{path:path}", summary="Retrieve the value of an element")
    async def bulkdata(
        request: Request, principal: Annotated[Principal, caller], *, study: str, series: str, instance: str, path: str
    ) -> Response:
        operation, target = begin_target(request, principal, study, series, instance)
        retrieving, tiers = resources_of(request).retrieving, acceptable_of(request)
        content = await retrieve_bulkdata(
            retrieving,
            operation,
            target,
            path,
            tiers=tiers,
            byte_range=request.headers.get("range"),
            if_none_match=if_none_match(request),
        )
        return answer(content)

    return router

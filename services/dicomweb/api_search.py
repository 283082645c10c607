"""QIDO-RS (PS3.18 section 10.6).

No match is 204, as is a page past the end. Results come newest study first, 100 unless ``limit`` says otherwise, 1000
at most; when there are more, a ``Warning`` says how many. ``PatientName`` is matched whatever the case and in any of
its component groups; a search without ``*`` and ``?`` is for the whole value.
"""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from libs.auth import Principal
from services.dicomweb.api import Read, acceptable_of, begin, make_router, resources_of
from services.dicomweb.domain import Target
from services.dicomweb.handlers_search import search
from services.dicomweb.negotiate import choose_json
from services.dicomweb.parameters import Level, read_search


async def _answer(
    request: Request, principal: Principal, level: Level, study: str | None = None, series: str | None = None
) -> Response:
    operation = begin(request, principal)
    operation.action = "query"
    if study is not None:
        begin(request, principal, Target(study, series))
    media_type = choose_json(acceptable_of(request))
    wanted = read_search(request.query_params.multi_items(), level, study, series)
    resources = resources_of(request)
    found = await search(
        resources.store, operation, resources.base, wanted, level, study=study is not None, series=series is not None
    )
    response = Response(found.body, 200 if found.count else 204)
    if found.count:
        response.headers["Content-Type"] = media_type
    for text in found.warnings:
        response.headers.append("Warning", f"299 {resources.base}: {text}")
    return response


def search_routes(read: Read) -> APIRouter:
    """The routes of searching."""
    router = make_router("Search (QIDO-RS)")
    caller = Depends(read)

    @router.get("/studies", summary="Search for studies")
    async def search_studies(request: Request, principal: Annotated[Principal, caller]) -> Response:
        return await _answer(request, principal, "study")

    @router.get("/series", summary="Search for series of all studies")
    async def search_series(request: Request, principal: Annotated[Principal, caller]) -> Response:
        return await _answer(request, principal, "series")

    @router.get("/instances", summary="Search for instances of all studies")
    async def search_instances(request: Request, principal: Annotated[Principal, caller]) -> Response:
        return await _answer(request, principal, "instance")

    @router.get("/studies/{study}/series", summary="Search for series of a study")
    async def search_study_series(request: Request, principal: Annotated[Principal, caller], study: str) -> Response:
        return await _answer(request, principal, "series", study)

    @router.get("/studies/{study}/instances", summary="Search for instances of a study")
    async def search_study_instances(request: Request, principal: Annotated[Principal, caller], study: str) -> Response:
        return await _answer(request, principal, "instance", study)

    @router.get("/studies/{study}/series/{series}/instances", summary="Search for instances of a series")
    async def search_series_instances(
        request: Request, principal: Annotated[Principal, caller], study: str, series: str
    ) -> Response:
        return await _answer(request, principal, "instance", study, series)

    return router

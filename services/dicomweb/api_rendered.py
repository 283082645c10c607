"""WADO-RS: rendered images and thumbnails (PS3.18 sections 10.4.1.1.3 and 10.4.1.1.4).

Always one JPEG. A series or a study is shown by the middle instance of its first series that has images, an instance of
several frames by the frame that it names as representative, else the middle one.
"""

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
from services.dicomweb.handlers_frames import read_frame_list
from services.dicomweb.handlers_rendered import read_rendering, retrieve_rendered

_LEVELS = (
    ("/studies/{study}", "a study"),
    ("/studies/{study}/series/{series}", "a series"),
    ("/studies/{study}/series/{series}/instances/{instance}", "an instance"),
    ("/studies/{study}/series/{series}/instances/{instance}/frames/{frames}", "a frame"),
)


async def _answer(request: Request, principal: Principal, *, thumbnail: bool) -> Response:
    path, query = request.path_params, request.query_params
    operation, target = begin_target(request, principal, path["study"], path.get("series"), path.get("instance"))
    frames = read_frame_list(path["frames"]) if "frames" in path else None
    rendering = read_rendering(query.get("viewport"), query.get("window"), query.get("quality"), thumbnail=thumbnail)
    resources = resources_of(request)
    content = await retrieve_rendered(
        resources.retrieving,
        resources.rendered,
        operation,
        target,
        frames=frames,
        rendering=rendering,
        tiers=acceptable_of(request),
        if_none_match=if_none_match(request),
    )
    return answer(content)


def rendered_routes(read: Read) -> APIRouter:
    """The routes of rendered images."""
    router = make_router("Rendered (WADO-RS)")
    caller = Depends(read)

    async def rendered(request: Request, principal: Annotated[Principal, caller]) -> Response:
        return await _answer(request, principal, thumbnail=False)

    async def thumbnail(request: Request, principal: Annotated[Principal, caller]) -> Response:
        return await _answer(request, principal, thumbnail=True)

    for path, what in _LEVELS:
        named = what.replace(" ", "_")
        router.add_api_route(f"{path}/rendered", rendered, summary=f"Render {what}", operation_id=f"render_{named}")
        router.add_api_route(
            f"{path}/thumbnail", thumbnail, summary=f"A thumbnail of {what}", operation_id=f"thumbnail_{named}"
        )
    return router

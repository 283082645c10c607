"""Static files and the API documentation, over HTTP."""

from typing import Final

from fastapi import APIRouter, Request
from fastapi.responses import Response

from libs.web.problems import NotFound
from services.portal.pages import DOCS_POLICY, Assets, Pages

SERVICES: Final = ("identity", "ingest_gateway", "dicomweb", "audit", "portal")
"""The services whose OpenAPI documents the front door hands out under ``/api/openapi/``."""


def make_static_router(assets: Assets, pages: Pages) -> APIRouter:
    """The routes of what is the same for everybody."""
    router = APIRouter(include_in_schema=False)

    @router.get("/static/{address:path}")
    async def static(request: Request, address: str) -> Response:
        asset = assets.find(address)
        if asset is None:
            raise NotFound("There is no such file.")
        headers = {"Cache-Control": "public, max-age=31536000, immutable", "Vary": "Accept-Encoding"}
        if "gzip" in request.headers.get("accept-encoding", ""):
            headers["Content-Encoding"] = "gzip"
            return Response(asset.compressed, media_type=asset.media_type, headers=headers)
        return Response(asset.content, media_type=asset.media_type, headers=headers)

    @router.get("/api/docs")
    async def docs(request: Request) -> Response:
        answer = pages.page(request, "docs.html", None, services=SERVICES)
        answer.headers["Content-Security-Policy"] = DOCS_POLICY
        return answer

    return router

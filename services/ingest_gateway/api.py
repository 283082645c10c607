"""STOW-RS (PS3.18 section 10.5): HTTP in and out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Request, Response

from libs.auth import DICOM_WRITE, Authenticated, Principal
from libs.dicom import is_uid
from libs.tenancy import SYSTEM_TENANT
from libs.web.problems import BadRequest, Problem, TooLarge
from services.ingest_gateway import handlers
from services.ingest_gateway.answer import status_of, store_response
from services.ingest_gateway.body import receive_multipart, receive_single, steady
from services.ingest_gateway.domain import Sender
from services.ingest_gateway.errors import NotDurable
from services.ingest_gateway.inflate import inflated
from services.ingest_gateway.metadata import MetadataLimits, make_instances, receive_metadata
from services.ingest_gateway.multipart import InvalidMultipart, MultipartReader, TooManyParts
from services.ingest_gateway.negotiation import ANSWER_TYPE, Body, declared_size, understand
from services.ingest_gateway.resources import Resources
from services.ingest_gateway.settings import Settings
from services.ingest_gateway.spool import RequestSpool

_BODY: Final = {"schema": {"type": "string", "format": "binary"}}
_DESCRIPTION: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": (
            'One Part 10 file; or several as the parts of multipart/related; type="application/dicom"; or '
            'multipart/related; type="application/dicom+json": a part of DICOM JSON that describes instances, and a '
            "part for each BulkDataURI, which its Content-Location repeats. Compressed Pixel Data comes one frame a "
            "part. All of it may be compressed with Content-Encoding: gzip."
        ),
        "content": {"multipart/related": _BODY, "application/dicom": _BODY},
    },
    "responses": {
        "200": {"description": "All instances are stored.", "content": {ANSWER_TYPE: {}}},
        "202": {
            "description": "Some are stored; the answer says which failed, were warned of or changed, and why.",
            "content": {ANSWER_TYPE: {}},
        },
        "400": {"description": "The body can't be understood."},
        "406": {"description": "The answer can be had as application/dicom+json only."},
        "408": {"description": "The body came too slowly."},
        "409": {
            "description": "None is stored; the answer says why, one by one.",
            "content": {ANSWER_TYPE: {}},
        },
        "413": {"description": "The body, what it inflates to or the number of its parts is too large."},
        "415": {"description": "The body has a type or an encoding that is not taken, such as application/dicom+xml."},
        "503": {"description": "Nothing is stored; send it again after the seconds in Retry-After."},
    },
}


def create_router(auth: Authenticated, settings: Settings) -> APIRouter:
    """The two routes of the Store transaction."""
    router = APIRouter(tags=["STOW-RS"])
    allowed = auth.require(DICOM_WRITE)

    @router.post("/dicom-web/studies", summary="Store instances", response_class=Response, openapi_extra=_DESCRIPTION)
    async def store(request: Request, principal: Annotated[Principal, Depends(allowed)]) -> Response:
        return await _store(request, principal, None, settings)

    @router.post(
        "/dicom-web/studies/{study}",
        summary="Store instances of one study",
        response_class=Response,
        openapi_extra=_DESCRIPTION,
    )
    async def store_in_study(
        request: Request, study: str, principal: Annotated[Principal, Depends(allowed)]
    ) -> Response:
        return await _store(request, principal, study, settings)

    return router


def resources_of(request: Request) -> Resources:
    """What the lifespan opened."""
    resources: Resources = request.app.state.resources
    return resources


def sender_of(request: Request, principal: Principal | None) -> Sender:
    """Who sends; a caller that could not be verified is anonymous and belongs to no tenant but the operators'."""
    return Sender(
        tenant=principal.tenant if principal else SYSTEM_TENANT,
        subject=principal.subject if principal else "anonymous",
        name=principal.name if principal else "",
        is_person=principal.is_user if principal else False,
        address=request.client.host if request.client else "",
        resource=f"{request.method} {request.url.path[:200]}",
    )


async def on_refusal(request: Request, principal: Principal | None, problem: Problem) -> None:
    """Records a caller who was not let in."""
    await handlers.refuse_request(resources_of(request).audit, sender_of(request, principal), None, problem)


async def _store(request: Request, principal: Principal, study: str | None, settings: Settings) -> Response:
    resources = resources_of(request)
    sender = sender_of(request, principal)
    try:
        body = understand(request, principal, study, largest=settings.max_request)
        rules = await resources.storing.rules.of(sender.tenant)
        async with (
            resources.admission.turn(sender.tenant, rules.requests_at_once),
            resources.spool.request(declared_size(request), sender.tenant) as received,
            _instances(request, body, received, settings, sender.tenant) as instances,
        ):
            if not instances.begun:
                raise BadRequest("The body has no parts, so there is nothing to store.")
            with resources.spool.turns.ahead(sender.tenant), resources.storing.blocks.ahead(sender.tenant):
                outcomes = await handlers.store_instances(instances, sender, study, resources.storing)
    except NotDurable:
        raise  # recorded already, study by study
    except Problem as problem:
        await handlers.refuse_request(resources.audit, sender, study if is_uid(study) else None, problem)
        raise
    await handlers.await_catalog(sender, outcomes, engine=resources.engine, limits=resources.storing.limits)
    content = orjson.dumps(store_response(outcomes, settings.public_url.rstrip("/")))
    return Response(content, status_of(outcomes), media_type=ANSWER_TYPE)


@asynccontextmanager
async def _instances(
    request: Request, body: Body, received: RequestSpool, settings: Settings, tenant: str
) -> AsyncIterator[RequestSpool]:
    """Reads the body; the spool that it gives holds one part for each instance, until the end of the block.

    Raises:
        BadRequest, TooLarge, UnsupportedMediaType: the body can't be understood, or there is too much of it.
    """
    chunks = steady(request.receive, idle_timeout=settings.idle_timeout, min_progress=settings.min_progress)
    if body.compressed:
        chunks = inflated(chunks, largest=settings.max_request, max_ratio=settings.max_gzip_ratio, run=received.run)
    if body.kind == "instance":
        await receive_single(chunks, received)
        yield received
        return
    reader = MultipartReader(body.boundary, max_parts=settings.max_parts, max_header=settings.max_part_header)
    try:
        if body.kind == "instances":
            await receive_multipart(chunks, reader, received, typed=body.typed)
            about = []
        else:
            about = await receive_metadata(chunks, reader, received)
    except TooManyParts as error:
        raise TooLarge(str(error)) from None
    except InvalidMultipart as error:
        raise BadRequest(str(error)) from None
    if body.kind == "instances":
        yield received
        return
    limits = MetadataLimits(settings.max_metadata, settings.max_parts, settings.max_request)
    async with resources_of(request).spool.request(0, tenant) as made:
        await make_instances(about, received.parts, made, limits)
        yield made

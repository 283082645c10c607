"""STOW-RS (PS3.18 section 10.5): HTTP in and out."""

import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

import orjson
from fastapi import APIRouter, Depends, Request, Response

from libs.auth import DICOM_WRITE, Authenticated, Principal
from libs.dicom import is_uid
from libs.tenancy import SYSTEM_TENANT
from libs.web.problems import BadRequest, Forbidden, NotAcceptable, Problem, TooLarge, UnsupportedMediaType
from services.ingest_gateway import handlers
from services.ingest_gateway.body import receive_multipart, receive_single, steady
from services.ingest_gateway.domain import Sender, status_of, store_response
from services.ingest_gateway.errors import NotDurable
from services.ingest_gateway.multipart import (
    InvalidMultipart,
    MediaType,
    MultipartReader,
    TooManyParts,
    parse_media_type,
    require_boundary,
)
from services.ingest_gateway.resources import Resources
from services.ingest_gateway.settings import Settings
from services.ingest_gateway.spool import RequestSpool

ANSWER_TYPE: Final = "application/dicom+json"
_ACCEPTABLE: Final = frozenset({"*/*", "application/*", ANSWER_TYPE})
_BODY: Final = {"schema": {"type": "string", "format": "binary"}}
_DESCRIPTION: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": 'One Part 10 file, or several as the parts of multipart/related; type="application/dicom".',
        "content": {"multipart/related": _BODY, "application/dicom": _BODY},
    },
    "responses": {
        "200": {"description": "All instances are stored.", "content": {ANSWER_TYPE: {}}},
        "202": {"description": "Some are stored; the answer says which failed or were warned of, and why."},
        "400": {"description": "The body can't be understood."},
        "406": {"description": "The answer can be had as application/dicom+json only."},
        "409": {"description": "None is stored; the answer says why, one by one."},
        "413": {"description": "The body is too large."},
        "415": {"description": "The body has another type than the two that are taken."},
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
        spool_parts = _understand(request, principal, study, settings)
        rules = await resources.storing.rules.of(sender.tenant)
        async with (
            resources.admission.turn(sender.tenant, rules.requests_at_once),
            resources.spool.request(_declared_size(request), sender.tenant) as spool,
        ):
            await spool_parts(spool)
            if not spool.begun:
                raise BadRequest("The body has no parts, so there is nothing to store.")
            outcomes = await handlers.store_instances(spool, sender, study, resources.storing)
    except NotDurable:
        raise  # recorded already, study by study
    except Problem as problem:
        await handlers.refuse_request(resources.audit, sender, study if is_uid(study) else None, problem)
        raise
    await handlers.await_catalog(sender, outcomes, engine=resources.engine, limits=resources.storing.limits)
    content = orjson.dumps(store_response(outcomes, settings.public_url.rstrip("/")))
    return Response(content, status_of(outcomes), media_type=ANSWER_TYPE)


def _understand(
    request: Request, principal: Principal, study: str | None, settings: Settings
) -> Callable[[RequestSpool], Awaitable[None]]:
    """Checks all that can be checked before the body is read.

    Returns:
        what takes the body into the spool.

    Raises:
        BadRequest, Forbidden, NotAcceptable, TooLarge, UnsupportedMediaType: the request is refused as a whole.
    """
    if principal.tenant == SYSTEM_TENANT:
        raise Forbidden("The operators' tenant holds no studies.")
    if study is not None and not is_uid(study):
        raise BadRequest("The address does not name a study: a Study Instance UID has digits and dots only.")
    _require_acceptable(request.headers.get("accept", "*/*"))
    if _declared_size(request) > settings.max_request:
        raise TooLarge(f"One request may have {settings.max_request} bytes at most; send the rest in another.")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("A compressed body (Content-Encoding) is not taken.")
    media_type = parse_media_type(request.headers.get("content-type", ""))
    chunks = steady(request.receive, idle_timeout=settings.idle_timeout, min_progress=settings.min_progress)
    if media_type.name == "application/dicom":
        return lambda spool: receive_single(chunks, spool)
    typed = _require_dicom_parts(media_type)
    try:
        boundary = require_boundary(media_type)
    except InvalidMultipart as error:
        raise BadRequest(str(error)) from None
    reader = MultipartReader(boundary, max_parts=settings.max_parts, max_header=settings.max_part_header)

    async def spool_parts(spool: RequestSpool) -> None:
        try:
            await receive_multipart(chunks, reader, spool, typed=typed)
        except TooManyParts as error:
            raise TooLarge(str(error)) from None
        except InvalidMultipart as error:
            raise BadRequest(str(error)) from None

    return spool_parts


def _require_dicom_parts(media_type: MediaType) -> bool:
    """Whether the request says that its parts are application/dicom; when it says nothing, the parts have to.

    Raises:
        UnsupportedMediaType: it is no multipart/related, or its parts are something else.
    """
    if media_type.name != "multipart/related":
        raise UnsupportedMediaType(
            'Instances are taken as application/dicom, or as multipart/related; type="application/dicom"; '
            f"this body is {media_type.name or 'of no type'!s:.100}."
        )
    inner = media_type.parameters.get("type", "").lower()
    if inner in ("application/dicom+json", "application/dicom+xml"):
        raise UnsupportedMediaType(f"Instances are not taken as {inner}, only as application/dicom (Part 10 files).")
    if inner not in ("", "application/dicom"):
        raise UnsupportedMediaType(f"The parts must be application/dicom, not {inner:.100}.")
    return bool(inner)


def _require_acceptable(accept: str) -> None:
    """Checks that the sender takes the one type that answers have.

    Raises:
        NotAcceptable: it does not.
    """
    for media_range in accept.split(","):
        wanted = parse_media_type(media_range)
        refused = re.fullmatch(r"0(\.0{0,3})?", wanted.parameters.get("q", "1"))
        if wanted.name in _ACCEPTABLE and not refused:
            return
    raise NotAcceptable(f"The answer can be had as {ANSWER_TYPE} only.")


def _declared_size(request: Request) -> int:
    declared = request.headers.get("content-length", "0")
    return int(declared) if declared.isdigit() else 0

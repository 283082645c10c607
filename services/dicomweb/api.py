"""What the routes of all kinds share: the caller, the target, and the answer."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Send

from libs.auth import Principal
from libs.web.problems import Problem
from services.dicomweb.audit import AuditedRoute, Operation, operation_of
from services.dicomweb.domain import Content, Target
from services.dicomweb.negotiate import Tiers, acceptable
from services.dicomweb.resources import Resources

Read = Callable[..., Awaitable[Principal]]
"""The dependency that lets in who may read."""

PREFIX: Final = "/dicom-web"


class Stream(StreamingResponse):
    """An answer that is sent piece by piece.

    Where it can't go on, it is left unfinished: the server then closes the connection, and the caller sees that the
    answer isn't whole. It was recorded and logged where it happened.
    """

    async def stream_response(self, send: Send) -> None:
        """Sends the pieces."""
        with suppress(Problem):
            await super().stream_response(send)


def make_router(tag: str) -> APIRouter:
    """A router whose every use is recorded."""
    return APIRouter(prefix=PREFIX, tags=[tag], route_class=AuditedRoute)


def resources_of(request: Request) -> Resources:
    """What the service works with."""
    found: Resources = request.app.state.resources
    return found


def begin(request: Request, principal: Principal, target: Target | None = None) -> Operation:
    """Notes who does something, and to what."""
    operation = operation_of(request)
    operation.principal = principal
    if target is not None:
        operation.study_uid = target.study
        operation.series_uid = target.series or ""
        operation.sop_uid = target.instance or ""
    return operation


def begin_target(
    request: Request, principal: Principal, study: str, series: str | None = None, instance: str | None = None
) -> tuple[Operation, Target]:
    """The same, for a path that names a study, a series or an instance.

    Raises:
        BadRequest: a unique identifier of the path is malformed.
    """
    operation_of(request).principal = principal
    target = Target(study, series, instance)
    return begin(request, principal, target), target


def acceptable_of(request: Request, *, dicom: bool = False) -> Tiers:
    """The media types that the caller accepts; `dicom` as in `acceptable`."""
    header = ", ".join(request.headers.getlist("accept"))
    return acceptable(request.query_params.getlist("accept"), header, dicom=dicom)


def if_none_match(request: Request) -> str:
    """The entity tags that the caller has."""
    return ",".join(request.headers.getlist("if-none-match"))


def answer(content: Content) -> Response:
    """The answer that gives the content."""
    headers = {**content.headers, "Vary": "Accept, Accept-Encoding"}
    if content.etag:
        headers["ETag"] = content.etag
    if content.status == 304:
        return Response(status_code=304, headers=headers)
    if isinstance(content.body, bytes):
        headers["Content-Type"] = content.media_type
        return Response(content.body, content.status, headers)
    headers["Content-Type"] = content.media_type
    return Stream(content.body, content.status, headers)

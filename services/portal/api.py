"""The pages and the live stream, over HTTP."""

import time
from collections.abc import AsyncIterator
from typing import Annotated, Final
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import HTMLResponse, Response, StreamingResponse

from libs.auth import DICOM_READ, Authenticated, Principal
from libs.catalog.queries import Cursor
from libs.catalog.rows import InvalidCursor
from libs.dicom.identifiers import is_uid
from libs.web.problems import BadRequest, NotFound, Problem, Unauthorized
from services.portal import handlers
from services.portal.domain import Search, local_path, read_search
from services.portal.handlers import Caller
from services.portal.live import Live
from services.portal.pages import Pages
from services.portal.resources import Resources
from services.portal.settings import Settings

MAX_ROWS: Final = 50
HEARTBEAT_SECONDS: Final = 15.0
GATHER_SECONDS: Final = 0.4
"""How long changes are gathered before a browser is told, so that a study under way sends few messages."""


def is_part(request: Request) -> bool:
    """Whether HTMX asks for a part of a page. Going back in history asks for the whole."""
    headers = request.headers
    return headers.get("hx-request") == "true" and headers.get("hx-history-restore-request") != "true"


def address_of(request: Request) -> str:
    """The caller's network address, as the front door saw it."""
    forwarded = request.headers.get("x-forwarded-for", "").split(",")[-1].strip()
    return forwarded[:64] or (request.client.host if request.client else "")


def resource_of(request: Request) -> str:
    """Method and path, for the audit record."""
    return f"{request.method} {request.url.path}"[:300]


def to_login(request: Request) -> Response:
    """The way of a browser without a valid token: renew the session or log in, then come back."""
    query = f"?{request.url.query}" if request.url.query else ""
    target = local_path(f"{request.url.path}{query}")
    return Response(
        status_code=303, headers={"Location": f"/auth/renew?next={quote(target)}", "Cache-Control": "no-store"}
    )


def _search(
    *,
    q: Annotated[str, Query(max_length=2000, description="plain words and name:value")] = "",
    name: Annotated[str, Query(max_length=200)] = "",
    id: Annotated[str, Query(max_length=200)] = "",  # noqa: A002
    accession: Annotated[str, Query(max_length=200)] = "",
    earliest: Annotated[str, Query(alias="from", max_length=200)] = "",
    latest: Annotated[str, Query(alias="to", max_length=200)] = "",
    modality: Annotated[str, Query(max_length=200)] = "",
) -> Search:
    fields = {"name": name, "id": id, "accession": accession, "from": earliest, "to": latest, "modality": modality}
    return read_search(q, fields)


def _cursor(text: str) -> Cursor | None:
    try:
        return Cursor.decode(text, "arrival") if text else None
    except InvalidCursor:
        raise BadRequest("This is no place in the worklist.") from None


def make_router(settings: Settings, auth: Authenticated, pages: Pages) -> APIRouter:
    """The routes of the pages. Resources are found in the application's state."""
    router = APIRouter(default_response_class=HTMLResponse)
    _add_worklist(router, settings, auth, pages)
    _add_lines(router, auth, pages)
    _add_study(router, auth, pages)
    _add_events(router, settings, auth)
    return router


def _resources(request: Request) -> Resources:
    found: Resources = request.app.state.resources
    return found


_OPENED: Final = Depends(_resources)
_SEARCHED: Final = Depends(_search)


def _add_worklist(router: APIRouter, settings: Settings, auth: Authenticated, pages: Pages) -> None:
    anybody = Depends(auth.require())

    @router.get("/", summary="The worklist", tags=["pages"])
    async def worklist(
        request: Request,
        principal: Principal = anybody,
        parts: Resources = _OPENED,
        wanted: Search = _SEARCHED,
        before: Annotated[str, Query(max_length=300, description="where the page begins")] = "",
    ) -> Response:
        if not principal.has(DICOM_READ):
            return pages.page(request, "operator.html", principal)
        place = _cursor(before)
        caller = Caller(principal, address_of(request), resource_of(request))
        size = settings.page_size
        found = await handlers.list_studies(parts.engine, parts.trail, caller, wanted, before=place, limit=size)
        part = is_part(request)
        template = "_rows.html" if part and place else "_results.html" if part else "worklist.html"
        answer = pages.page(request, template, principal, search=wanted, worklist=found, further=place is not None)
        if part and place is None:
            answer.headers["HX-Replace-Url"] = wanted.url()
        return answer


def _add_lines(router: APIRouter, auth: Authenticated, pages: Pages) -> None:
    reader = Depends(auth.require(DICOM_READ))

    @router.get("/worklist/new", summary="Studies that arrived since, as lines of the worklist", tags=["pages"])
    async def newer(
        request: Request,
        principal: Principal = reader,
        parts: Resources = _OPENED,
        wanted: Search = _SEARCHED,
        since: Annotated[str, Query(max_length=300, description="the place of the first line shown")] = "",
    ) -> Response:
        caller = Caller(principal, address_of(request), resource_of(request))
        rows = await handlers.list_newer(
            parts.engine, parts.trail, caller, wanted, since=_cursor(since), limit=MAX_ROWS
        )
        return pages.page(request, "_rows.html", principal, search=wanted, worklist=handlers.Worklist(rows))

    @router.get("/worklist/rows", summary="The current lines of given studies", tags=["pages"])
    async def rows(
        request: Request,
        uid: Annotated[list[str], Query(max_length=MAX_ROWS)],
        principal: Principal = reader,
        parts: Resources = _OPENED,
    ) -> Response:
        if not all(is_uid(one) for one in uid):
            raise BadRequest("A uid is a DICOM unique identifier.")
        caller = Caller(principal, address_of(request), resource_of(request))
        found = await handlers.list_chosen(parts.engine, parts.trail, caller, uid)
        return pages.page(request, "_rows.html", principal, search=Search(), worklist=handlers.Worklist(found))


def _add_study(router: APIRouter, auth: Authenticated, pages: Pages) -> None:
    reader = Depends(auth.require(DICOM_READ))

    @router.get("/studies/{study_uid}", summary="The study page", tags=["pages"])
    async def study(
        request: Request, study_uid: str, principal: Principal = reader, parts: Resources = _OPENED
    ) -> Response:
        if not is_uid(study_uid):
            raise NotFound("There is no such study.")
        caller = Caller(principal, address_of(request), resource_of(request))
        found = await handlers.show_study(parts.engine, parts.trail, caller, study_uid)
        return pages.page(request, "study.html", principal, found=found)


def _add_events(router: APIRouter, settings: Settings, auth: Authenticated) -> None:
    reader = Depends(auth.require(DICOM_READ))

    @router.get(
        "/events",
        summary="Server-sent events: studies of the caller's tenant that appear or change",
        tags=["live"],
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}}},
    )
    async def events(principal: Principal = reader, parts: Resources = _OPENED) -> Response:
        body = _events(parts.live, principal.tenant, settings.stream_seconds)
        first = await anext(body)  # a refusal is raised here, before the answer has begun
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        return StreamingResponse(_chained(first, body), media_type="text/event-stream", headers=headers)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in rest:
        yield chunk


async def _events(live: Live, tenant: str, seconds: float) -> AsyncIterator[bytes]:
    """The text of a stream (WHATWG HTML section 9.2): a greeting, changes, heartbeats."""
    async with live.stream(tenant) as stream:
        yield b"retry: 2000\nevent: hello\ndata: {}\n\n"
        end = time.monotonic() + seconds
        while not stream.is_closed and (left := end - time.monotonic()) > 0:
            changes = await stream.take(min(HEARTBEAT_SECONDS, left), gather=GATHER_SECONDS)
            if changes is None:
                yield b"event: refresh\ndata: {}\n\n"
            elif changes:
                yield b"event: studies\ndata: " + orjson.dumps(changes) + b"\n\n"
            else:
                yield b": still here\n\n"


async def record_refusal(request: Request, principal: Principal | None, problem: Problem) -> None:
    """Records a refusal of a caller who is known; who has no valid session is merely sent to log in."""
    if principal is not None:
        caller = Caller(principal, address_of(request), resource_of(request))
        await handlers.record_refusal(request.app.state.resources.trail, caller, problem.detail)


def failure(pages: Pages, request: Request, status: int, title: str, detail: str) -> Response | None:
    """The answer to a browser whose request failed, in words; ``None`` for callers who don't read HTML.

    Somebody without a valid session is sent to renew it, or to log in.
    """
    if is_part(request) or "text/html" not in request.headers.get("accept", ""):
        return None
    if status == Unauthorized.status and request.method in ("GET", "HEAD"):
        return to_login(request)
    return pages.page(request, "failure.html", None, status=status, code=status, title=title, detail=detail)

"""The log-in pages, the browser's session and its cookies."""

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.routing import APIRoute
from fastapi.templating import Jinja2Templates

from libs.auth import ACCESS_COOKIE, is_same_origin
from libs.web.problems import Forbidden, NotFound, Problem, Unauthorized
from services.identity.api.callers import WithResources, WithSettings, caller_of, resources_of, settings_of
from services.identity.domain import SESSION_LIFETIME, is_tenant, local_path, parse_session_cookie
from services.identity.errors import SessionEnded
from services.identity.handlers import sessions
from services.identity.handlers.audit import record_refusal
from services.identity.settings import Settings

SESSION_COOKIE: Final = "lightbox_session"
CLINIC_COOKIE: Final = "lightbox_clinic"
"""Remembers the clinic of the last log-in, so that nobody types it twice."""

FOLDER: Final = Path(__file__).parent.parent
_YEAR: Final = 365 * 24 * 3600
_FIELD: Final = 4096
_templates = Jinja2Templates(directory=FOLDER / "templates")
_STYLE = hashlib.sha256((FOLDER / "static" / "auth.css").read_bytes()).hexdigest()[:12]
_HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Page(APIRoute):
    """A route whose errors are shown as a page, in words, with the status they carry."""

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        """The handler, with problems turned into pages."""
        handle = super().get_route_handler()

        async def handle_with_page(request: Request) -> Response:
            try:
                return await handle(request)
            except Problem as problem:
                return _page(
                    request,
                    "message.html",
                    {"title": problem.title, "detail": problem.detail},
                    status=problem.status,
                    headers=problem.headers,
                )

        return handle_with_page


pages = APIRouter(prefix="/auth", route_class=Page, include_in_schema=False)
session = APIRouter(prefix="/auth", tags=["session"])


def _page(
    request: Request,
    template: str,
    values: Mapping[str, object],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> Response:
    theme = request.cookies.get("lightbox_theme", "")
    shared = {"style": _STYLE, "theme": theme if theme in ("dark", "light") else "", "next": ""}
    merged = {key: value for key, value in (headers or {}).items() if key.lower() != "www-authenticate"}
    return _templates.TemplateResponse(
        request, template, {**shared, **values}, status_code=status, headers={**merged, **_HEADERS}
    )


async def _require_own_page(request: Request, settings: Settings) -> None:
    """Refuses a form that another site has sent.

    Raises:
        Forbidden: neither Sec-Fetch-Site nor Origin says that it is ours.
    """
    if is_same_origin(request, settings.public_url):
        return
    await record_refusal(resources_of(request), None, caller_of(request), "a form from another site")
    raise Forbidden("The form does not come from this site. Open the log-in page and try again.")


def _login_path(tenant: str | None, target: str) -> str:
    query = f"?{urlencode({'next': target})}" if target != "/" else ""
    return f"/auth/login/{tenant}{query}" if tenant else f"/auth/login{query}"


def _set_access(response: Response, token: str, settings: Settings) -> None:
    response.set_cookie(
        ACCESS_COOKIE,
        token,
        max_age=settings.access_seconds,
        path="/",
        httponly=True,
        samesite="lax",
        secure=settings.secure_cookies,
    )


def _clear(response: Response, settings: Settings) -> None:
    for name, path in ((ACCESS_COOKIE, "/"), (SESSION_COOKIE, "/auth")):
        response.delete_cookie(name, path=path, httponly=True, samesite="lax", secure=settings.secure_cookies)


@pages.get("/login")
async def ask_for_clinic(
    request: Request,
    resources: WithResources,
    target: Annotated[str, Query(alias="next", max_length=_FIELD)] = "/",
    clinic: Annotated[str, Query(max_length=_FIELD)] = "",
    another: Annotated[bool, Query()] = False,
) -> Response:
    """Asks for the clinic's short name, or goes on when it is known."""
    target = local_path(target)
    wanted = clinic.strip().lower()
    if wanted:
        try:
            found = await sessions.find_clinic(resources, wanted)
        except NotFound as problem:
            values = {"clinic": wanted[:64], "error": problem.detail, "next": target}
            return _page(request, "clinic.html", values, status=404)
        return RedirectResponse(_login_path(found.id, target), 303)
    last = request.cookies.get(CLINIC_COOKIE, "")
    if is_tenant(last) and not another:
        return RedirectResponse(_login_path(last, target), 303)
    return _page(request, "clinic.html", {"clinic": last if is_tenant(last) else "", "next": target})


@pages.get("/login/{tenant}")
async def show_login(
    request: Request,
    resources: WithResources,
    tenant: str,
    target: Annotated[str, Query(alias="next", max_length=_FIELD)] = "/",
) -> Response:
    """The log-in page of a clinic."""
    target = local_path(target)
    try:
        found = await sessions.find_clinic(resources, tenant)
    except NotFound as problem:
        response = _page(
            request, "clinic.html", {"clinic": tenant[:64], "error": problem.detail, "next": target}, status=404
        )
        response.delete_cookie(CLINIC_COOKIE, path="/auth")
        return response
    return _page(request, "login.html", {"tenant": found.id, "clinic": found.name, "next": target})


@pages.post("/login/{tenant}")
async def log_in(
    request: Request,
    resources: WithResources,
    settings: WithSettings,
    tenant: str,
    *,
    name: Annotated[str, Form(max_length=_FIELD)] = "",
    password: Annotated[str, Form(max_length=_FIELD)] = "",
    target: Annotated[str, Form(alias="next", max_length=_FIELD)] = "/",
) -> Response:
    """Checks name and password; the browser then has its cookies and goes where it wanted to."""
    await _require_own_page(request, settings)
    target = local_path(target)
    found = await sessions.find_clinic(resources, tenant)
    try:
        result = await sessions.log_in(
            resources,
            found.id,
            name,
            password,
            caller=caller_of(request),
            replaced=request.cookies.get(SESSION_COOKIE, ""),
        )
    except Problem as problem:
        values = {"tenant": found.id, "clinic": found.name, "next": target, "name": name[:64]}
        values |= {"error": f"{problem.title}.", "advice": problem.detail}
        return _page(request, "login.html", values, status=problem.status, headers=problem.headers)
    response = RedirectResponse(target, 303, headers={"Cache-Control": "no-store"})
    _set_access(response, result.access, settings)
    response.set_cookie(
        SESSION_COOKIE,
        result.session,
        max_age=int(SESSION_LIFETIME.total_seconds()),
        path="/auth",
        httponly=True,
        samesite="lax",
        secure=settings.secure_cookies,
    )
    response.set_cookie(
        CLINIC_COOKIE,
        found.id,
        max_age=_YEAR,
        path="/auth",
        httponly=True,
        samesite="lax",
        secure=settings.secure_cookies,
    )
    return response


@pages.get("/renew")
async def renew(
    request: Request,
    resources: WithResources,
    settings: WithSettings,
    target: Annotated[str, Query(alias="next", max_length=_FIELD)] = "/",
) -> Response:
    """Gives the browser a new access token and sends it on, or to the log-in page."""
    target = local_path(target)
    cookie = request.cookies.get(SESSION_COOKIE, "")
    try:
        result = await sessions.renew(resources, cookie, 0, caller_of(request))
    except SessionEnded:
        parsed = parse_session_cookie(cookie)
        response: Response = RedirectResponse(_login_path(parsed[0] if parsed else None, target), 303)
        _clear(response, settings)
    else:
        response = RedirectResponse(target, 303)
        _set_access(response, result.access, settings)
    response.headers["Cache-Control"] = "no-store"
    return response


@pages.post("/logout")
async def log_out(request: Request, resources: WithResources, settings: WithSettings) -> Response:
    """Ends the session and takes the cookies back."""
    await _require_own_page(request, settings)
    tenant = await sessions.log_out(resources, request.cookies.get(SESSION_COOKIE, ""), caller_of(request))
    response = RedirectResponse(_login_path(tenant, "/"), 303, headers={"Cache-Control": "no-store"})
    _clear(response, settings)
    return response


@session.post(
    "/session/refresh",
    status_code=204,
    summary="Renew the browser's access token",
    responses={401: {"description": "The session has ended: send the user to /auth/login"}},
)
async def refresh_session(
    request: Request,
    resources: WithResources,
    settings: WithSettings,
    idle: Annotated[int, Query(ge=0, le=86400, description="seconds since the user last did something")] = 0,
) -> Response:
    """Sets a new access cookie, as long as session, user and tenant are active."""
    if not is_same_origin(request, settings.public_url):
        await record_refusal(resources, None, caller_of(request), "a renewal from another site")
        raise Forbidden("The request does not come from a page of this site.")
    response = Response(status_code=204, headers={"Cache-Control": "no-store"})
    cookie = request.cookies.get(SESSION_COOKIE, "")
    if not cookie:
        raise Unauthorized("There is no session.")
    result = await sessions.renew(resources, cookie, idle, caller_of(request))
    _set_access(response, result.access, settings_of(request))
    return response

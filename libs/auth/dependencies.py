"""FastAPI dependencies that let in who may come in."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Final
from urllib.parse import urlsplit

import structlog
from fastapi import Depends, Request
from fastapi.security import APIKeyCookie, HTTPBearer

from libs.auth.principal import Principal
from libs.auth.verifier import TokenVerifier
from libs.web.problems import Forbidden, Problem, Unauthorized

ACCESS_COOKIE: Final = "lightbox_access"
"""The cookie that carries a browser's access token."""

Refusal = Callable[[Request, Principal | None, Problem], Awaitable[None]]
"""Called with each refusal, so that the service can record it. The caller is known when only a scope was missing."""

_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_log = structlog.get_logger(__name__)

# For the OpenAPI document only: both say how a token may be brought, neither checks it.
_BEARER = Depends(HTTPBearer(auto_error=False, description="An access token of the identity service"))
_COOKIE = Depends(APIKeyCookie(name=ACCESS_COOKIE, auto_error=False, description="The browser's session"))


def origin_of(url: str) -> str:
    """Scheme, host and port of a URL as a browser's ``Origin`` header writes them (RFC 6454 section 6.1)."""
    parts = urlsplit(url)
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname or ""
    port = parts.port
    suffix = "" if port in (None, _DEFAULT_PORTS.get(parts.scheme)) else f":{port}"
    return f"{parts.scheme}://{host}{suffix}"


def is_same_origin(request: Request, public_url: str) -> bool:
    """Whether a browser says that one of our own pages sent the request.

    ``Sec-Fetch-Site`` decides where the browser sends it, since no page can forge it; else ``Origin`` must be the
    origin of ``public_url``. A request with neither is not known to be ours.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    return request.headers.get("origin") == origin_of(public_url)


class Authenticated:
    """Makes dependencies that verify the caller's token.

    The token comes from ``Authorization: Bearer``, else from the cookie ``lightbox_access``. A cookie travels by
    itself, so an unsafe method that relies on it must come from one of our own pages.

    Arguments:
        verifier: verifies tokens.
        public_url: the address under which browsers see the installation.
        on_refusal: told of each refusal; an error in it is logged and does not change the answer.
    """

    def __init__(self, verifier: TokenVerifier, public_url: str, on_refusal: Refusal | None = None) -> None:
        self._verifier = verifier
        self._public_url = public_url
        self._on_refusal = on_refusal

    def require(self, *scopes: str) -> Callable[..., Awaitable[Principal]]:
        """A dependency that gives the caller, who must hold all of the scopes.

        It raises ``Unauthorized`` without a valid token, ``Forbidden`` without a scope or from a foreign page, and
        ``Unavailable`` when no key to verify with could be fetched yet.
        """
        return self._dependency(lambda principal: all(principal.has(scope) for scope in scopes), scopes)

    def require_any(self, *scopes: str) -> Callable[..., Awaitable[Principal]]:
        """Like :meth:`require`, for a caller who holds at least one of the scopes."""
        return self._dependency(lambda principal: any(principal.has(scope) for scope in scopes), scopes)

    async def authenticate(self, request: Request) -> Principal:
        """The caller of the request, whatever its scopes. Refusals are raised and not reported.

        Raises:
            Unauthorized: there is no token, or it is not valid.
            Forbidden: an unsafe method with a cookie, from a page that isn't ours.
            Unavailable: no key to verify with could be fetched yet.
        """
        header = request.headers.get("authorization")
        if header is not None:
            scheme, _, token = header.partition(" ")
            if scheme.lower() != "bearer" or not token.strip():
                raise Unauthorized("The Authorization header must be: Bearer TOKEN.")
            return await self._verifier.verify(token.strip())
        cookie = request.cookies.get(ACCESS_COOKIE)
        if not cookie:
            raise Unauthorized("There is no token.")
        if request.method not in _SAFE_METHODS and not is_same_origin(request, self._public_url):
            raise Forbidden("The request does not come from a page of this site.")
        return await self._verifier.verify(cookie)

    def _dependency(
        self, allows: Callable[[Principal], bool], scopes: tuple[str, ...]
    ) -> Callable[..., Awaitable[Principal]]:
        async def authenticated(
            request: Request,
            _bearer: Annotated[object, _BEARER] = None,
            _cookie: Annotated[object, _COOKIE] = None,
        ) -> Principal:
            principal: Principal | None = None
            try:
                principal = await self.authenticate(request)
                if not allows(principal):
                    raise Forbidden(f"This needs the scope {' or '.join(scopes)}.")
            except (Unauthorized, Forbidden) as problem:
                await self._report(request, principal, problem)
                raise
            return principal

        return authenticated

    async def _report(self, request: Request, principal: Principal | None, problem: Problem) -> None:
        if self._on_refusal is None:
            return
        try:
            await self._on_refusal(request, principal, problem)
        except Exception:
            _log.exception("a refusal could not be recorded")

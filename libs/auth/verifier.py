"""Verification of access tokens against the published keys (RFC 7519, RFC 7517)."""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import httpx
import jwt
import orjson
import structlog
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from jwt.algorithms import ECAlgorithm

from libs.auth.principal import Principal
from libs.tenancy.identifier import PATTERN as TENANT_PATTERN
from libs.web.problems import Unauthorized, Unavailable

ALGORITHM: Final = "ES256"
AUDIENCE: Final = "lightbox"
JWKS_CACHE_SECONDS: Final = 300
"""How long published keys are taken as current. A new key signs only after all caches must have seen it."""

_MAX_TOKEN: Final = 8192
_MAX_JWKS: Final = 256 * 1024
_LEEWAY_SECONDS: Final = 10
_FETCH_TIMEOUT: Final = 3.0
_SUBJECT = re.compile(r"^(user|client):[^\s:/]{1,128}$")
_log = structlog.get_logger(__name__)


class TokenVerifier:
    """Verifies tokens with cached keys, so that it goes on while the identity service is away.

    Arguments:
        jwks_url: where the keys are published.
        issuer: the ``iss`` that tokens must have.
        audience: the ``aud`` that tokens must have.
        cache_seconds: age from which the keys are fetched again.
        refetch_seconds: the shortest time between two fetches, so that tokens with made-up key ids cause no flood.
        fetch: gives the key set's JSON instead of the URL; the identity service has its own at hand.
    """

    def __init__(
        self,
        jwks_url: str,
        issuer: str,
        audience: str = AUDIENCE,
        *,
        cache_seconds: float = JWKS_CACHE_SECONDS,
        refetch_seconds: float = 5.0,
        fetch: Callable[[], Awaitable[bytes]] | None = None,
    ) -> None:
        self._url = jwks_url
        self._issuer = issuer
        self._audience = audience
        self._cache_seconds = cache_seconds
        self._refetch_seconds = refetch_seconds
        self._fetch = fetch or self._download
        self._keys: dict[str, EllipticCurvePublicKey] = {}
        self._fetched = float("-inf")
        self._tried = float("-inf")
        self._failed = False
        self._fetching = asyncio.Lock()

    async def verify(self, token: str) -> Principal:
        """The caller that the token names.

        Raises:
            Unauthorized: the token is malformed, expired, signed by somebody else or meant for somebody else.
            Unavailable: the keys have never been fetched, or the token's key may be a new one and can't be fetched.
        """
        key = await self._key(_key_id(token))
        try:
            claims = jwt.decode(
                token,
                key,
                algorithms=[ALGORITHM],
                audience=self._audience,
                issuer=self._issuer,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iat", "aud", "iss", "sub", "tenant"], "strict_aud": True},
            )
        except jwt.ExpiredSignatureError:
            raise Unauthorized("The token has expired.") from None
        except jwt.InvalidTokenError:
            raise Unauthorized("The token is not valid.") from None
        return _principal(claims)

    async def _key(self, key_id: str) -> EllipticCurvePublicKey:
        stale = time.monotonic() - self._fetched > self._cache_seconds
        known = self._keys.get(key_id)
        # While somebody else is fetching, a known key will do: nobody waits for an identity service that hangs.
        if known is None or (stale and not self._fetching.locked()):
            await self._refresh(key_id, stale=stale)
        found = self._keys.get(key_id)
        if found is not None:
            return found
        if self._failed or not self._keys:
            raise Unavailable("The keys that tokens are checked with can't be fetched at the moment.")
        raise Unauthorized("The token is not valid.")

    async def _refresh(self, key_id: str, *, stale: bool) -> None:
        async with self._fetching:
            if key_id in self._keys and not (stale and self._is_stale()):
                return  # somebody else fetched it while we waited
            if time.monotonic() - self._tried < self._refetch_seconds:
                return
            self._tried = time.monotonic()
            try:
                self._keys = _key_set(await self._fetch())
                self._fetched = time.monotonic()
                self._failed = False
            except (httpx.HTTPError, TimeoutError, ValueError, KeyError, TypeError, AttributeError) as error:
                self._failed = True
                _log.warning("keys can't be fetched", url=self._url, error=repr(error), cached=len(self._keys))

    def _is_stale(self) -> bool:
        return time.monotonic() - self._fetched > self._cache_seconds

    async def _download(self) -> bytes:
        timeout = httpx.Timeout(_FETCH_TIMEOUT)
        # Fetches are minutes apart: a client of its own each time keeps nothing open.
        async with (
            asyncio.timeout(2 * _FETCH_TIMEOUT),
            httpx.AsyncClient(timeout=timeout, trust_env=False) as client,
            client.stream("GET", self._url) as response,
        ):
            response.raise_for_status()
            body = b""
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > _MAX_JWKS:
                    raise ValueError("the key set is too large")
        return body


def _key_id(token: str) -> str:
    """The key id of a token that claims our algorithm; everything else is refused before any cryptography."""
    if len(token) > _MAX_TOKEN:
        raise Unauthorized("The token is not valid.")
    try:
        header = jwt.get_unverified_header(token)
    except jwt.InvalidTokenError:
        raise Unauthorized("The token is not valid.") from None
    key_id = header.get("kid")
    if header.get("alg") != ALGORITHM or not isinstance(key_id, str):
        raise Unauthorized("The token is not valid.")
    return key_id


def _key_set(content: bytes) -> dict[str, EllipticCurvePublicKey]:
    """The usable keys of a JWK set by key id (RFC 7517)."""
    keys = [_public_key(jwk) for jwk in orjson.loads(content)["keys"]]
    if not any(keys):
        raise ValueError("the key set is empty")
    return dict(pair for pair in keys if pair is not None)


def _public_key(jwk: Mapping[str, Any]) -> tuple[str, EllipticCurvePublicKey] | None:
    """A key of the set that can verify our tokens; other kinds are passed over (RFC 7517 section 5)."""
    if jwk.get("kty") != "EC" or jwk.get("crv") != "P-256" or not isinstance(jwk.get("kid"), str):
        return None
    try:
        key = ECAlgorithm.from_jwk(dict(jwk))
    except jwt.InvalidKeyError:
        return None
    return (jwk["kid"], key) if isinstance(key, EllipticCurvePublicKey) else None


def _principal(claims: Mapping[str, Any]) -> Principal:
    tenant, subject, name = claims["tenant"], claims["sub"], claims.get("name", "")
    scope, roles, session = claims.get("scope", ""), claims.get("roles", []), claims.get("sid")
    tenant_name = claims.get("tenant_name", "")
    texts = (tenant, subject, name, scope, tenant_name)
    if (
        not all(isinstance(text, str) for text in texts)
        or not re.fullmatch(TENANT_PATTERN, tenant)
        or not _SUBJECT.fullmatch(subject)
        or not isinstance(roles, list)
        or not all(isinstance(role, str) for role in roles)
        or not (session is None or isinstance(session, str))
    ):
        raise Unauthorized("The token is not valid.")
    return Principal(
        tenant=tenant,
        subject=subject,
        name=name,
        scopes=frozenset(scope.split()),
        roles=tuple(roles),
        session=session,
        tenant_name=tenant_name,
    )

"""Tokens for machines, the published keys, and who the caller is."""

import base64
import binascii
from datetime import UTC, datetime
from typing import Annotated, Any
from urllib.parse import unquote_plus

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from libs.auth import JWKS_CACHE_SECONDS, Authenticated, Principal
from libs.web.problems import BadRequest, UnsupportedMediaType
from services.identity.api.callers import WithResources, WithSettings, caller_of
from services.identity.errors import TokenRefused
from services.identity.handlers import sessions

_FORM = "application/x-www-form-urlencoded"
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_FORM_SCHEMA: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            _FORM: {
                "schema": {
                    "type": "object",
                    "required": ["grant_type"],
                    "properties": {
                        "grant_type": {"type": "string", "enum": ["client_credentials"]},
                        "client_id": {"type": "string", "description": "TENANT.NAME"},
                        "client_secret": {"type": "string", "format": "password"},
                        "scope": {"type": "string", "description": "all of the client's scopes by default"},
                    },
                }
            }
        },
    }
}


class Token(BaseModel):
    """An access token (RFC 6749 section 5.1)."""

    access_token: str
    token_type: str = Field(default="Bearer")
    expires_in: int = Field(description="seconds")
    scope: str


class Me(BaseModel):
    """The caller, as the token says."""

    tenant: str
    subject: str
    name: str
    roles: list[str]
    scopes: list[str]


def token_problem(_: Request, error: TokenRefused) -> Response:
    """An error of the token endpoint as the standard has it (RFC 6749 section 5.2)."""
    headers = {**_NO_STORE, **error.headers}
    if error.answer_status == 401:
        headers["WWW-Authenticate"] = 'Basic realm="lightbox", charset="UTF-8"'
    body = {"error": error.code, "error_description": error.detail}
    return JSONResponse(body, error.answer_status, headers)


async def _form(request: Request) -> dict[str, str]:
    """The fields of the form, each at most once (RFC 6749 section 3.2)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise UnsupportedMediaType(f"The body must be {_FORM}.")
    fields: dict[str, str] = {}
    async with request.form(max_files=0, max_fields=20) as form:
        for key, value in form.multi_items():
            if not isinstance(value, str) or key in fields:
                raise TokenRefused("invalid_request", "A parameter is given twice.")
            fields[key] = value
    return fields


def _credentials(request: Request, form: dict[str, str]) -> tuple[str, str]:
    """Client id and secret, from the Authorization header or from the form, never from both."""
    header = request.headers.get("authorization")
    if header is None:
        return form.get("client_id", ""), form.get("client_secret", "")
    if "client_secret" in form:
        raise TokenRefused("invalid_request", "The client authenticates in two ways at once.")
    scheme, _, content = header.partition(" ")
    try:
        decoded = base64.b64decode(content.strip(), validate=True).decode() if scheme.lower() == "basic" else ""
    except (binascii.Error, UnicodeDecodeError):
        decoded = ""
    client_id, _, secret = decoded.partition(":")
    return unquote_plus(client_id), unquote_plus(secret)


def make_router(auth: Authenticated) -> APIRouter:
    """The routes; ``auth`` lets in who may come in."""
    router = APIRouter(tags=["tokens"])

    @router.post("/auth/token", summary="Get an access token", response_model=Token, openapi_extra=_FORM_SCHEMA)
    async def issue_token(request: Request, resources: WithResources, settings: WithSettings) -> Response:
        """OAuth 2.0 client credentials (RFC 6749 section 4.4); the client authenticates by Basic or in the form."""
        try:
            form = await _form(request)
        except BadRequest as error:
            raise TokenRefused("invalid_request", error.detail) from error
        client_id, secret = _credentials(request, form)
        if form.get("grant_type") != "client_credentials":
            raise TokenRefused("unsupported_grant_type", "The grant type must be client_credentials.")
        if len(client_id) > 128 or len(secret) > 512:
            raise TokenRefused("invalid_client", "The client or its secret is wrong.", status=401)
        token, scopes = await sessions.issue_client_token(
            resources, client_id, secret, form.get("scope", "")[:1024], caller_of(request)
        )
        answer = Token(access_token=token, expires_in=settings.access_seconds, scope=" ".join(scopes))
        return JSONResponse(answer.model_dump(), headers=_NO_STORE)

    @router.get("/.well-known/jwks.json", summary="The keys that tokens are verified with (RFC 7517)")
    async def publish_keys(resources: WithResources) -> Response:
        resources.keys.ring.signing_key(datetime.now(UTC))  # an empty set would be taken for the truth
        return Response(
            resources.keys.ring.key_set(datetime.now(UTC)),
            media_type="application/jwk-set+json",
            headers={"Cache-Control": f"public, max-age={JWKS_CACHE_SECONDS}"},
        )

    @router.get("/auth/me", summary="Who am I?")
    async def show_caller(principal: Annotated[Principal, Depends(auth.require())]) -> Me:
        return Me(
            tenant=principal.tenant,
            subject=principal.subject,
            name=principal.name,
            roles=list(principal.roles),
            scopes=sorted(principal.scopes),
        )

    return router

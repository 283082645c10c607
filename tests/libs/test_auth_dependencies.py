"""If these fail, a page of somebody else can act with a reader's session, or a missing scope opens a route."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Annotated

import httpx
import pytest
from fastapi import Depends, FastAPI, Request

from libs.auth import Authenticated, Principal, TokenVerifier, origin_of, scopes_of
from libs.web import Problem, create_app
from tests.support.tokens import TokenIssuer

OWN = "http://127.0.0.1:8080"


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    running = TokenIssuer()
    yield running
    running.close()


@pytest.fixture
def refused() -> list[tuple[str, str | None, int]]:
    return []


@pytest.fixture
async def client(issuer: TokenIssuer, refused: list[tuple[str, str | None, int]]) -> AsyncIterator[httpx.AsyncClient]:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    async def on_refusal(request: Request, principal: Principal | None, problem: Problem) -> None:
        refused.append((request.url.path, principal.subject if principal else None, problem.status))

    app = create_app("test", title="t", description="d", lifespan=lifespan)
    auth = Authenticated(TokenVerifier(issuer.jwks_url, "lightbox"), OWN + "/", on_refusal)

    @app.get("/read")
    async def read(caller: Annotated[Principal, Depends(auth.require("dicom:read"))]) -> str:
        return caller.tenant

    @app.post("/write")
    async def write(caller: Annotated[Principal, Depends(auth.require("dicom:read", "dicom:write"))]) -> str:
        return caller.tenant

    @app.get("/any")
    async def either(caller: Annotated[Principal, Depends(auth.require_any("users:admin", "tenants:admin"))]) -> str:
        return caller.tenant

    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url=OWN) as client:
        yield client


def _bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def _cookie(token: str) -> dict[str, str]:
    return {"Cookie": f"lightbox_access={token}"}


async def test_header_and_cookie_both_let_in(client: httpx.AsyncClient, issuer: TokenIssuer) -> None:
    token = issuer.token_for("north", ["dicom:read"], "user:anna")
    assert (await client.get("/read", headers=_bearer(token))).json() == "north"
    assert (await client.get("/read", headers=_cookie(token))).json() == "north"


async def test_no_token_is_401_and_reported(
    client: httpx.AsyncClient, refused: list[tuple[str, str | None, int]]
) -> None:
    answer = await client.get("/read")
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"
    assert refused == [("/read", None, 401)]


async def test_a_missing_scope_is_403_and_reported_with_the_caller(
    client: httpx.AsyncClient, issuer: TokenIssuer, refused: list[tuple[str, str | None, int]]
) -> None:
    answer = await client.post("/write", headers=_bearer(issuer.token_for("north", ["dicom:read"], "user:anna")))
    assert answer.status_code == 403
    assert refused == [("/write", "user:anna", 403)]
    full = _bearer(issuer.token_for("north", ["dicom:read", "dicom:write"], "user:anna"))
    assert (await client.post("/write", headers=full)).status_code == 200


async def test_any_of_two_scopes(client: httpx.AsyncClient, issuer: TokenIssuer) -> None:
    for scope, status in (("users:admin", 200), ("tenants:admin", 200), ("dicom:read", 403)):
        answer = await client.get("/any", headers=_bearer(issuer.token_for("north", [scope], "user:anna")))
        assert answer.status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": OWN}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9090"}, 403),
        ({"Origin": "https://127.0.0.1:8080"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": OWN}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "none"}, 403),
    ],
    ids=str,
)
async def test_a_cookie_writes_only_from_our_own_pages(
    client: httpx.AsyncClient, issuer: TokenIssuer, headers: dict[str, str], status: int
) -> None:
    token = issuer.token_for("north", ["dicom:read", "dicom:write"], "user:anna")
    assert (await client.post("/write", headers=_cookie(token) | headers)).status_code == status


@pytest.mark.parametrize("header", ["Basic YTpi", "Bearer", "Bearer ", "token"])
async def test_another_authorization_does_not_fall_back_to_the_cookie(
    client: httpx.AsyncClient, issuer: TokenIssuer, header: str
) -> None:
    headers = _cookie(issuer.token_for("north", ["dicom:read"], "user:anna")) | {"Authorization": header}
    assert (await client.get("/read", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://pacs.example/", "https://pacs.example"),
        ("https://pacs.example:443/x", "https://pacs.example"),
        ("HTTP://Pacs.Example:80", "http://pacs.example"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_origins_are_written_as_browsers_do(url: str, origin: str) -> None:
    assert origin_of(url) == origin


def test_operators_exist_in_the_system_tenant_only() -> None:
    assert scopes_of(["operator"], "system") == {"tenants:admin"}
    assert scopes_of(["operator", "viewer"], "north") == {"dicom:read"}
    assert scopes_of(["radiologist", "no-such-role"], "north") == {"dicom:read", "dicom:write"}
    assert scopes_of(["radiologist"], "system") == frozenset()

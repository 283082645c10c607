"""If these fail, edges can't send, or a key rotation stops the installation, or a forged token is believed."""

import asyncio
import base64
import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.web.problems import Unauthorized
from services.identity.errors import KeysUnavailable
from services.identity.handlers.keys import load_keys
from services.identity.signing import make_key, unseal
from tests.services.identity.conftest import Identity, running
from tests.support.backing import Backing


async def test_a_client_gets_a_token_for_its_tenant(identity: Identity, tenant: str) -> None:
    secret = await identity.add_client(tenant, scopes=("dicom:read", "dicom:write"))
    answer = await identity.client_token(f"{tenant}.edge-1", secret)
    body = answer.json()
    assert answer.headers["cache-control"] == "no-store"
    assert (body["token_type"], body["expires_in"], body["scope"]) == ("Bearer", 600, "dicom:read dicom:write")
    principal = await identity.verifier().verify(body["access_token"])
    assert (principal.tenant, principal.subject, principal.is_user) == (tenant, "client:edge-1", False)
    assert principal.scopes == {"dicom:read", "dicom:write"}

    narrow = await identity.client_token(f"{tenant}.edge-1", secret, scope="dicom:write")
    assert narrow.json()["scope"] == "dicom:write"
    wide = await identity.client_token(f"{tenant}.edge-1", secret, scope="dicom:write users:admin")
    assert (wide.status_code, wide.json()["error"]) == (400, "invalid_scope")


async def test_basic_authentication_works_too(identity: Identity, tenant: str) -> None:
    secret = await identity.add_client(tenant)
    async with identity.browser() as browser:
        basic = httpx.BasicAuth(f"{tenant}.edge-1", secret)
        answer = await browser.post("/auth/token", data={"grant_type": "client_credentials"}, auth=basic)
        assert answer.status_code == 200
        both = {"grant_type": "client_credentials", "client_secret": secret}
        twice = await browser.post("/auth/token", data=both, auth=basic)
        assert (twice.status_code, twice.json()["error"]) == (400, "invalid_request")
        wrong = httpx.BasicAuth(f"{tenant}.edge-1", "no")
        refused = await browser.post("/auth/token", data={"grant_type": "client_credentials"}, auth=wrong)
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"].startswith("Basic")


@pytest.mark.parametrize(
    "client_id",
    ["{tenant}.edge-1", "{tenant}.nobody", "no-such-tenant.edge-1", "", ".", "x", "A'--.x", "{tenant}.\x00"],
)
async def test_a_wrong_client_or_secret_says_the_same(identity: Identity, tenant: str, client_id: str) -> None:
    await identity.add_client(tenant)
    answer = await identity.client_token(client_id.format(tenant=tenant), "wrong")
    assert answer.status_code == 401
    assert answer.json() == {"error": "invalid_client", "error_description": "The client or its secret is wrong."}


async def test_another_tenants_secret_opens_nothing(identity: Identity, tenant_pair: tuple[str, str]) -> None:
    north, south = tenant_pair
    secret = await identity.add_client(north)
    await identity.add_client(south)
    assert (await identity.client_token(f"{south}.edge-1", secret)).status_code == 401


async def test_wrong_secrets_lock_out_their_own_address_only(identity: Identity, tenant: str) -> None:
    secret = await identity.add_client(tenant)
    form = {"grant_type": "client_credentials", "client_id": f"{tenant}.edge-1", "client_secret": "wrong"}
    async with identity.browser("203.0.113.5") as attacker:
        codes = [(await attacker.post("/auth/token", data=form)).status_code for _ in range(11)]
        assert codes == [401] * 10 + [429]
        locked = await attacker.post("/auth/token", data=form | {"client_secret": secret})
        assert locked.status_code == 429
        assert 1 <= int(locked.headers["retry-after"]) <= 16
    assert (await identity.client_token(f"{tenant}.edge-1", secret)).status_code == 200


@pytest.mark.parametrize(
    ("body", "kind", "status", "error"),
    [
        (b"grant_type=password", "application/x-www-form-urlencoded", 400, "unsupported_grant_type"),
        (b"", "application/x-www-form-urlencoded", 400, "unsupported_grant_type"),
        (b"grant_type=a&grant_type=b", "application/x-www-form-urlencoded", 400, "invalid_request"),
        (b"{}", "application/json", 415, None),
        (b"&".join(b"a%d=1" % n for n in range(100)), "application/x-www-form-urlencoded", 400, None),
        (b"\xff\xfe=\x00", "application/x-www-form-urlencoded", 400, "unsupported_grant_type"),
        (b"grant_type=" + b"a" * 70000, "application/x-www-form-urlencoded", 413, None),
    ],
    ids=["password grant", "empty", "twice", "json", "many fields", "binary", "too large"],
)
async def test_malformed_token_requests_are_refused(
    identity: Identity, body: bytes, kind: str, status: int, error: str | None
) -> None:
    async with identity.browser() as browser:
        answer = await browser.post("/auth/token", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status
    assert answer.json().get("error") == error or error is None


async def test_a_rotated_secret_replaces_the_old_one(identity: Identity, tenant: str) -> None:
    old = await identity.add_client(tenant)
    answer = await identity.call("POST", f"/tenants/{tenant}/clients/edge-1/rotate")
    fresh = answer.json()["client_secret"]
    assert (await identity.client_token(f"{tenant}.edge-1", old)).status_code == 401
    assert (await identity.client_token(f"{tenant}.edge-1", fresh)).status_code == 200
    assert (await identity.call("DELETE", f"/tenants/{tenant}/clients/edge-1")).status_code == 204
    assert (await identity.client_token(f"{tenant}.edge-1", fresh)).status_code == 401
    assert (await identity.call("DELETE", f"/tenants/{tenant}/clients/edge-1")).status_code == 404


async def test_secrets_are_stored_as_hashes_and_shown_once(identity: Identity, tenant: str) -> None:
    secret = await identity.add_client(tenant)
    row = (await identity.sql("SELECT secret_hash FROM clients", tenant=tenant))[0]
    assert secret.encode() not in row["secret_hash"]
    assert secret not in (await identity.call("GET", f"/tenants/{tenant}/clients")).text


async def test_rotation_is_announced_before_it_signs_and_stops_nobody(
    identity: Identity, backing: Backing, tmp_path: Path, tenant: str
) -> None:
    secret = await identity.add_client(tenant)
    verifier = identity.verifier()
    before = (await identity.client_token(f"{tenant}.edge-1", secret)).json()["access_token"]
    await verifier.verify(before)

    answer = await identity.call("POST", "/keys/rotate")
    assert answer.status_code == 201
    key_id = answer.json()["key_id"]
    async with identity.browser() as browser:
        published = (await browser.get("/.well-known/jwks.json")).json()["keys"]
    assert key_id in {key["kid"] for key in published}
    assert all(set(key) == {"kty", "crv", "x", "y", "kid", "use", "alg"} for key in published)
    during = (await identity.client_token(f"{tenant}.edge-1", secret)).json()["access_token"]
    assert _key_id(during) == _key_id(before)
    assert (await identity.call("POST", "/keys/rotate")).status_code == 409

    # Its time comes; another replica notices too.
    await identity.sql("UPDATE signing_keys SET signs_from = now() - interval '1 s' WHERE id = $1", key_id)
    await load_keys(identity.app.state.resources)
    after = (await identity.client_token(f"{tenant}.edge-1", secret)).json()["access_token"]
    assert _key_id(after) == key_id
    async with running(backing, tmp_path) as replica:
        other = (await replica.client_token(f"{tenant}.edge-1", secret)).json()["access_token"]
    assert _key_id(other) == key_id
    for token in (before, during, after, other):
        assert (await verifier.verify(token)).tenant == tenant

    # Once its last token has ended, the old key is published no longer.
    await identity.sql("UPDATE signing_keys SET retires_at = now() - interval '1 s' WHERE id <> $1", key_id)
    await load_keys(identity.app.state.resources)
    with pytest.raises(Unauthorized):
        await identity.verifier().verify(before)
    assert (await identity.verifier().verify(after)).tenant == tenant


def _key_id(token: str) -> str:
    header = token.split(".", maxsplit=1)[0]
    found = re.search(rb'"kid":"(\w+)"', base64.urlsafe_b64decode(header + "=="))
    assert found
    return found[1].decode()


async def test_replicas_that_start_at_once_make_one_key(backing: Backing, identity: Identity, tmp_path: Path) -> None:
    kept = await identity.sql("DELETE FROM signing_keys RETURNING *")
    assert kept
    try:
        async with running(backing, tmp_path / "a") as a, running(backing, tmp_path / "b") as b:
            await asyncio.gather(*(load_keys(s.app.state.resources) for s in (a, b) for _ in range(5)))
            assert len(await identity.sql("SELECT 1 FROM signing_keys")) == 1
            rings = [s.app.state.resources.keys.ring.keys for s in (a, b)]
            assert rings[0][0].id == rings[1][0].id
    finally:
        await load_keys(identity.app.state.resources)


async def test_private_keys_are_sealed(identity: Identity, backing: Backing, tmp_path: Path) -> None:
    key = make_key(b"1" * 32, identity.app.state.resources.keys.ring.keys[0].signs_from)
    unseal(key, b"1" * 32)
    with pytest.raises(KeysUnavailable):
        unseal(key, b"2" * 32)
    moved = make_key(b"1" * 32, key.signs_from)
    with pytest.raises(KeysUnavailable):
        unseal(type(key)(moved.id, key.public_jwk, key.sealed, key.signs_from), b"1" * 32)
    # A service with another key-encryption key does not start signing with a key of its own: it is not ready.
    stranger = base64.b64encode(b"3" * 32).decode()
    async with (
        running(backing, tmp_path, becomes_ready=False, key_encryption_key=stranger) as service,
        service.browser() as browser,
    ):
        with pytest.raises(KeysUnavailable):
            await load_keys(service.app.state.resources)
        assert (await browser.get("/health/ready")).status_code == 503
        assert (await browser.get("/health/live")).status_code == 200
        assert (await browser.get("/.well-known/jwks.json")).status_code == 503


async def test_it_starts_and_answers_in_words_while_everything_is_away(tmp_path: Path, backing: Backing) -> None:
    away: dict[str, Any] = {
        "database_url": "postgresql+asyncpg://nobody:secret@127.0.0.1:9/lightbox",
        "kafka_bootstrap": "127.0.0.1:9",
    }
    async with running(backing, tmp_path, becomes_ready=False, **away) as service, service.browser() as browser:
        assert (await browser.get("/health/live")).status_code == 200
        assert (await browser.get("/health/ready")).status_code == 503
        page = await browser.get("/auth/login/north")
        assert page.status_code == 503
        assert "not available at the moment" in page.text
        assert page.headers["content-type"].startswith("text/html")
        assert page.headers["retry-after"]
        assert (await service.client_token("north.edge-1", "secret")).status_code == 503

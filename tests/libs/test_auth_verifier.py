"""If these fail, a forged, stale or foreign token opens patient data, or a key rotation logs everybody out."""

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections.abc import Iterator

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from libs.auth import TokenVerifier
from libs.web.problems import Unauthorized, Unavailable
from tests.support.tokens import TokenIssuer


@pytest.fixture
def issuer() -> Iterator[TokenIssuer]:
    running = TokenIssuer()
    yield running
    running.close()


@pytest.fixture
def verifier(issuer: TokenIssuer) -> TokenVerifier:
    return TokenVerifier(issuer.jwks_url, "lightbox", refetch_seconds=0)


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _with_claims(issuer: TokenIssuer, claims: dict[str, object]) -> str:
    """A well-signed token in which some claims are replaced; ``None`` leaves one out."""
    usual = jwt.decode(issuer.token_for("north", ["dicom:read"], "user:anna"), options={"verify_signature": False})
    key_id, key = issuer._keys[-1]
    present = {claim: value for claim, value in (usual | claims).items() if value is not None}
    return jwt.encode(present, key, algorithm="ES256", headers={"kid": key_id})


async def test_a_token_names_its_caller(issuer: TokenIssuer, verifier: TokenVerifier) -> None:
    principal = await verifier.verify(
        issuer.token_for(
            "north", ["dicom:read", "audit:read"], "user:anna", name="Anna", roles=["radiologist"], session="s1"
        )
    )
    assert (principal.tenant, principal.subject, principal.name) == ("north", "user:anna", "Anna")
    assert principal.scopes == {"dicom:read", "audit:read"}
    assert principal.roles == ("radiologist",)
    assert principal.session == "s1"
    assert principal.is_user
    assert principal.has("dicom:read")
    assert not principal.has("dicom:write")


async def test_the_public_key_as_hmac_secret_is_refused(issuer: TokenIssuer, verifier: TokenVerifier) -> None:
    key_id, key = issuer._keys[0]
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    claims = jwt.decode(issuer.token_for("north", []), options={"verify_signature": False})
    for algorithm in ("HS256", "ES256"):
        header = _b64(json.dumps({"alg": algorithm, "typ": "JWT", "kid": key_id}).encode())
        signed = f"{header}.{_b64(json.dumps(claims).encode())}"
        forged = hmac.new(public, signed.encode(), hashlib.sha256).digest()
        with pytest.raises(Unauthorized):
            await verifier.verify(f"{signed}.{_b64(forged)}")


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", ""])
async def test_unsigned_tokens_are_refused(issuer: TokenIssuer, verifier: TokenVerifier, algorithm: str) -> None:
    body = issuer.token_for("north", []).split(".")[1]
    header = _b64(json.dumps({"alg": algorithm, "kid": issuer._keys[0][0]}).encode())
    with pytest.raises(Unauthorized):
        await verifier.verify(f"{header}.{body}.")


async def test_a_key_that_nobody_published_is_refused(issuer: TokenIssuer, verifier: TokenVerifier) -> None:
    claims = jwt.decode(issuer.token_for("north", []), options={"verify_signature": False})
    stranger = ec.generate_private_key(ec.SECP256R1())
    for key_id in (issuer._keys[0][0], "unknown"):
        with pytest.raises(Unauthorized):
            await verifier.verify(jwt.encode(claims, stranger, algorithm="ES256", headers={"kid": key_id}))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": int(time.time()) - 60},
        {"exp": None},
        {"iat": None},
        {"iat": int(time.time()) + 3600},
        {"aud": "somewhere-else"},
        {"aud": ["lightbox", "other"]},
        {"aud": None},
        {"iss": "https://evil.example"},
        {"iss": None},
        {"tenant": None},
        {"tenant": "North' OR 1=1"},
        {"tenant": ["north"]},
        {"sub": None},
        {"sub": "anna"},
        {"sub": "user:a b"},
        {"scope": ["dicom:read"]},
        {"roles": "operator"},
        {"name": 7},
    ],
    ids=str,
)
async def test_wrong_claims_are_refused(
    issuer: TokenIssuer, verifier: TokenVerifier, claims: dict[str, object]
) -> None:
    with pytest.raises(Unauthorized):
        await verifier.verify(_with_claims(issuer, claims))


@pytest.mark.parametrize(
    "token", ["", ".", "..", "a.b.c", "é.è.ê", "x" * 9000, "eyJhbGciOiJFUzI1NiJ9.e30.AA", "\x00.\x00.\x00"]
)
async def test_garbage_is_refused(verifier: TokenVerifier, token: str) -> None:
    with pytest.raises(Unauthorized):
        await verifier.verify(token)


async def test_rotation_needs_no_restart(issuer: TokenIssuer, verifier: TokenVerifier) -> None:
    old = issuer.token_for("north", [])
    await verifier.verify(old)
    issuer.rotate()
    assert (await verifier.verify(issuer.token_for("south", []))).tenant == "south"
    assert (await verifier.verify(old)).tenant == "north"


async def test_cached_keys_outlive_the_identity_service(issuer: TokenIssuer) -> None:
    verifier = TokenVerifier(issuer.jwks_url, "lightbox", cache_seconds=0, refetch_seconds=0)
    await verifier.verify(issuer.token_for("north", []))
    issuer.away = True
    assert (await verifier.verify(issuer.token_for("north", []))).tenant == "north"


async def test_without_any_key_the_answer_is_unavailable_and_heals(
    issuer: TokenIssuer, verifier: TokenVerifier
) -> None:
    issuer.away = True
    with pytest.raises(Unavailable):
        await verifier.verify(issuer.token_for("north", []))
    issuer.away = False
    assert (await verifier.verify(issuer.token_for("north", []))).tenant == "north"


async def test_a_withdrawn_key_is_refused_once_the_cache_is_renewed(issuer: TokenIssuer) -> None:
    verifier = TokenVerifier(issuer.jwks_url, "lightbox", cache_seconds=0, refetch_seconds=0)
    leaked = issuer.token_for("north", [])
    await verifier.verify(leaked)
    issuer.rotate()
    del issuer._keys[0]
    with pytest.raises(Unauthorized):
        await verifier.verify(leaked)


async def test_made_up_key_ids_cause_no_flood_of_fetches(issuer: TokenIssuer) -> None:
    verifier = TokenVerifier(issuer.jwks_url, "lightbox", refetch_seconds=60)
    await verifier.verify(issuer.token_for("north", []))
    stranger = ec.generate_private_key(ec.SECP256R1())
    tokens = [jwt.encode({}, stranger, algorithm="ES256", headers={"kid": f"k{i}"}) for i in range(50)]
    outcomes = await asyncio.gather(*(verifier.verify(t) for t in tokens), return_exceptions=True)
    assert all(isinstance(outcome, Unauthorized) for outcome in outcomes)
    assert issuer.requests == 1

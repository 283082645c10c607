"""The keys that sign access tokens: made, sealed, published, and the tokens themselves.

A file of its own because it is cryptography: neither a rule of the domain nor input and output.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

import jwt
import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_private_key,
)
from jwt.algorithms import ECAlgorithm

from libs.auth import ALGORITHM, AUDIENCE, JWKS_CACHE_SECONDS
from services.identity.errors import KeysUnavailable

ANNOUNCED: Final = timedelta(seconds=2 * JWKS_CACHE_SECONDS)
"""How long a new key is published before it signs: by then every cache of the old key set has been renewed."""

AFTERGLOW: Final = timedelta(minutes=2)
"""How much longer than its last token an old key stays published, for clocks that differ."""


@dataclass(frozen=True)
class SealedKey:
    """A signing key as it is stored.

    Attributes:
        id: the ``kid``.
        public_jwk: the public half (RFC 7517).
        sealed: the private half, AES-256-GCM under the key-encryption key, bound to the id.
        signs_from: when it begins to sign.
        retires_at: when it is no longer published, once a successor is known.
    """

    id: str
    public_jwk: dict[str, Any]
    sealed: bytes
    signs_from: datetime
    retires_at: datetime | None = None


@dataclass(frozen=True)
class SigningKey:
    """A signing key that can be used. Its private half never shows in a log."""

    id: str
    public_jwk: dict[str, Any]
    private: EllipticCurvePrivateKey = field(repr=False)
    signs_from: datetime
    retires_at: datetime | None


@dataclass(frozen=True)
class KeyRing:
    """The keys known at a moment."""

    keys: tuple[SigningKey, ...] = ()

    def signing_key(self, now: datetime) -> SigningKey:
        """The newest key whose time has come.

        Raises:
            KeysUnavailable: none was loaded yet.
        """
        usable = [key for key in self.keys if key.retires_at is None or key.retires_at > now]
        if not usable:
            raise KeysUnavailable("There is no signing key yet.")
        due = [key for key in usable if key.signs_from <= now]
        # With a clock that is behind, no key may seem due; the oldest is, then.
        return max(due, key=_begin) if due else min(usable, key=_begin)

    def key_set(self, now: datetime) -> bytes:
        """The published key set as JSON: keys to come, the present one, and old ones with tokens still about."""
        keys = [key.public_jwk for key in self.keys if key.retires_at is None or key.retires_at > now]
        return orjson.dumps({"keys": keys})


class KeyHolder:
    """Holds the key ring of this process; a task renews it, so that replicas notice each other's keys."""

    def __init__(self, sealing_key: bytes) -> None:
        self.sealing_key = sealing_key
        self.ring = KeyRing()

    def load(self, stored: Iterable[SealedKey]) -> None:
        """Takes over the stored keys.

        Raises:
            KeysUnavailable: one can't be opened with our key-encryption key.
        """
        known = {key.id: key for key in self.ring.keys}
        self.ring = KeyRing(
            tuple(
                SigningKey(
                    key.id,
                    key.public_jwk,
                    known[key.id].private if key.id in known else unseal(key, self.sealing_key),
                    key.signs_from,
                    key.retires_at,
                )
                for key in stored
            )
        )


def _begin(key: SigningKey) -> datetime:
    return key.signs_from


def make_key(sealing_key: bytes, signs_from: datetime) -> SealedKey:
    """A new P-256 key, sealed.

    Arguments:
        sealing_key: the key-encryption key, 32 bytes.
        signs_from: when it begins to sign.
    """
    private = generate_private_key(SECP256R1())
    key_id = uuid4().hex
    content = private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    nonce = secrets.token_bytes(12)
    sealed = nonce + AESGCM(sealing_key).encrypt(nonce, content, key_id.encode())
    jwk = ECAlgorithm.to_jwk(private.public_key(), as_dict=True)
    return SealedKey(key_id, {**jwk, "kid": key_id, "use": "sig", "alg": ALGORITHM}, sealed, signs_from)


def unseal(key: SealedKey, sealing_key: bytes) -> EllipticCurvePrivateKey:
    """The private half.

    Raises:
        KeysUnavailable: it was sealed under another key-encryption key, or was changed.
    """
    try:
        content = AESGCM(sealing_key).decrypt(key.sealed[:12], key.sealed[12:], key.id.encode())
        private = load_der_private_key(content, None)
    except (InvalidTag, ValueError) as error:
        raise KeysUnavailable("A signing key can't be opened with this key-encryption key.") from error
    if not isinstance(private, EllipticCurvePrivateKey):
        raise KeysUnavailable("A signing key is of another kind.")
    return private


@dataclass(frozen=True)
class TokenMaker:
    """Signs access tokens.

    Attributes:
        holder: the keys.
        issuer: the ``iss``.
        seconds: lifetime of a token.
    """

    holder: KeyHolder
    issuer: str
    seconds: int

    def sign(
        self,
        tenant: str,
        subject: str,
        *,
        name: str,
        scopes: Iterable[str],
        roles: Iterable[str] = (),
        session: str | None = None,
        tenant_name: str = "",
    ) -> str:
        """An access token (RFC 7519). The name of the tenant is for people to read.

        Raises:
            KeysUnavailable: no key was loaded yet.
        """
        now = datetime.now(UTC)
        key = self.holder.ring.signing_key(now)
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": subject,
            "tenant": tenant,
            "name": name,
            "roles": list(roles),
            "scope": " ".join(sorted(scopes)),
            "iat": int(now.timestamp()),
            "exp": int(now.timestamp()) + self.seconds,
            "jti": uuid4().hex,
        }
        if session is not None:
            claims["sid"] = session
        if tenant_name:
            claims["tenant_name"] = tenant_name
        return jwt.encode(claims, key.private, algorithm=ALGORITHM, headers={"kid": key.id})

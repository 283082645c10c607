"""Tokens for tests: an ES256 key of our own, its JWKS on a small HTTP server, and a way to sign what a test needs."""

import json
import threading
import time
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm

AUDIENCE = "lightbox"
ISSUER = "lightbox"


class TokenIssuer:
    """Signs access tokens as the identity service does, and publishes the key.

    Attributes:
        issuer: the ``iss`` of its tokens.
        jwks_url: where the public keys are.
        requests: how often the keys were fetched.
        away: answer 503 instead of the keys.
    """

    def __init__(self, issuer: str = ISSUER) -> None:
        self.issuer = issuer
        self.requests = 0
        self.away = False
        self._keys: list[tuple[str, ec.EllipticCurvePrivateKey]] = []
        self.rotate()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self.jwks_url = f"http://127.0.0.1:{self._server.server_port}/.well-known/jwks.json"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def rotate(self) -> None:
        """Makes a new key, which signs from now on; the older ones stay published."""
        self._keys.append((uuid4().hex, ec.generate_private_key(ec.SECP256R1())))

    def jwks(self) -> dict[str, Any]:
        """The published keys (RFC 7517)."""
        keys = []
        for identifier, key in self._keys:
            jwk = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
            keys.append({**jwk, "kid": identifier, "use": "sig", "alg": "ES256"})
        return {"keys": keys}

    def token_for(
        self,
        tenant: str,
        scopes: Iterable[str],
        subject: str = "client:edge-1",
        *,
        name: str = "",
        roles: Iterable[str] = (),
        session: str | None = None,
        lifetime: int = 600,
        **claims: Any,
    ) -> str:
        """A signed token.

        Arguments:
            tenant: whose token it is.
            scopes: what it allows.
            subject: ``user:NAME`` or ``client:NAME``.
            name: what people call the subject; its name by default.
            roles: roles of a user.
            session: the session's identifier (``sid``).
            lifetime: seconds until it ends; negative for one that has ended.
            claims: further claims, or ``None`` to leave one out.
        """
        now = int(time.time())
        payload = {
            "iss": self.issuer,
            "aud": AUDIENCE,
            "sub": subject,
            "tenant": tenant,
            "name": name or subject.partition(":")[2],
            "roles": list(roles),
            "scope": " ".join(scopes),
            "iat": now,
            "exp": now + lifetime,
            "jti": uuid4().hex,
            **({"sid": session} if session else {}),
            **claims,
        }
        identifier, key = self._keys[-1]
        present = {claim: value for claim, value in payload.items() if value is not None}
        return jwt.encode(present, key, algorithm="ES256", headers={"kid": identifier})

    def header_for(
        self, tenant: str, scopes: Iterable[str], subject: str = "client:edge-1", **claims: Any
    ) -> dict[str, str]:
        """The ``Authorization`` header with such a token."""
        return {"Authorization": f"Bearer {self.token_for(tenant, scopes, subject, **claims)}"}

    def close(self) -> None:
        """Stops the server."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.requests += 1
                body = json.dumps(issuer.jwks()).encode()
                self.send_response(503 if issuer.away else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler


@pytest.fixture(scope="session")
def token_issuer() -> Iterator[TokenIssuer]:
    """The issuer of the test run: import it in a conftest, or name this module as a plugin."""
    issuer = TokenIssuer()
    yield issuer
    issuer.close()

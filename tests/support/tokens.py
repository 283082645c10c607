"""A small token issuer for tests: it signs as the identity service does and publishes its keys over HTTP."""

import json
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from jwt.algorithms import ECAlgorithm


class TokenIssuer:
    """Publishes keys at ``jwks_url`` while the context is open; ``token`` signs with the newest key.

    Attributes:
        issuer: the ``iss`` of the tokens.
        fetches: how often the keys were fetched.
        down: when set, the keys answer 503.
    """

    def __init__(self, issuer: str = "lightbox") -> None:
        self.issuer = issuer
        self.fetches = 0
        self.down = False
        self.keys: list[tuple[str, ec.EllipticCurvePrivateKey]] = []
        self.add_key()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.jwks_url = f"http://127.0.0.1:{self._server.server_port}/.well-known/jwks.json"

    def __enter__(self) -> Self:
        """Starts serving."""
        Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stops serving."""
        self._server.shutdown()
        self._server.server_close()

    def add_key(self) -> str:
        """Publishes a new key, with which tokens are signed from now on."""
        key_id = uuid4().hex
        self.keys.append((key_id, ec.generate_private_key(ec.SECP256R1())))
        return key_id

    def jwks(self) -> dict[str, Any]:
        """The published key set."""
        return {
            "keys": [
                {**ECAlgorithm.to_jwk(key.public_key(), as_dict=True), "kid": key_id, "use": "sig", "alg": "ES256"}
                for key_id, key in self.keys
            ]
        }

    def token(
        self,
        tenant: str,
        *scopes: str,
        subject: str = "user:anna",
        name: str = "Anna",
        roles: tuple[str, ...] = (),
        lifetime: float = 600,
        claims: Mapping[str, Any] | None = None,
    ) -> str:
        """A token for the tenant; ``claims`` replaces or adds some, ``None`` removes one."""
        now = int(time.time())
        body = {
            "iss": self.issuer,
            "aud": "lightbox",
            "sub": subject,
            "tenant": tenant,
            "name": name,
            "roles": list(roles),
            "scope": " ".join(scopes),
            "iat": now,
            "exp": int(now + lifetime),
            "jti": uuid4().hex,
            **(claims or {}),
        }
        key_id, key = self.keys[-1]
        present = {claim: value for claim, value in body.items() if value is not None}
        return jwt.encode(present, key, algorithm="ES256", headers={"kid": key_id})

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.fetches += 1
                body = json.dumps(outer.jwks()).encode()
                self.send_response(503 if outer.down else 200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        return Handler

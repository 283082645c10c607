"""A small STOW-RS server with a token endpoint: keeps what it gets, and fails in the ways a test asks for."""

import hashlib
import json
import re
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from libs.dicom.part10 import read_file_meta

Parts = list[tuple[str, bytes]]
Reply = tuple[int, dict[str, str], bytes]
Behaviour = Callable[["StowServer", Parts], Reply | None]
"""Given the parts (SOP Instance UID, file), either a reply, or None to store as usual."""


@dataclass
class StowServer:
    """The cloud's side of the edge.

    Attributes:
        stored: file by SOP Instance UID and SHA-256.
        times: how often each of them was stored.
        requests: sizes of the batches, in instances.
        behave: what to do instead of storing.
        tokens: the tokens that are good.
    """

    stored: dict[tuple[str, str], bytes] = field(default_factory=dict)
    times: Counter[tuple[str, str]] = field(default_factory=Counter)
    requests: list[int] = field(default_factory=list)
    behave: Behaviour | None = None
    tokens: set[str] = field(default_factory=set)
    tokens_given: int = 0
    connections: set[socket.socket] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)
    port: int = 0
    _server: ThreadingHTTPServer | None = None

    def reset(self) -> None:
        with self.lock:
            self.stored.clear()
            self.times.clear()
            self.requests.clear()
            self.behave = None

    def start(self) -> None:
        if self._server:
            return
        server = ThreadingHTTPServer(("127.0.0.1", self.port), type("Handler", (_Handler,), {"cloud": self}))
        server.daemon_threads = True
        self.port = server.server_address[1]
        self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
        with self.lock:
            connections, self.connections = self.connections, set()
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def store(self, parts: Parts) -> Reply:
        items = []
        for uid, file in parts:
            digest = hashlib.sha256(file).hexdigest()
            with self.lock:
                self.stored[uid, digest] = file
                self.times[uid, digest] += 1
            items.append(item(uid, digest))
        return answer(items, [])

    def files(self) -> list[bytes]:
        with self.lock:
            return list(self.stored.values())

    def uids(self) -> set[str]:
        with self.lock:
            return {uid for uid, _ in self.stored}


def item(uid: str, digest: str) -> dict[str, Any]:
    return {
        "00081155": {"vr": "UI", "Value": [uid]},
        "00090010": {"vr": "LO", "Value": ["LIGHTBOX"]},
        "00091001": {"vr": "LO", "Value": [digest]},
    }


def failure(uid: str, reason: int) -> dict[str, Any]:
    return {"00081155": {"vr": "UI", "Value": [uid]}, "00081197": {"vr": "US", "Value": [reason]}}


def answer(stored: list[dict[str, Any]], failed: list[dict[str, Any]]) -> Reply:
    body: dict[str, Any] = {}
    if stored:
        body["00081199"] = {"vr": "SQ", "Value": stored}
    if failed:
        body["00081198"] = {"vr": "SQ", "Value": failed}
    status = 200 if not failed else 202 if stored else 409
    return status, {"Content-Type": "application/dicom+json"}, json.dumps(body).encode()


class _Handler(BaseHTTPRequestHandler):
    cloud: StowServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def setup(self) -> None:
        super().setup()
        with self.cloud.lock:
            self.cloud.connections.add(self.connection)

    def finish(self) -> None:
        with self.cloud.lock:
            self.cloud.connections.discard(self.connection)
        super().finish()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if len(body) < int(self.headers["Content-Length"]):
            return
        if self.path == "/auth/token":
            self._token()
        elif self.path == "/dicom-web/studies":
            self._store(body)
        else:
            self._reply(404, {}, b"{}")

    def _token(self) -> None:
        with self.cloud.lock:
            self.cloud.tokens_given += 1
            token = f"token-{self.cloud.tokens_given}"
            self.cloud.tokens.add(token)
        reply = {"access_token": token, "token_type": "Bearer", "expires_in": 600, "scope": "dicom:write"}
        self._reply(200, {"Content-Type": "application/json"}, json.dumps(reply).encode())

    def _store(self, body: bytes) -> None:
        if self.headers["Authorization"].removeprefix("Bearer ") not in self.cloud.tokens:
            self._reply(401, {}, b"{}")
            return
        boundary = re.search(r"boundary=(\S+)", self.headers["Content-Type"])
        assert boundary
        parts = []
        for part in body.split(f"--{boundary[1]}".encode())[1:-1]:
            file = part.removeprefix(b"\r\nContent-Type: application/dicom\r\n\r\n").removesuffix(b"\r\n")
            parts.append((read_file_meta(file).sop_instance_uid, file))
        with self.cloud.lock:
            self.cloud.requests.append(len(parts))
        reply = self.cloud.behave(self.cloud, parts) if self.cloud.behave else None
        self._reply(*(reply or self.cloud.store(parts)))

    def _reply(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

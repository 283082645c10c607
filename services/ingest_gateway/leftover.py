"""What to do with the rest of a body that is not wanted: a request that is refused early is still being sent."""

import asyncio
import time
from contextlib import suppress
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_SMALL: Final = (1 << 20, 0.5)
"""Bytes and seconds: a rest that is no larger is read, and the connection is kept."""
_LINGER: Final = (256 << 20, 5.0)
"""Bytes and seconds for which the connection stays after the answer, so that a busy sender gets to read it."""


class LeftoverBody:
    """Answers a request whose body is still under way, and ends the connection soon after.

    Without it the server would read a refused body of gigabytes to its end to keep the connection; and a connection
    that is closed at once resets, so that the sender sees no answer. A sender that waits for ``100 Continue`` is told
    to go.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection event (ASGI 3.0)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send)
        await self._app(scope, exchange.receive, exchange.send)


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        self._receive = receive
        self._send = send
        self._ended = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        self._waiting = headers.get(b"expect", b"").lower() == b"100-continue"
        self._closing = False

    async def receive(self) -> Message:
        self._waiting = False
        message = await self._receive()
        self._ended = self._ended or message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start" and not self._ended:
            await self._drain(*_SMALL)
            if not self._ended:
                self._closing = True
                message["headers"] = [*message["headers"], (b"connection", b"close")]
        if self._closing and message["type"] == "http.response.body" and not message.get("more_body", False):
            await self._send({**message, "more_body": True})
            await self._drain(*_LINGER)
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)

    async def _drain(self, size: int, seconds: float) -> None:
        """Drops what arrives, within bounds; a sender that has not begun is not invited to."""
        deadline = time.monotonic() + seconds
        with suppress(TimeoutError):
            while not self._ended and not self._waiting and size > 0:
                async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                    size -= len((await self.receive()).get("body", b""))

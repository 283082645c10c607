"""What to do with the rest of a body that is not wanted: a request that is refused early is still being sent."""

import asyncio
import time
from contextlib import suppress
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DRAINED: Final = 8 << 20
"""Bytes that are still taken, so that an ordinary sender gets to read the answer."""
_DRAIN_SECONDS: Final = 3.0


class LeftoverBody:
    """Reads a little of what is left of a body before the answer goes out; closes the connection if more is coming.

    Without it the server would read a refused body of gigabytes to its end to keep the connection, or the sender would
    see a reset instead of the answer. A sender that waits for ``100 Continue`` is answered at once.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection event (ASGI 3.0)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        ended = headers.get(b"content-length", b"0") == b"0" and b"transfer-encoding" not in headers
        begun = False

        async def watched() -> Message:
            nonlocal ended, begun
            message = await receive()
            begun = True
            ended = ended or message["type"] != "http.request" or not message.get("more_body", False)
            return message

        async def drain() -> None:
            taken, deadline = 0, time.monotonic() + _DRAIN_SECONDS
            with suppress(TimeoutError):
                while not ended and taken < _DRAINED:
                    async with asyncio.timeout(max(0.0, deadline - time.monotonic())):
                        taken += len((await watched()).get("body", b""))

        async def finishing(message: Message) -> None:
            if message["type"] == "http.response.start" and not ended:
                if begun or headers.get(b"expect", b"").lower() != b"100-continue":
                    await drain()
                if not ended:
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, watched, finishing)

"""A TCP line that fails as lines do: it is cut, slows down, goes silent, loses a connection in the middle of a message.

The proxy listens on a port of its own and keeps it while the line is cut. What is wrong is set for all connections, or
one by one for those to come, and ends with ``mend``. All proxies of a process share one thread with one event loop.
"""

import asyncio
import socket
import struct
import threading
from collections import deque
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Literal, TypeVar

from deploy.local.ports import find_free

T = TypeVar("T")
Kind = Literal["cut", "reset", "delay", "swallow", "trickle", "narrow"]
_READ: Final = 64 << 10
_SLICES: Final = 20
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER of no time: closing sends RST instead of FIN."""


@dataclass(frozen=True)
class LineFault:
    """What is wrong with a line.

    Attributes:
        kind: ``cut`` ends what is open and refuses what is new; ``reset`` breaks a connection off in mid-stream;
            ``delay`` holds every piece back; ``swallow`` leaves the connection open and loses what is sent (half-open);
            ``trickle`` lets one byte a second through; ``narrow`` bounds the bytes a second.
        after: bytes from the client that a connection lets through unharmed before it begins; no matter for ``cut``.
        amount: seconds of ``delay``; bytes a second of ``narrow``.
    """

    kind: Kind
    after: int = 0
    amount: float = 0.0


class FaultProxy:
    """A line to a port of this machine. Its methods may be called from any thread.

    Arguments:
        target: the port that it leads to.

    Attributes:
        port: where it listens; it stays the same.
        accepted: connections so far.
    """

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = find_free(set())
        self.accepted = 0
        self._fault: LineFault | None = None
        self._next: deque[LineFault | None] = deque()
        self._connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None
        _on_loop(self._listen())

    def inject(self, fault: LineFault) -> None:
        """Something is wrong with all connections from now on, those that are open and those to come."""
        _on_loop(self._inject(fault))

    def script(self, faults: Iterable[LineFault | None]) -> None:
        """What is wrong with each of the connections to come, one by one; ``None`` is a good one."""
        self._next.extend(faults)

    def mend(self) -> None:
        """All is well again. A connection that has lost bytes can't go on, so it is reset."""
        _on_loop(self._mend())

    def cut(self) -> None:
        """Ends all connections and refuses new ones until ``mend``."""
        self.inject(LineFault("cut"))

    def close(self) -> None:
        """Ends the line."""
        _on_loop(self._close())

    async def _listen(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        own = self._next.popleft() if self._next else None
        connection = _Connection(reader, writer, own or self._fault)
        self._connections.add(connection)
        _open.add(connection)
        try:
            await connection.run(self.target)
        finally:
            self._connections.discard(connection)
            _open.discard(connection)

    async def _inject(self, fault: LineFault) -> None:
        self._fault = fault
        if fault.kind == "cut":
            await self._stop_listening()
        for connection in list(self._connections):
            connection.suffer(fault)

    async def _mend(self) -> None:
        self._fault = None
        self._next.clear()
        for connection in list(self._connections):
            connection.recover()
        await self._listen()

    async def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def _close(self) -> None:
        await self._stop_listening()
        for connection in list(self._connections):
            connection.reset()


class _Connection:
    """One connection of a client, and the one to the server that belongs to it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, fault: LineFault | None) -> None:
        self._near = (reader, writer)
        self._writers = [writer]
        self._fault = fault
        self._unharmed = fault.after if fault else 0
        self._lost = False
        self._changed = asyncio.Event()

    async def run(self, target: int) -> None:
        """Carries bytes both ways until both ends have finished, or the connection is broken off."""
        try:
            far = await asyncio.open_connection("127.0.0.1", target)
        except OSError:
            self.reset()
            return
        self._writers.append(far[1])
        try:
            await asyncio.gather(self._carry(self._near[0], far[1], ours=True), self._carry(far[0], self._near[1]))
        except OSError:
            self.reset()
        finally:
            for writer in self._writers:
                writer.close()

    def suffer(self, fault: LineFault) -> None:
        """Something is wrong from now on."""
        self._fault, self._unharmed = fault, fault.after
        if fault.kind == "cut":
            for writer in self._writers:
                writer.close()
        self._notify()

    def recover(self) -> None:
        """All is well again, unless bytes were lost."""
        self._fault = None
        if self._lost:
            self.reset()
        self._notify()

    def reset(self) -> None:
        """Breaks the connection off at both ends."""
        for writer in self._writers:
            connection = writer.get_extra_info("socket")
            with suppress(OSError):
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def _carry(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, ours: bool = False) -> None:
        while data := await source.read(_READ):
            if ours and self._fault is not None and self._unharmed > 0:
                sink.write(data[: self._unharmed])
                data, self._unharmed = data[self._unharmed :], max(0, self._unharmed - len(data))
            await self._pass(data, sink)
            await sink.drain()
        if not self._lost and sink.can_write_eof():
            sink.write_eof()

    async def _pass(self, data: bytes, sink: asyncio.StreamWriter) -> None:
        """Passes a piece on, as well as the line allows."""
        while data:
            fault = self._fault if self._unharmed <= 0 else None
            if fault is None or fault.kind == "cut":
                sink.write(data)
                return
            if fault.kind == "swallow":
                self._lost = True
                return
            if fault.kind == "reset":
                self.reset()
                return
            if fault.kind == "delay":
                await self._pause(fault.amount)
                sink.write(data)
                return
            slow = fault.kind == "trickle"
            share = 1 if slow else max(1, int(fault.amount / _SLICES))
            sink.write(data[:share])
            data = data[share:]
            await self._pause(1.0 if slow else 1.0 / _SLICES)

    async def _pause(self, seconds: float) -> None:
        """Waits, at most until the line is another one."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()


_open: Final[set[_Connection]] = set()
"""Of all lines: a loop keeps a transport whose reading is paused only as long as somebody else does."""


@cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="fault proxies", daemon=True).start()
    return loop


def _on_loop(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run_coroutine_threadsafe(work, _loop()).result(10)

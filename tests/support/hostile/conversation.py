"""Holding the conversation of a hostile peer."""

import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from tests.support.hostile.peers import HostilePeer

_HEADER: Final = 6
_P_DATA: Final = 0x04
_STATUS: Final = struct.pack("<HHI", 0x0000, 0x0900, 2)


def converse(
    peer: HostilePeer, connect: Callable[[], socket.socket], called: str, *, patience: float
) -> tuple[bool, list[int]]:
    """Says everything that the peer has to say.

    Arguments:
        peer: who speaks.
        connect: makes a connection, TLS or plain.
        called: the AE title that it calls.
        patience: seconds to wait for an answer, or for the other side to end it.

    Returns:
        Whether the other side ended each connection of a patient peer (true for one that is not), and the statuses of
        the responses.
    """
    sides = [_Side(peer, connect, called, patience) for _ in range(peer.connections)]
    for side in sides:
        side.start()
    for side in sides:
        side.join(2 * patience + 60)
    return all(side.ended for side in sides), [status for side in sides for status in side.statuses]


class _Side(threading.Thread):
    def __init__(self, peer: HostilePeer, connect: Callable[[], socket.socket], called: str, patience: float) -> None:
        super().__init__(daemon=True)
        self.ended = False
        self.statuses: list[int] = []
        self._peer = peer
        self._connect = connect
        self._called = called
        self._patience = patience

    def run(self) -> None:
        try:
            connected = self._connect()
        except OSError:
            self.ended = True  # turned away
            return
        with connected:
            connected.settimeout(self._patience)
            self.ended = self._say(connected) or not self._peer.patient or self._listen(connected)

    def _say(self, connected: socket.socket) -> bool:
        """Whether the other side ended it meanwhile."""
        try:
            for piece in self._peer.script(self._called):
                if piece:
                    connected.sendall(piece)
                elif self._hear(connected) is None:
                    return True
        except TimeoutError:
            return False
        except OSError:
            return True
        return False

    def _listen(self, connected: socket.socket) -> bool:
        """Reads until the other side ends it; false when patience ends first."""
        deadline = time.monotonic() + self._patience
        with suppress(OSError):
            while time.monotonic() < deadline:
                try:
                    if self._hear(connected) is None:
                        return True
                except TimeoutError:
                    return False
            return False
        return True

    def _hear(self, connected: socket.socket) -> bytes | None:
        """One PDU; none when the connection has ended."""
        header = _exactly(connected, _HEADER)
        if header is None:
            return None
        body = _exactly(connected, int.from_bytes(header[2:], "big"))
        if body is not None and header[0] == _P_DATA and (at := body.find(_STATUS)) >= 0:
            self.statuses.append(int.from_bytes(body[at + 8 : at + 10], "little"))
        return body


def _exactly(connected: socket.socket, size: int) -> bytes | None:
    found = b""
    while len(found) < size:
        more = connected.recv(size - len(found))
        if not more:
            return None
        found += more
    return found

"""pynetdicom's upper layer (PS3.8), bounded: how much a peer may send, how slowly, and what an association may declare.

It also answers at once: senders leave Nagle's algorithm on, so that a receiver that delays its acknowledgements makes
every message cost 40 ms. ``TCP_NODELAY`` cures our replies and ``TCP_QUICKACK``, set again after each read, theirs.
"""

import socket
import struct
import threading
import time
from dataclasses import dataclass
from typing import Any, Final

import structlog
from pynetdicom.transport import AssociationSocket, RequestHandler, ThreadedAssociationServer

MAXIMUM_PDU: Final = 128 * 1024
_HEADER: Final = 6
_P_DATA: Final = 0x04
_ASSOCIATE_REQUEST: Final = 0x01
_KNOWN_PDUS: Final = range(0x01, 0x08)
_LARGEST_P_DATA: Final = 8 * MAXIMUM_PDU
_LARGEST_OTHER: Final = 256 * 1024
_MOST_ITEMS: Final = 8192
_BUFFER: Final = 256 * 1024
_PDU_SECONDS: Final = 30.0
_MESSAGE_GRACE_SECONDS: Final = 60.0
_SLOWEST_BYTES_PER_SECOND: Final = 4096
_SPARE_CONNECTIONS: Final = 16
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
_log = structlog.get_logger(__name__)


class PeerOutOfBounds(OSError):
    """The peer sent too much, too slowly, or something that can't be; its connection is closed."""


@dataclass(frozen=True)
class Limits:
    """What one peer may do.

    Attributes:
        message: the most bytes of one message.
        receiving: the most bytes of all messages under way together.
        negotiation: seconds from the connection to a complete association request.
    """

    message: int
    receiving: int
    negotiation: float


class _Budget:
    """The memory that all messages under way share."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._lock = threading.Lock()

    def take(self, size: int) -> None:
        with self._lock:
            if self._used + size > self._limit:
                raise PeerOutOfBounds("the memory for messages under way is used up")
            self._used += size

    def give_back(self, size: int) -> None:
        with self._lock:
            self._used -= size


class BoundedSocket(AssociationSocket):
    """An association's socket that reads in large pieces and keeps to the limits."""

    def __init__(self, assoc: Any, client_socket: socket.socket, limits: Limits, budget: _Budget) -> None:
        super().__init__(assoc, client_socket=client_socket)
        self._limits = limits
        self._budget = budget
        self._buffer = memoryview(bytearray(_BUFFER))
        self._start = self._end = 0
        self._body_of: int | None = None
        self._message = 0
        self._message_began = 0.0
        self._deadline = time.monotonic() + limits.negotiation
        self._established = False
        self._peer = str(client_socket.getpeername()[0])
        client_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        second = struct.pack("ll", 1, 0)
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, second)
        client_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(_PDU_SECONDS), 0))

    @property
    def ready(self) -> bool:
        """Whether there is something to read."""
        return self._start < self._end or super().ready

    def recv(self, nr_bytes: int) -> bytearray:
        """Reads exactly so many bytes, or fewer when the peer has closed.

        Raises:
            PeerOutOfBounds: the peer does not keep to the limits; the connection is closed.
            OSError: the connection is broken.
        """
        try:
            return self._receive(nr_bytes)
        except PeerOutOfBounds as error:
            _log.warning("closed a connection", reason=str(error), peer=self._peer)
            self._forget_message()
            self._start = self._end = 0
            self._is_connected = False
            self._shutdown_socket()
            raise

    def _receive(self, nr_bytes: int) -> bytearray:
        if self._body_of is None:
            if self._established:
                self._deadline = time.monotonic() + _PDU_SECONDS
            header = self._read(nr_bytes)
            if len(header) == _HEADER and header[0] in _KNOWN_PDUS:
                self._body_of = header[0]
                self._check_length(header[0], int.from_bytes(header[2:], "big"))
            return header
        kind, self._body_of = self._body_of, None
        body = self._read(nr_bytes)
        if kind == _ASSOCIATE_REQUEST:
            check_association_request(body)
            self._established = True
        return body

    def send(self, bytestream: bytes) -> None:
        """Sends; an answer means that the message under way has been dealt with."""
        self._forget_message()
        super().send(bytestream)

    def close(self) -> None:
        """Closes the connection."""
        self._forget_message()
        super().close()

    def _forget_message(self) -> None:
        size, self._message = self._message, 0
        if size:
            self._budget.give_back(size)

    def _check_length(self, kind: int, length: int) -> None:
        if length > (_LARGEST_P_DATA if kind == _P_DATA else _LARGEST_OTHER):
            raise PeerOutOfBounds(f"a PDU of type {kind} declares {length} bytes")
        if kind != _P_DATA:
            return
        now = time.monotonic()
        if not self._message:
            self._message_began = now
        if self._message + length > self._limits.message:
            raise PeerOutOfBounds(f"a message is larger than {self._limits.message} bytes")
        self._budget.take(length)
        self._message += length
        allowed = _MESSAGE_GRACE_SECONDS + self._message / _SLOWEST_BYTES_PER_SECOND
        if now - self._message_began > allowed:
            raise PeerOutOfBounds("a message takes too long")

    def _read(self, size: int) -> bytearray:
        result = bytearray(size)
        view = memoryview(result)
        done = 0
        while done < size:
            if self._start == self._end:
                direct = size - done >= _BUFFER
                count = self._fill(view[done:] if direct else self._buffer)
                if not count:
                    return result[:done]
                if direct:
                    done += count
                    continue
                self._start, self._end = 0, count
            step = min(size - done, self._end - self._start)
            view[done : done + step] = self._buffer[self._start : self._start + step]
            self._start += step
            done += step
        return result

    def _fill(self, target: memoryview) -> int:
        """One read from the connection, acknowledged to the peer at once; 0 when it has closed."""
        connection = self.socket
        while connection is not None:
            try:
                count = connection.recv_into(target)
            except BlockingIOError:
                if time.monotonic() > self._deadline:
                    raise PeerOutOfBounds("the peer is too slow") from None
                continue
            if _QUICKACK is not None:
                connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            if time.monotonic() > self._deadline:
                raise PeerOutOfBounds("the peer is too slow")
            return count
        return 0


def check_association_request(body: bytes | bytearray) -> None:
    """Checks that the items of an A-ASSOCIATE-RQ lie within it (PS3.8 section 9.3.2).

    Arguments:
        body: the PDU after its six bytes of type and length.

    Raises:
        PeerOutOfBounds: an item reaches beyond what contains it, or there are too many.
    """
    left = _MOST_ITEMS
    pending = [(68, len(body))]
    while pending:
        position, end = pending.pop()
        while position < end:
            left -= 1
            if left < 0:
                raise PeerOutOfBounds("an association request has too many items")
            if position + 4 > end:
                raise PeerOutOfBounds("an association request ends in the middle of an item")
            kind = body[position]
            start = position + 4
            position = start + int.from_bytes(body[position + 2 : start], "big")
            if position > end:
                raise PeerOutOfBounds("an item of an association request is longer than what contains it")
            if kind == 0x20:  # a presentation context: identifier and three reserved bytes, then sub-items
                pending.append((start + 4, position))
            elif kind == 0x50:  # user information
                pending.append((start, position))


class BoundedRequestHandler(RequestHandler):
    """Gives each association a bounded socket."""

    server: "BoundedServer"

    def _create_association(self) -> Any:
        association = super()._create_association()
        bounded = BoundedSocket(association, self.request, self.server.limits, self.server.budget)
        association.dul.socket = bounded
        # Both sockets announced the connection (Evt5); the state machine may see that once.
        association.dul.event_queue.get_nowait()
        return association


class BoundedServer(ThreadedAssociationServer):
    """Listens, and turns away connections beyond what the associations allowed could need."""

    limits: Limits
    budget: _Budget
    request_queue_size = 128
    daemon_threads = True

    def __init__(self, *arguments: Any, limits: Limits, **options: Any) -> None:
        self.limits = limits
        self.budget = _Budget(limits.receiving)
        super().__init__(*arguments, **options)

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether the connection may go on to negotiate."""
        most = self.ae.maximum_associations + _SPARE_CONNECTIONS
        if len(self.active_associations) < most:
            return True
        _log.warning("too many connections; one was closed", peer=str(client_address[0]))
        return False

"""A connection that reads whole PDUs into one buffer, within bounds, and acknowledges at once.

Real senders leave Nagle's algorithm on: a receiver that delays its acknowledgements makes every message cost 40 ms.
``TCP_NODELAY`` cures our answers, ``TCP_QUICKACK``, set again after each read since Linux forgets it, cures theirs.
"""

import select
import socket
import ssl
import struct
import time
from contextlib import suppress
from typing import Final

from libs.dimse.errors import UNRECOGNISED_PDU, ConnectionEnded, InvalidPdu, PeerOutOfBounds
from libs.dimse.pdu import ASSOCIATE_RQ, HEADER, KNOWN_PDUS, P_DATA, parse_header

MAXIMUM_LENGTH: Final = 128 * 1024
"""The longest P-DATA-TF body that we take, and announce."""
LARGEST_ASSOCIATE_RQ: Final = 256 * 1024
LARGEST_OTHER: Final = 1024
"""Release and abort have four bytes; what is longer is no DICOM."""
_BUFFER: Final = 2 * MAXIMUM_LENGTH + 2 * HEADER
_FIRST_BUFFER: Final = 8 * 1024
_READ_AHEAD: Final = 4 * 1024
_TICK: Final = 0.5
_SEND_SECONDS: Final = 30.0
_FAREWELL_SECONDS: Final = 2.0
_MOST_PEEKED: Final = 64 * 1024
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)
_NOTHING_YET: Final = (BlockingIOError, TimeoutError, ssl.SSLWantReadError)


class Connection:
    """One connection. One thread reads and writes; ``interrupt`` may come from any.

    Arguments:
        connected: the socket, TLS or plain.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        # Small until there is an association: a connection that says nothing costs little.
        self._view = memoryview(bytearray(_FIRST_BUFFER))
        self._start = self._end = 0
        self.interrupted = False
        self.deadline = 0.0
        """When a read gives up, on the monotonic clock."""
        self.pause = 30.0
        """Seconds without a byte in mid-PDU after which a read gives up."""
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if isinstance(connected, ssl.SSLSocket):
            connected.settimeout(_TICK)
        else:
            # A time-out of the kernel's, since one of Python's costs a system call before each read.
            connected.settimeout(None)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_TICK))
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(_SEND_SECONDS))

    def read_pdu(self) -> tuple[int, memoryview]:
        """Type and body of the next PDU. The body is valid until the next call.

        Raises:
            InvalidPdu: the type is not known, or its length is out of bounds.
            PeerOutOfBounds: it does not come in time.
            ConnectionEnded: the peer closed, or the connection broke.
        """
        self._fill(HEADER)
        kind, length = parse_header(self._view[self._start : self._start + HEADER])
        if kind not in KNOWN_PDUS:
            raise InvalidPdu(f"a PDU of unknown type {kind}", UNRECOGNISED_PDU)
        if length > _most(kind):
            raise InvalidPdu(f"a PDU of type {kind} declares {length} bytes")
        self._fill(HEADER + length)
        begin = self._start + HEADER
        self._start = begin + length
        return kind, self._view[begin : self._start]

    def _fill(self, wanted: int) -> None:
        """Reads until so many bytes are there."""
        if self._end - self._start >= wanted:
            return
        if self._start and (self._start == self._end or len(self._view) - self._start < wanted):
            self._move_into(self._view)
        if len(self._view) < wanted:
            self._move_into(memoryview(bytearray(_BUFFER)))
        last = time.monotonic()
        # Little more than is wanted, so that little of the next PDU has to be moved to the front.
        stop = self._start + wanted + _READ_AHEAD
        while self._end - self._start < wanted:
            if self.interrupted:
                raise ConnectionEnded("interrupted")
            try:
                count = self._socket.recv_into(self._view[self._end : stop])
            except _NOTHING_YET:
                count = -1
            except OSError as error:
                raise ConnectionEnded(str(error)) from error
            if count == 0:
                raise ConnectionEnded("the peer closed the connection")
            now = time.monotonic()
            if count > 0:
                self.acknowledge()
                self._end += count
                last = now
            if now > self.deadline or (self._end > self._start and now - last > self.pause):
                raise PeerOutOfBounds("the peer is too slow")

    def _move_into(self, view: memoryview) -> None:
        left = self._end - self._start
        view[:left] = self._view[self._start : self._end]
        self._view, self._start, self._end = view, 0, left

    def acknowledge(self) -> None:
        """Sends the TCP acknowledgement now."""
        if _QUICKACK is not None:
            with suppress(OSError):
                self._socket.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)

    def send(self, data: bytes) -> None:
        """Sends all of it.

        Raises:
            ConnectionEnded: the peer does not take it, or the connection broke.
        """
        tls = isinstance(self._socket, ssl.SSLSocket)
        try:
            if tls:
                self._socket.settimeout(_SEND_SECONDS)
            self._socket.sendall(data)
        except OSError as error:
            raise ConnectionEnded(f"the peer took no answer: {error}") from error
        finally:
            if tls:
                self._socket.settimeout(_TICK)

    def interrupt(self) -> None:
        """Wakes the thread that reads, which gives up."""
        self.interrupted = True
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RD)

    def close(self, *, after_answer: bool = False) -> None:
        """Closes the connection.

        Arguments:
            after_answer: wait for the peer to close first (ARTIM, PS3.8 section 9.1.5), since a close with unread
                bytes would make the system forget the answer on its way.
        """
        with suppress(OSError, ValueError):
            if after_answer:
                self._socket.shutdown(socket.SHUT_WR)
                deadline = time.monotonic() + _FAREWELL_SECONDS
                while time.monotonic() < deadline:
                    try:
                        if not self._socket.recv_into(self._view):
                            break
                    except _NOTHING_YET:
                        continue
        with suppress(OSError):
            self._socket.close()


def _most(kind: int) -> int:
    if kind == P_DATA:
        return MAXIMUM_LENGTH
    return LARGEST_ASSOCIATE_RQ if kind == ASSOCIATE_RQ else LARGEST_OTHER


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1_000_000))


def peek_associate_request(connected: socket.socket, deadline: float) -> bytes | None:
    """The body of the A-ASSOCIATE-RQ that comes first, left unread; None when there is none that can be looked at.

    Arguments:
        connected: a plain TCP connection; it blocks afterwards.
        deadline: when to give up, on the monotonic clock.
    """
    header = _peek(connected, HEADER, deadline)
    if header is None:
        return None
    kind, length = parse_header(header)
    if kind != ASSOCIATE_RQ or length > _MOST_PEEKED:
        return None
    whole = _peek(connected, HEADER + length, deadline)
    return None if whole is None else whole[HEADER:]


def _peek(connected: socket.socket, size: int, deadline: float) -> bytes | None:
    # With a low-water mark the system wakes us once, when everything is there, not for each byte of a slow peer.
    connected.setblocking(False)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
    poll = select.poll()
    poll.register(connected, select.POLLIN | select.POLLRDHUP)
    try:
        while (left := deadline - time.monotonic()) > 0:
            poll.poll(min(left, _TICK) * 1000)
            try:
                data = connected.recv(size, socket.MSG_PEEK)
            except BlockingIOError:
                continue
            if len(data) == size:
                return data
            if not data:
                return None
            if _QUICKACK is not None:
                connected.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)
            time.sleep(0.001)
    except OSError:
        return None
    finally:
        with suppress(OSError):
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
            connected.setblocking(True)
    return None

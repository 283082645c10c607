"""A store that keeps what it gets in memory, and a peer that speaks in raw PDUs."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from libs.dimse import Acceptor, Limits, Peer, Receiving, StoreCommand, StoreRefused, StoreStatus

IMPLICIT = "1.2.840.10008.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"
CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"


@dataclass
class MemoryStore:
    """Keeps commands and data sets; refuses where it is told to."""

    refuse_begin: int = 0
    refuse_write: int = 0
    refuse_finish: int = 0
    stored: list[tuple[StoreCommand, bytes]] = field(default_factory=list)
    peers: list[Peer] = field(default_factory=list)
    aborted: int = 0
    failure: Exception | None = None

    def begin(self, context: Any, peer: Peer, command: StoreCommand, /) -> Receiving:
        if self.refuse_begin:
            raise StoreRefused(self.refuse_begin, "not now")
        self.peers.append(peer)
        return _InMemory(self, command)


class _InMemory:
    def __init__(self, store: MemoryStore, command: StoreCommand) -> None:
        self.store = store
        self.command = command
        self.data = bytearray()

    def write(self, part: memoryview, /) -> None:
        if self.store.refuse_write:
            raise StoreRefused(self.store.refuse_write, "no room")
        self.data += part

    def finish(self) -> StoreStatus:
        if self.store.failure:
            raise self.store.failure
        if self.store.refuse_finish:
            raise StoreRefused(self.store.refuse_finish, "not understood")
        self.store.stored.append((self.command, bytes(self.data)))
        return StoreStatus()

    def abort(self) -> None:
        self.store.aborted += 1


@contextmanager
def accepting(
    store: MemoryStore, limits: Limits | None = None, admit: Callable[[Peer], object] = lambda _: None, **options: Any
) -> Iterator[Acceptor]:
    """An acceptor on a free port of this machine."""
    acceptor = Acceptor(limits or Limits(negotiation_seconds=5, stop_seconds=0.2), admit=admit, store=store, **options)
    acceptor.start()
    try:
        yield acceptor
    finally:
        acceptor.stop()
        assert not [thread for thread in threading.enumerate() if thread.name == "association" and thread.is_alive()]


def item(kind: int, content: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(content)) + content


def proposed(number: int, abstract: str, *syntaxes: str) -> bytes:
    content = bytes((number, 0, 0, 0)) + item(0x30, abstract.encode())
    return item(0x20, content + b"".join(item(0x40, syntax.encode()) for syntax in syntaxes))


def associate_request(
    *contexts: bytes, user: bytes = b"", called: bytes = b"CALLED", calling: bytes = b"CALLING", version: int = 1
) -> bytes:
    body = struct.pack(">HH", version, 0) + called.ljust(16) + calling.ljust(16) + bytes(32)
    body += item(0x10, b"1.2.840.10008.3.1.1.1") + b"".join(contexts)
    body += item(0x50, item(0x51, struct.pack(">I", 16384)) + item(0x52, b"1.2.3.4") + user)
    return pdu(1, body)


def pdu(kind: int, body: bytes) -> bytes:
    return struct.pack(">BBI", kind, 0, len(body)) + body


def value(context: int, control: int, fragment: bytes) -> bytes:
    return struct.pack(">IBB", len(fragment) + 2, context, control) + fragment


def element(number: int, content: bytes) -> bytes:
    return struct.pack("<HHI", 0, number, len(content)) + content


def command_set(field_: int, *, data_set: bool, message_id: int = 7, sop_class: str = CT, uid: str = "1.2.3") -> bytes:
    body = element(0x0002, sop_class.encode() + b"\0" * (len(sop_class) % 2))
    body += element(0x0100, struct.pack("<H", field_)) + element(0x0110, struct.pack("<H", message_id))
    body += element(0x0700, bytes(2)) + element(0x0800, struct.pack("<H", 0 if data_set else 0x0101))
    if uid:
        body += element(0x1000, uid.encode() + b"\0" * (len(uid) % 2))
    return element(0, struct.pack("<I", len(body))) + body


class RawPeer:
    """A peer that says exactly what it is told to."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.socket.settimeout(20)

    def __enter__(self) -> "RawPeer":
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def say(self, *pdus: bytes) -> None:
        self.socket.sendall(b"".join(pdus))

    def hear(self) -> tuple[int, bytes]:
        """Type and body of the next PDU; type 0 when the connection was closed."""
        header = self._exactly(6)
        if len(header) < 6:
            return 0, b""
        return header[0], self._exactly(struct.unpack(">I", header[2:])[0])

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                piece = self.socket.recv(size - len(data))
            except ConnectionResetError:
                break
            if not piece:
                break
            data += piece
        return data

    def associate(self, *contexts: bytes) -> bytes:
        self.say(associate_request(*(contexts or (proposed(1, CT, EXPLICIT), proposed(3, VERIFICATION, IMPLICIT)))))
        kind, body = self.hear()
        assert kind == 2
        return body

    def answer(self) -> dict[int, bytes]:
        """The elements of the next response."""
        kind, body = self.hear()
        assert kind == 4, (kind, body)
        values, position = {}, 6
        while position < len(body):
            _, number, length = struct.unpack_from("<HHI", body, position)
            values[number] = body[position + 8 : position + 8 + length]
            position += 8 + length
        return values

    def status(self) -> int:
        return int(struct.unpack("<H", self.answer()[0x0900])[0])

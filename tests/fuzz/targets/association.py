"""A whole association: whatever the peer says, it ends, answers in whole PDUs, and keeps only what was complete.

The input is what the peer sends after an association request that is fine; if its first byte is odd, instead of it.
"""

import logging
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, cast

import structlog

from libs.dimse import Limits, Peer, StoreCommand, StoreRefused, StoreStatus
from libs.dimse.association import Association
from libs.dimse.commands import C_STORE_RQ, RESPONSE
from libs.dimse.pdu import parse_header
from libs.dimse.wire import Connection
from tests.fuzz.target import Target
from tests.support.hostile import peers

_LIMITS: Final = Limits(data_set_bytes=2000)
_CONTEXTS: Final = (peers.context(1), peers.context(3, peers.VERIFICATION), peers.context(5, b"1.2.3.4"))
_REQUEST: Final = peers.request("FUZZ", *_CONTEXTS, peers.user())
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


class _Line:
    """A socket whose peer has said everything already and then closed."""

    def __init__(self, said: bytes) -> None:
        self._said = memoryview(said)
        self.answer = bytearray()
        self.closed = False

    def recv_into(self, view: memoryview) -> int:
        count = min(len(view), len(self._said), 700)
        view[:count] = self._said[:count]
        self._said = self._said[count:]
        return count

    def sendall(self, data: bytes) -> None:
        assert not self.closed
        self.answer += data

    def settimeout(self, _: float | None) -> None:
        pass

    def setsockopt(self, *_: Any) -> None:
        pass

    def shutdown(self, _: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True


@dataclass
class _Receiving:
    command: StoreCommand
    content: bytearray = field(default_factory=bytearray)
    ended: list[str] = field(default_factory=list)

    def write(self, part: memoryview, /) -> None:
        assert not self.ended
        self.content += part
        if self.content.startswith(b"!"):
            raise StoreRefused(0xC000, "this store takes no exclamation marks")

    def finish(self) -> StoreStatus:
        assert not self.ended
        if self.content.startswith(b"?"):
            raise StoreRefused(0xA900, "nor questions")
        self.ended.append("finished")
        return StoreStatus()

    def abort(self) -> None:
        assert not self.ended, "ended twice"
        self.ended.append("aborted")


class _Store:
    def __init__(self) -> None:
        self.received: list[_Receiving] = []

    def begin(self, _context: Any, _peer: Peer, command: StoreCommand, /) -> _Receiving:
        if command.sop_instance_uid.startswith("9"):
            raise StoreRefused(0xA700, "no room")
        self.received.append(_Receiving(command))
        return self.received[-1]


def run(data: bytes) -> None:
    """Lets the association run to its end and checks what was kept and said."""
    if not data:
        return
    said = data[1:] if data[0] & 1 else _REQUEST + data[1:]
    line, store = _Line(said), _Store()
    connection = Connection(cast("socket.socket", line))
    association = Association(
        connection, "192.0.2.1", None, limits=_LIMITS, admit=lambda _: None, store=store, accepted=lambda: None
    )
    association.run(time.monotonic() + 5)
    assert line.closed
    for receiving in store.received:
        assert len(receiving.ended) == 1, "each is either whole or let go"
        assert len(receiving.content) <= _LIMITS.data_set_bytes
        if receiving.ended == ["finished"]:
            assert bytes(receiving.content) in said.replace(b"", b"") or len(receiving.content) > 0
    successes = _successes(bytes(line.answer))
    assert successes == sum(one.ended == ["finished"] for one in store.received), "success means kept, kept success"


def _successes(answer: bytes) -> int:
    """How many C-STORE responses say success; all PDUs must be whole."""
    count = position = 0
    commands = bytearray()
    while position < len(answer):
        kind, length = parse_header(answer[position : position + 6])
        body = answer[position + 6 : position + 6 + length]
        assert len(body) == length
        position += 6 + length
        if kind == 0x04:
            commands += body[6:]
            if body[5] & 2:
                field_of = b"\0\0\0\1\2\0\0\0" + (C_STORE_RQ | RESPONSE).to_bytes(2, "little")
                count += field_of in commands and b"\0\0\0\x09\2\0\0\0\0\0" in commands
                commands = bytearray()
    return count


def seeds() -> Iterator[bytes]:
    """All hostile peers, with stores that are fine and stores that are refused before them."""
    good = peers.data(peers.pdv(peers.store(b"1.2.3"), control=3)) + peers.data(peers.pdv(b"data", control=2))
    echo = peers.command(sop_class=peers.VERIFICATION, field=0x30, message=7, data_set=0x0101)
    yield b"\0" + good * 2 + peers.data(peers.pdv(echo, context_id=3, control=3)) + peers.pdu(0x05, bytes(4))
    yield b"\0" + peers.data(
        peers.pdv(peers.store(b"9.9"), control=3), peers.pdv(b"x" * 100, control=0), peers.pdv(b"", control=2)
    )
    yield b"\0" + peers.data(peers.pdv(peers.store(b"1.2"), control=3), peers.pdv(b"!?" * 50, control=2)) + good
    yield b"\0" + peers.data(peers.pdv(peers.store(b"1.2"), control=3), peers.pdv(b"?" * 1500, control=0)) * 2 + good
    yield b"\0" + peers.pdu(0x07, bytes(4)) + good
    for one in peers.hostile_peers():
        said = b""
        for piece in one.script("FUZZ"):
            said += piece
            if len(said) > 4000:
                break
        yield (
            b"\0" + said.removeprefix(peers.usual("FUZZ")) if said.startswith(peers.usual("FUZZ")) else b"\1" + said
        )[:4096]


TARGET: Final = Target("association", run, seeds, ("libs.dimse",), 4096)

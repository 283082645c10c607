"""DIMSE peers that nobody honest is (PS3.8 section 9, PS3.7 section 9.3): what each says, byte by byte."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from tests.support.dicom_bytes import SOP_CLASS
from tests.support.hostile.corpus import Identity

APPLICATION: Final = b"1.2.840.10008.3.1.1.1"
EXPLICIT: Final = b"1.2.840.10008.1.2.1"
VERIFICATION: Final = b"1.2.840.10008.1.1"
CLASS: Final = SOP_CLASS.encode()
MIB: Final = 1 << 20

Script = Callable[[str], Iterator[bytes]]
"""Given the called AE title: what is sent, piece by piece. An empty piece waits for the next PDU of the other side."""


@dataclass(frozen=True)
class HostilePeer:
    """One peer.

    Attributes:
        name: of the function, with hyphens.
        script: what it says.
        patient: whether it stays connected until the other side ends it; otherwise it closes when all is said.
        connections: how many of it come at once.
    """

    name: str
    script: Script
    patient: bool
    connections: int


_PEERS: Final[list[HostilePeer]] = []


def peer(*, patient: bool = True, connections: int = 1) -> Callable[[Script], Script]:
    """Enters a function into the register."""

    def enter(script: Script) -> Script:
        _PEERS.append(HostilePeer(script.__name__.replace("_", "-"), script, patient, connections))
        return script

    return enter


def hostile_peers() -> list[HostilePeer]:
    """All of them."""
    return list(_PEERS)


def pdu(kind: int, body: bytes, *, length: int | None = None) -> bytes:
    """One PDU; its length may lie."""
    return struct.pack(">BxI", kind, len(body) if length is None else length) + body


def sub(kind: int, content: bytes, *, length: int | None = None) -> bytes:
    """One item of an association request; its length may lie."""
    return struct.pack(">BxH", kind, len(content) if length is None else length) + content


def context(identifier: int, abstract: bytes = CLASS, *transfer: bytes) -> bytes:
    """A proposed presentation context."""
    syntaxes = b"".join(sub(0x40, uid) for uid in transfer or (EXPLICIT,))
    return sub(0x20, struct.pack(">B3x", identifier) + sub(0x30, abstract) + syntaxes)


def user(*extra: bytes, maximum: int = 16384) -> bytes:
    """User information."""
    return sub(0x50, sub(0x51, struct.pack(">I", maximum)) + sub(0x52, b"1.2.3.4") + b"".join(extra))


def request(called: str, *items: bytes, calling: bytes = b"HOSTILE") -> bytes:
    """An A-ASSOCIATE-RQ of these items after the application context."""
    head = struct.pack(">HH16s16s32x", 1, 0, called.encode().ljust(16), calling.ljust(16)[:16])
    return pdu(0x01, head + sub(0x10, APPLICATION) + b"".join(items))


def usual(called: str) -> bytes:
    """An association request that is fine."""
    return request(called, context(1), user())


def command(**values: int | bytes) -> bytes:
    """A command set; names are those of ``_ELEMENTS``."""
    elements = b"".join(
        struct.pack("<HHI", 0, tag, len(raw)) + raw
        for tag, raw in sorted(
            (_ELEMENTS[name], struct.pack("<H", value) if isinstance(value, int) else value + b"\0" * (len(value) % 2))
            for name, value in values.items()
        )
    )
    return struct.pack("<HHII", 0, 0, 4, len(elements)) + elements


_ELEMENTS: Final = {
    "sop_class": 0x0002,
    "field": 0x0100,
    "message": 0x0110,
    "priority": 0x0700,
    "data_set": 0x0800,
    "instance": 0x1000,
    "originator": 0x1030,
}


def store(instance: bytes, sop_class: bytes = CLASS) -> bytes:
    """A C-STORE-RQ."""
    return command(sop_class=sop_class, field=1, message=1, priority=0, data_set=0, instance=instance)


def pdv(content: bytes, *, context_id: int = 1, control: int, length: int | None = None) -> bytes:
    """One presentation data value; control 1 is a part of a command, 2 the last part, 3 both."""
    return struct.pack(">IBB", len(content) + 2 if length is None else length, context_id, control) + content


def data(*values: bytes) -> bytes:
    """A P-DATA-TF."""
    return pdu(0x04, b"".join(values))


@peer()
def a_request_of_four_gigabytes(_: str) -> Iterator[bytes]:
    yield pdu(0x01, b"x" * 1000, length=0xFFFFFFF0)


@peer()
def data_of_four_gigabytes_before_a_request(_: str) -> Iterator[bytes]:
    yield pdu(0x04, b"x" * 1000, length=0xFFFFFFF0)


@peer()
def data_of_four_gigabytes(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield pdu(0x04, pdv(b"x" * 1000, control=3), length=0xFFFFFFF0)
    for _ in range(200):
        yield b"x" * MIB


@peer()
def a_request_of_nothing(_: str) -> Iterator[bytes]:
    yield pdu(0x01, b"")


@peer()
def sixteen_thousand_items_that_lie(called: str) -> Iterator[bytes]:
    head = request(called)[6:]
    yield pdu(0x01, head + b"\x20\0\xff\xff" * 16_000)


@peer()
def sixty_thousand_empty_contexts(called: str) -> Iterator[bytes]:
    yield request(called, sub(0x20, b"\1\0\0\0") * 30_000, user())


@peer()
def contexts_within_contexts(called: str) -> Iterator[bytes]:
    inner = context(1)
    for _ in range(30):
        inner = sub(0x20, b"\1\0\0\0" + inner)
    yield request(called, inner, user(), user(), user())


@peer()
def items_that_overlap(called: str) -> Iterator[bytes]:
    yield request(called, sub(0x20, b"\1\0\0\0" + sub(0x30, CLASS, length=0xFFFF)), user())


@peer(patient=False)
def a_hundred_and_twenty_eight_contexts_of_sixty_syntaxes(called: str) -> Iterator[bytes]:
    syntaxes = [f"1.2.3.{number}".encode() for number in range(59)]
    yield request(called, *(context(2 * n + 1, CLASS, *syntaxes, EXPLICIT) for n in range(128)), user())
    yield b""


@peer()
def identifiers_that_are_even_or_repeat(called: str) -> Iterator[bytes]:
    yield request(called, context(1), context(1), context(2), context(0), user())


@peer(patient=False)
def titles_that_climb(called: str) -> Iterator[bytes]:
    yield request(called, context(1), user(), calling=b"../../etc/passwd")
    yield b""


@peer(patient=False)
def titles_of_control_characters(called: str) -> Iterator[bytes]:
    yield request(called, context(1), user(), calling=b"\0\r\n\x1b[2J\xff\xfe'--")
    yield b""


@peer(patient=False)
def an_identity_of_sixty_kilobytes(called: str) -> Iterator[bytes]:
    identity = struct.pack(">BBH", 2, 1, 30_000) + b"u" * 30_000 + struct.pack(">H", 30_000) + b"p" * 30_000
    yield request(called, context(1), user(sub(0x58, identity)))
    yield b""


@peer(patient=False)
def a_peer_that_takes_one_byte_at_a_time(called: str) -> Iterator[bytes]:
    """Answers would have to be cut into pieces of which none can carry anything."""
    yield request(called, context(1, VERIFICATION), user(maximum=1))
    yield b""
    yield data(pdv(command(sop_class=VERIFICATION, field=0x30, message=1, data_set=0x0101), control=3))


@peer()
def unknown_pdus(_: str) -> Iterator[bytes]:
    yield pdu(0x42, b"x" * 100) * 10


@peer()
def web_browser(_: str) -> Iterator[bytes]:
    yield b"GET / HTTP/1.1\r\nHost: edge\r\n\r\n"


@peer()
def a_tls_hello(_: str) -> Iterator[bytes]:
    yield b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)


@peer()
def two_requests(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield usual(called)


@peer()
def an_acceptance_nobody_asked_for(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield pdu(0x02, usual(called)[6:])


@peer()
def a_context_that_was_not_accepted(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(store(b"1.2.3"), context_id=77, control=3))


@peer()
def values_longer_than_their_pdu(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(store(b"1.2.3"), control=3, length=0x7FFFFFFF))


@peer()
def values_of_no_length(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(*[pdv(b"", control=0, length=0)] * 1000)


@peer()
def empty_values_for_ever(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    one = data(*[pdv(b"", control=1)] * 1000)
    for _ in range(2000):
        yield one


@peer()
def a_command_without_end(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    for _ in range(2000):
        yield data(pdv(b"\0" * 16_000, control=1))


@peer()
def a_command_of_too_many_elements(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(struct.pack("<HHI", 0, 1, 0) * 1900, control=3))


@peer()
def a_command_whose_lengths_lie(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(struct.pack("<HHI", 0, 0x0002, 0xFFFFFFF0) + b"1.2", control=3))


@peer()
def a_command_of_nothing(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(b"", control=3))


@peer()
def data_without_a_command(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(b"abc", control=0))


@peer()
def a_command_in_the_middle_of_data(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(store(b"1.2.3"), control=3), pdv(b"abcd", control=0), pdv(store(b"1.2.4"), control=3))


@peer()
def a_response_to_nothing(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(command(sop_class=CLASS, field=0x8001, message=1, data_set=0x0101), control=3))


@peer(patient=False)
def a_service_that_is_not_there(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(command(sop_class=CLASS, field=0x0021, message=1, priority=0, data_set=0x0101), control=3))
    yield b""


@peer(patient=False)
def an_instance_uid_that_climbs(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(store(b"../../../../tmp/lightbox-was-here"), control=3), pdv(_data_set(), control=2))
    yield b""


@peer(patient=False)
def an_instance_uid_of_nothing(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(store(b""), control=3), pdv(_data_set(), control=2))
    yield b""


@peer(patient=False)
def an_instance_uid_of_ten_thousand_digits(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(store(b"1" * 10_000), control=3), pdv(_data_set(), control=2))
    yield b""


@peer(patient=False)
def a_class_of_another_context(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(store(b"1.2.3", b"1.2.840.10008.5.1.4.1.1.4"), control=3), pdv(_data_set(), control=2))
    yield b""


@peer()
def a_data_set_without_end(called: str) -> Iterator[bytes]:
    """100 MB, where the largest instance may have less."""
    yield usual(called)
    yield b""
    yield data(pdv(store(b"1.2.3"), control=3))
    one = data(pdv(bytes(16_000), control=0)) * 60
    for _ in range(105):
        yield one


@peer(patient=False)
def a_data_set_that_is_broken_off(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(store(b"1.2.3"), control=3))
    for _ in range(50):
        yield data(pdv(bytes(16_000), control=0))


@peer()
def rubbish_in_the_middle(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(store(b"1.2.3"), control=3)) + b"\xff" * 1000


@peer(connections=12)
def peers_that_say_two_bytes(_: str) -> Iterator[bytes]:
    yield b"\x01\x00"


@peer(connections=40)
def peers_that_say_half_a_request(called: str) -> Iterator[bytes]:
    yield usual(called)[:60]


@peer(connections=100)
def peers_that_say_nothing(_: str) -> Iterator[bytes]:
    yield from ()


@peer(connections=8)
def peers_that_fall_silent_in_mid_message(called: str) -> Iterator[bytes]:
    yield usual(called)
    yield b""
    yield data(pdv(store(b"1.2.3"), control=3))[:20]


def _data_set() -> bytes:
    return b"".join(Identity.new().elements())

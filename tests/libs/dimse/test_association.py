"""What a peer may do on an association, in which order, and what happens when it does something else."""

import socket
import struct
import threading
import time
from contextlib import suppress

import pytest

from libs.dimse import AssociationRejected, Limits, Peer
from tests.libs.dimse.memory_store import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    MemoryStore,
    RawPeer,
    accepting,
    associate_request,
    command_set,
    item,
    pdu,
    proposed,
    value,
)

C_STORE, C_ECHO = 0x0001, 0x0030
RELEASE = pdu(5, bytes(4))
ABORTED = 7


def store_request(**options: object) -> bytes:
    return pdu(4, value(1, 3, command_set(C_STORE, data_set=True, **options)))  # type: ignore[arg-type]


def test_a_data_set_in_odd_pieces_arrives_whole() -> None:
    """Scanners cut messages as they like: many fragments to a PDU, odd lengths, empty ones, a command in pieces."""
    data = bytes(range(256)) * 301 + b"!"
    command = command_set(C_STORE, data_set=True)
    pieces = [data[:1], data[1:1], data[1:778], data[778:50_001], data[50_001:]]
    store = MemoryStore()
    with accepting(store) as acceptor, RawPeer(acceptor.port) as peer:
        peer.associate()
        peer.say(pdu(4, value(1, 1, command[:9]) + value(1, 1, command[9:11])), pdu(4, value(1, 3, command[11:])))
        peer.say(pdu(4, value(1, 0, pieces[0]) + value(1, 0, pieces[1]) + value(1, 0, pieces[2])))
        peer.say(pdu(4, value(1, 0, pieces[3])), pdu(4, value(1, 2, pieces[4])))
        answer = peer.answer()
        assert answer[0x0900] == b"\0\0"
        assert answer[0x0120] == struct.pack("<H", 7)
        assert answer[0x0100] == struct.pack("<H", 0x8001)
        assert answer[0x1000].rstrip(b"\0") == b"1.2.3"
        peer.say(RELEASE)
        assert peer.hear()[0] == 6
    assert [(command.sop_instance_uid, command.transfer_syntax, got) for command, got in store.stored] == [
        ("1.2.3", EXPLICIT, data)
    ]


def test_a_message_that_comes_byte_by_byte_arrives_whole() -> None:
    """A slow line splits anything anywhere."""
    store = MemoryStore()
    with accepting(store) as acceptor, RawPeer(acceptor.port) as peer:
        peer.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer.associate()
        for byte in store_request() + pdu(4, value(1, 2, b"abcde")):
            peer.say(bytes((byte,)))
        assert peer.status() == 0
    assert store.stored[0][1] == b"abcde"


def test_a_large_data_set_arrives_whole() -> None:
    """A multi-frame image crosses every buffer many times."""
    data = bytes(range(251)) * 40_000
    most = 128 * 1024 - 6
    store = MemoryStore()
    with accepting(store) as acceptor, RawPeer(acceptor.port) as peer:
        peer.associate()
        peer.say(store_request())
        for start in range(0, len(data), most):
            peer.say(pdu(4, value(1, 2 if start + most >= len(data) else 0, data[start : start + most])))
        assert peer.status() == 0
    assert store.stored[0][1] == data


@pytest.mark.parametrize("where", ["command", "data"])
def test_an_abort_in_mid_message_leaves_nothing(where: str) -> None:
    """Half an image must never count as one."""
    store = MemoryStore()
    with accepting(store) as acceptor:
        with RawPeer(acceptor.port) as peer:
            peer.associate()
            if where == "data":
                peer.say(store_request(), pdu(4, value(1, 0, b"half of it")))
            else:
                peer.say(pdu(4, value(1, 1, command_set(C_STORE, data_set=True)[:20])))
            peer.say(pdu(7, bytes(4)))
            assert peer.hear()[0] == 0
        with RawPeer(acceptor.port) as peer:
            peer.associate()
            peer.say(store_request(), pdu(4, value(1, 0, b"half of it")))
        deadline = time.monotonic() + 10
        while acceptor.associations and time.monotonic() < deadline:
            time.sleep(0.01)
    assert store.stored == []
    assert store.aborted == (2 if where == "data" else 1)


def wrong_orders() -> dict[str, bytes]:
    store = store_request()
    return {
        "a second association request": associate_request(proposed(1, CT, EXPLICIT)),
        "an association accept": pdu(2, bytes(68)),
        "a release reply": pdu(6, bytes(4)),
        "an unknown PDU": pdu(9, bytes(4)),
        "a data set without a command": pdu(4, value(1, 2, b"data")),
        "a command in mid data set": store + pdu(4, value(1, 0, b"da")) + store,
        "a data set on another context": store + pdu(4, value(3, 2, b"data")),
        "a release in mid data set": store + pdu(4, value(1, 0, b"da")) + RELEASE,
        "a context that was not accepted": pdu(4, value(5, 3, command_set(C_ECHO, data_set=False))),
        "a response": pdu(4, value(1, 3, command_set(0x8001, data_set=False))),
        "an empty P-DATA": pdu(4, b""),
        "a fragment that lies": pdu(4, struct.pack(">IBB", 0xFFFFFFF0, 1, 3) + b"x"),
        "a fragment without a header": pdu(4, b"\0\0\0\1\1"),
        "a P-DATA longer than announced": struct.pack(">BBI", 4, 0, 128 * 1024 + 1) + bytes(100),
        "a command without end": pdu(4, value(1, 1, bytes(17_000))),
        "a command that is none": pdu(4, value(1, 3, b"\1\2\3")),
        "a command of another group": pdu(4, value(1, 3, struct.pack("<HHI", 8, 0x18, 0))),
        "a long release": struct.pack(">BBI", 5, 0, 70_000) + bytes(70_000),
    }


@pytest.mark.parametrize("case", list(wrong_orders()))
def test_what_is_out_of_order_aborts_the_association_and_nothing_else(case: str) -> None:
    """A broken or hostile peer must hear that it is broken, and the next scanner must get through."""
    store = MemoryStore()
    with accepting(store) as acceptor:
        with RawPeer(acceptor.port) as peer:
            peer.associate()
            peer.say(wrong_orders()[case])
            kind, body = peer.hear()
            assert kind == ABORTED, case
            assert body[2] == 2
        with RawPeer(acceptor.port) as peer:
            peer.associate()
            peer.say(pdu(4, value(3, 3, command_set(C_ECHO, data_set=False, sop_class=VERIFICATION, uid=""))))
            assert peer.status() == 0
    assert store.stored == []


@pytest.mark.parametrize("field", [0x0020, 0x0021, 0x0010, 0x0100, 0x0110, 0x0120, 0x0130, 0x0140, 0x0150, 0x4242])
@pytest.mark.parametrize("data_set", [False, True])
def test_a_request_that_is_not_served_is_answered(field: int, *, data_set: bool) -> None:
    """A peer that asks for a query here should hear that there is none, and go on to store."""
    store = MemoryStore()
    with accepting(store) as acceptor, RawPeer(acceptor.port) as peer:
        peer.associate()
        peer.say(pdu(4, value(1, 3, command_set(field, data_set=data_set))))
        if data_set:
            peer.say(pdu(4, value(1, 0, b"some")), pdu(4, value(1, 2, b"thing")))
        assert peer.status() == 0x0211
        peer.say(store_request(), pdu(4, value(1, 2, b"data")))
        assert peer.status() == 0
    assert len(store.stored) == 1


def test_a_cancel_is_passed_over() -> None:
    """A C-CANCEL has no answer of its own; an answer would be taken for that of the next request."""
    with accepting(MemoryStore()) as acceptor, RawPeer(acceptor.port) as peer:
        peer.associate()
        peer.say(pdu(4, value(1, 3, command_set(0x0FFF, data_set=False))))
        peer.say(store_request(message_id=9), pdu(4, value(1, 2, b"data")))
        answer = peer.answer()
        assert answer[0x0120] == struct.pack("<H", 9)


@pytest.mark.parametrize("when", ["begin", "write", "finish"])
def test_a_refusal_is_answered_after_the_data_set_and_the_next_store_works(when: str) -> None:
    """One instance that can't be taken must not cost the others of the series."""
    store = MemoryStore(**{f"refuse_{when}": 0xA700})  # type: ignore[arg-type]
    with accepting(store) as acceptor, RawPeer(acceptor.port) as peer:
        peer.associate()
        peer.say(store_request(), pdu(4, value(1, 0, b"one")), pdu(4, value(1, 2, b"two")))
        answer = peer.answer()
        assert answer[0x0900] == struct.pack("<H", 0xA700)
        assert answer[0x0902].strip() in (b"not now", b"no room", b"not understood")
        assert store.aborted == (0 if when == "begin" else 1)
        store.refuse_begin = store.refuse_write = store.refuse_finish = 0
        peer.say(store_request(), pdu(4, value(1, 2, b"data")))
        assert peer.status() == 0
    assert [data for _, data in store.stored] == [b"data"]


def test_an_error_of_ours_is_a_failure_status() -> None:
    """A bug must not look like success, nor end the scanner's work."""
    store = MemoryStore(failure=ZeroDivisionError("a bug"))
    with accepting(store) as acceptor, RawPeer(acceptor.port) as peer:
        peer.associate()
        peer.say(store_request(), pdu(4, value(1, 2, b"data")))
        assert peer.status() == 0x0110
    assert store.aborted == 1


def test_a_sop_class_other_than_the_context_s_is_refused() -> None:
    """What was not negotiated is not taken under a false name."""
    store = MemoryStore()
    with accepting(store) as acceptor, RawPeer(acceptor.port) as peer:
        peer.associate()
        peer.say(store_request(sop_class="1.2.840.10008.5.1.4.1.1.4"), pdu(4, value(1, 2, b"data")))
        assert peer.status() == 0x0122
    assert store.stored == []


def test_a_data_set_beyond_the_limit_is_refused_and_then_cut_off() -> None:
    """A peer must not fill the disk with one image that never ends."""
    store = MemoryStore()
    limits = Limits(data_set_bytes=100_000, stop_seconds=0.2)
    with accepting(store, limits) as acceptor, RawPeer(acceptor.port) as peer:
        peer.associate()
        peer.say(store_request(), pdu(4, value(1, 0, bytes(90_000))), pdu(4, value(1, 2, bytes(20_000))))
        assert peer.status() == 0xA700
        peer.say(store_request(), *[pdu(4, value(1, 0, bytes(90_000)))] * 4)
        assert peer.hear()[0] == ABORTED
    assert store.stored == []
    assert store.aborted == 2


def test_slow_peers_are_cut_off_and_stop_nobody() -> None:
    """Twelve connections that say a few bytes each must not keep a scanner out."""
    store = MemoryStore()
    limits = Limits(negotiation_seconds=1.5, pause_seconds=1, associations=4, stop_seconds=0.2)
    with accepting(store, limits) as acceptor:
        slow = [RawPeer(acceptor.port) for _ in range(100)]
        for number, peer in enumerate(slow):
            peer.say(associate_request(proposed(1, CT, EXPLICIT))[: 2 + number % 5])
        began = time.monotonic()
        with RawPeer(acceptor.port) as good:
            good.associate()
            good.say(store_request(), pdu(4, value(1, 2, b"data")))
            assert good.status() == 0
            assert time.monotonic() - began < 1.4
        with RawPeer(acceptor.port) as half:
            half.associate()
            half.say(store_request(), pdu(4, value(1, 2, b"data"))[:9])
            assert half.hear()[0] == ABORTED
        for peer in slow:
            assert peer.hear()[0] in (0, ABORTED)
            peer.socket.close()
    assert len(store.stored) == 1


def test_a_message_must_come_at_a_least_rate() -> None:
    """A peer that trickles fragments would otherwise hold an association for days."""
    limits = Limits(message_seconds=0.5, bytes_per_second=1000, stop_seconds=0.2)
    with accepting(MemoryStore(), limits) as acceptor, RawPeer(acceptor.port) as peer:
        peer.associate()
        peer.say(store_request())
        began = time.monotonic()
        with suppress(OSError):
            while time.monotonic() - began < 15:
                peer.say(pdu(4, value(1, 0, b"")))
                time.sleep(0.05)
        assert time.monotonic() - began < 10


def test_associations_are_bounded_in_all_and_per_peer() -> None:
    """One machine gone wild leaves associations for the others, and hears that it may come again."""
    limits = Limits(associations=3, associations_per_peer=2, stop_seconds=0.2)
    with accepting(MemoryStore(), limits) as acceptor:
        with RawPeer(acceptor.port) as first, RawPeer(acceptor.port) as second:
            first.associate()
            second.associate()
            assert acceptor.associations == 2
            with RawPeer(acceptor.port) as third:
                third.say(associate_request(proposed(1, CT, EXPLICIT)))
                assert third.hear() == (3, bytes((0, 2, 3, 2)))
            first.say(RELEASE)
            assert first.hear()[0] == 6
        deadline = time.monotonic() + 10
        while acceptor.associations and time.monotonic() < deadline:
            time.sleep(0.01)
        with RawPeer(acceptor.port) as fourth:
            fourth.associate()


def test_a_rejection_says_what_it_was_told_to() -> None:
    """An installer reads the reason to find the wrong AE title."""

    def admit(peer: Peer) -> None:
        if peer.called_ae_title != "CALLED":
            raise AssociationRejected.called_ae_title_not_recognised()
        if peer.calling_ae_title != "CALLING":
            raise AssociationRejected.calling_ae_title_not_recognised()

    cases = {
        associate_request(proposed(1, CT, EXPLICIT), called=b"OTHER"): bytes((0, 1, 1, 7)),
        associate_request(proposed(1, CT, EXPLICIT), calling=b"OTHER"): bytes((0, 1, 1, 3)),
        associate_request(proposed(1, CT, EXPLICIT), version=2): bytes((0, 1, 2, 2)),
        associate_request().replace(b"1.2.840.10008.3.1.1.1", b"1.2.840.10008.3.1.1.2"): bytes((0, 1, 1, 2)),
    }
    with accepting(MemoryStore(), admit=admit) as acceptor:
        for request, reason in cases.items():
            with RawPeer(acceptor.port) as peer:
                peer.say(request)
                assert peer.hear() == (3, reason)


def accepted(body: bytes) -> tuple[dict[int, tuple[int, str]], dict[int, bytes]]:
    """Contexts (result, transfer syntax) and user items of an A-ASSOCIATE-AC."""
    contexts: dict[int, tuple[int, str]] = {}
    user: dict[int, bytes] = {}
    position = 68
    while position < len(body):
        kind, length = body[position], struct.unpack_from(">H", body, position + 2)[0]
        content = body[position + 4 : position + 4 + length]
        if kind == 0x21:
            contexts[content[0]] = content[2], content[8:].decode()
        if kind == 0x50:
            inner = 0
            while inner < len(content):
                size = struct.unpack_from(">H", content, inner + 2)[0]
                user[content[inner]] = content[inner + 4 : inner + 4 + size]
                inner += 4 + size
        position += 4 + length
    return contexts, user


def test_negotiation() -> None:
    """A context refused for no reason is an image that can't be sent; accepted wrongly, one that can't be read."""
    jpeg = "1.2.840.10008.1.2.4.70"
    find = "1.2.840.10008.5.1.4.1.2.2.1"
    commitment = "1.2.840.10008.1.20.1"
    declared = "1.2.840.10008.5.1.4.77.1"
    role = struct.pack(">H", len(CT)) + CT.encode() + b"\1\1"
    service = b"1.2.840.10008.4.2"
    common = struct.pack(">H", len(declared)) + declared.encode() + struct.pack(">H", len(service)) + service + bytes(2)
    user = (
        item(0x53, struct.pack(">HH", 0, 8))
        + item(0x54, role)
        + item(0x56, struct.pack(">H", len(CT)) + CT.encode() + b"\2\0\0\0\0\0")
        + item(0x57, common)
        + item(0x58, b"\1\1\0\4user\0\0")
        + item(0x99, b"from the future")
    )
    contexts = (
        proposed(1, CT, jpeg, EXPLICIT, IMPLICIT),
        proposed(3, "1.2.840.113619.4.26", IMPLICIT),
        proposed(5, find, IMPLICIT),
        proposed(7, VERIFICATION, jpeg, EXPLICIT),
        proposed(9, VERIFICATION, jpeg),
        proposed(11, "1.2.840.10008.5.1.4.1.1.99999", "1.2.3.4.5"),
        proposed(13, commitment, IMPLICIT),
        proposed(15, declared, IMPLICIT),
        proposed(17, "not a UID", IMPLICIT),
        proposed(255, CT, "", "../etc", IMPLICIT),
    )
    with accepting(MemoryStore()) as acceptor, RawPeer(acceptor.port) as peer:
        peer.say(associate_request(*contexts, user=user))
        kind, body = peer.hear()
        assert kind == 2
        assert body[4:36] == b"CALLED".ljust(16) + b"CALLING".ljust(16)
        results, answers = accepted(body)
        assert {number: result for number, (result, _) in results.items()} == {
            1: 0, 3: 0, 5: 3, 7: 0, 9: 4, 11: 0, 13: 3, 15: 0, 17: 3, 255: 0,
        }  # fmt: skip
        assert results[1][1] == jpeg
        assert results[7][1] == EXPLICIT
        assert results[11][1] == "1.2.3.4.5"
        assert results[255][1] == IMPLICIT
        assert answers[0x51] == struct.pack(">I", 128 * 1024)
        assert answers[0x53] == struct.pack(">HH", 1, 1)
        assert answers[0x54][-2:] == b"\1\0"
        assert 0x58 not in answers


def test_a_stop_lets_messages_end_then_aborts() -> None:
    """A restart of the edge must not cost an image that is on its way."""
    store = MemoryStore()
    with (
        accepting(store, Limits(stop_seconds=2)) as acceptor,
        RawPeer(acceptor.port) as busy,
        RawPeer(acceptor.port) as idle,
    ):
        busy.associate()
        idle.associate()
        busy.say(store_request(), pdu(4, value(1, 0, b"half ")))
        stopping = threading.Thread(target=acceptor.stop)
        stopping.start()
        time.sleep(0.3)
        busy.say(pdu(4, value(1, 2, b"and half")))
        assert busy.status() == 0
        busy.say(RELEASE)
        assert busy.hear()[0] == 6
        assert idle.hear()[0] == ABORTED
        stopping.join(10)
    assert store.stored[0][1] == b"half and half"


def test_a_peer_that_falls_silent_between_two_pdus_of_a_message_is_let_go() -> None:
    """The more it had sent at full speed, the longer it could hold its association: hours, after some hundred MB."""
    store = MemoryStore()
    with accepting(store, Limits(pause_seconds=1, bytes_per_second=1)) as acceptor, RawPeer(acceptor.port) as peer:
        peer.associate()
        peer.say(store_request(), pdu(4, value(1, 0, bytes(100_000))))
        began = time.monotonic()
        assert peer.hear()[0] == ABORTED
        assert time.monotonic() - began < 20
    assert not store.stored


def test_empty_fragments_without_end_are_cut_off() -> None:
    """Six bytes each, and they neither fill a message nor end it."""
    store = MemoryStore()
    with accepting(store) as acceptor, RawPeer(acceptor.port) as peer:
        peer.associate()
        with suppress(OSError):
            peer.say(store_request(), pdu(4, value(1, 0, b"") * 300))
        assert peer.hear()[0] == ABORTED

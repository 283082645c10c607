"""PDUs and command sets: any bytes are parsed to a value, or refused as invalid. The first byte chooses the parser."""

import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from libs.dimse.commands import encode_response, parse_command
from libs.dimse.errors import InvalidPdu
from libs.dimse.negotiation import negotiate
from libs.dimse.pdu import (
    MOST_CONTEXTS,
    encode_associate_accept,
    encode_command,
    parse_associate_request,
    parse_header,
    parse_presentation_data,
)
from tests.fuzz.target import Target


def run(data: bytes) -> None:
    """Parses it, and holds the result to what the parser promises."""
    if not data:
        return
    kind, rest = data[0] % 4, data[1:]
    with suppress(InvalidPdu):
        if kind == 0:
            _association(rest)
        elif kind == 1:
            _presentation_data(rest)
        elif kind == 2:
            _command(rest)
        elif len(rest) >= 6:
            parse_header(rest)


def _association(body: bytes) -> None:
    request = parse_associate_request(body)
    assert len(request.contexts) <= MOST_CONTEXTS
    assert all(context.id % 2 for context in request.contexts)
    negotiated = negotiate(request)
    assert [answer.id for answer in negotiated.answers] == [context.id for context in request.contexts]
    for identifier, context in negotiated.accepted.items():
        (proposed,) = (one for one in request.contexts if one.id == identifier)
        assert context.transfer_syntaxes[0] in proposed.transfer_syntaxes, "only what was proposed is accepted"
    answer = encode_associate_accept(
        request,
        negotiated.answers,
        maximum_length=16384,
        implementation_class_uid="1.2.3",
        implementation_version_name="FUZZ",
        roles=negotiated.roles,
    )
    assert parse_header(answer) == (0x02, len(answer) - 6)
    assert len(answer) < 64 * 1024


def _presentation_data(body: bytes) -> None:
    values = parse_presentation_data(body)
    assert sum(6 + len(value.fragment) for value in values) == len(body), "every byte belongs to one value"
    joined = b"".join(
        struct.pack(">IBB", len(v.fragment) + 2, v.context_id, v.is_command | v.is_last << 1) + bytes(v.fragment)
        for v in values
    )
    assert len(joined) == len(body)


def _command(body: bytes) -> None:
    command = parse_command(body)
    response = encode_response(command, 0x0110, "words")
    parsed = parse_command(response)
    assert parsed.message_id == command.message_id
    assert parsed.sop_instance_uid == command.sop_instance_uid.replace("\ufffd", "?").strip(" \0")
    for maximum in (0, 1, 7, 100, 16384):
        for piece in (encode_command(1, response, maximum),):
            assert piece[0] == 0x04


def seeds() -> Iterator[bytes]:
    """What honest and hostile peers say."""
    from tests.support.hostile import peers

    body = peers.request("EDGE", peers.context(1), peers.context(3, peers.VERIFICATION), peers.user())[6:]
    yield b"\0" + body
    negotiation = (
        peers.sub(0x53, b"\0\0\0\0"),
        peers.sub(0x54, b"\0\x051.2.3\1\0"),
        peers.sub(0x55, b"NAME"),
        peers.sub(0x56, b"\0\x051.2.3\1\1\1\1\1\1"),
        peers.sub(0x57, b"\0\x051.2.3\0\x141.2.840.10008.4.2\0\0"),
        peers.sub(0x58, b"\2\1\0\2ab\0\2cd"),
    )
    yield b"\0" + peers.request("EDGE", peers.context(1), peers.user(*negotiation))[6:]
    yield b"\1" + peers.pdv(b"abcd", control=3) + peers.pdv(b"", control=0)
    yield b"\2" + peers.store(b"1.2.3")
    yield b"\2" + peers.command(sop_class=peers.VERIFICATION, field=0x30, message=1, data_set=0x0101, originator=b"AE")


TARGET: Final = Target("pdu", run, seeds, ("libs.dimse",), 4096)

"""The multipart reader: whatever pieces a body comes in, it is split in the same way; what was put in comes out.

The first byte says how long the pieces are; if its highest bit is set, the rest is the content of parts of a body that
is well formed, otherwise it is the body.
"""

import email.policy
from collections.abc import Iterator
from email.parser import BytesParser
from typing import Final

from services.ingest_gateway.multipart import (
    InvalidMultipart,
    MultipartReader,
    PartBegan,
    PartData,
    parse_media_type,
)
from tests.fuzz.target import Target

_BOUNDARY: Final = b"B-b"
_MOST_HEADER: Final = 256
_MOST_PARTS: Final = 20
Parts = list[tuple[dict[str, str], bytes]]


def run(data: bytes) -> None:
    """Splits it twice and compares."""
    if not data:
        return
    step, rest = data[0] & 0x3F, data[1:]
    if data[0] & 0x80:
        _round_trip(rest, step)
        return
    whole, pieces = _split(rest, 0), _split(rest, step or 1)
    assert isinstance(whole, str) == isinstance(pieces, str), (whole, pieces)
    if not isinstance(whole, str):
        assert whole == pieces
    parse_media_type(rest[:200].decode("latin-1"))


def _split(body: bytes, step: int) -> Parts | str:
    reader = MultipartReader(_BOUNDARY, max_parts=_MOST_PARTS, max_header=_MOST_HEADER)
    headers: list[dict[str, str]] = []
    contents: list[bytes] = []
    ended = 0
    try:
        for start in range(0, len(body), step or max(1, len(body))):
            for event in reader.feed(body[start : start + (step or len(body))]):
                if isinstance(event, PartBegan):
                    assert ended == len(headers), "a part begins after the last one ended"
                    headers.append(event.headers)
                    contents.append(b"")
                elif isinstance(event, PartData):
                    assert event.data
                    contents[-1] += event.data
                else:
                    ended += 1
            assert len(reader._buffer) <= _MOST_HEADER + 64 + step + (len(body) if not step else 0)
        reader.finish()
    except InvalidMultipart as error:
        return str(error)
    assert ended == len(headers) <= _MOST_PARTS
    assert sum(map(len, contents)) <= len(body)
    return list(zip(headers, contents, strict=True))


def _round_trip(data: bytes, step: int) -> None:
    contents = [part for part in data.split(b"|") if b"\r\n--" + _BOUNDARY not in b"\r\n" + part][:_MOST_PARTS]
    if not contents:
        return
    header = b"Content-Type: application/dicom"
    body = b"".join(b"--" + _BOUNDARY + b"\r\n" + header + b"\r\n\r\n" + part + b"\r\n" for part in contents)
    body += b"--" + _BOUNDARY + b"--\r\n"
    found = _split(body, step)
    assert not isinstance(found, str), found
    assert [content for _, content in found] == contents
    if all(b"\r" not in part and b"\n" not in part for part in contents):
        # Without line breaks, of which it takes any kind, the standard library's reader must agree.
        top = b'Content-Type: multipart/related; boundary="' + _BOUNDARY + b'"\r\n\r\n'
        message = BytesParser(policy=email.policy.HTTP).parsebytes(top + body)
        payloads = message.get_payload()
        assert isinstance(payloads, list)
        assert len(payloads) == len(contents)


def seeds() -> Iterator[bytes]:
    """Bodies with and without preamble, headers, padding, epilogue; parts that nearly hold the boundary."""
    for how in (0, 1, 7):
        yield bytes([how]) + b"--B-b\r\nContent-Type: application/dicom\r\n\r\nabc\r\n--B-b--\r\n"
        yield bytes([how]) + b"preamble\r\n--B-b \t\r\n\r\n\r\n--B-b\r\nA: b\r\n c\r\n\r\n\r\n\r\n--B-b--epilogue"
        yield bytes([how]) + b"--B-b\r\n\r\n--B-b--"
        yield bytes([how]) + b"--B-b\r\n\r\nabc\r\n--B-bx\r\n--B-b-\r\n--B-b--"
        yield bytes([how | 0x80]) + b"abc||--B-|\r\n|--B|\r\n\r\n--B-"
    yield b'\x01multipart/related; type="application/dicom"; boundary="a b"; x=y'


TARGET: Final = Target("multipart", run, seeds, ("services.ingest_gateway.multipart",), 1024)

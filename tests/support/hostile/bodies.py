"""STOW-RS requests that nobody honest sends (PS3.18 section 10.5)."""

import gzip
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from tests.support.dicom_bytes import element
from tests.support.hostile.corpus import Identity

BOUNDARY: Final = "boundary-of-a-hostile-body"
TYPE: Final = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
JSON_TYPE: Final = f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}'
END: Final = f"--{BOUNDARY}--\r\n".encode()
MIB: Final = 1 << 20


@dataclass(frozen=True)
class HostileBody:
    """One request.

    Attributes:
        name: of the function that makes it, with hyphens.
        content: the body, in pieces; sent chunked unless ``headers`` has a length.
        statuses: the HTTP statuses of which one is answered.
        content_type: the header.
        headers: further headers.
        study: a Study Instance UID for the address.
    """

    name: str
    content: Callable[[], Iterator[bytes]]
    statuses: frozenset[int]
    content_type: str = TYPE
    headers: dict[str, str] = field(default_factory=dict)
    study: str = ""


_BODIES: Final[list[HostileBody]] = []
Content = Callable[[], Iterator[bytes]]


def body(
    *statuses: int, content_type: str = TYPE, study: str = "", headers: dict[str, str] | None = None
) -> Callable[[Content], Content]:
    """Enters a function into the register."""

    def enter(content: Content) -> Content:
        name = content.__name__.replace("_", "-")
        _BODIES.append(HostileBody(name, content, frozenset(statuses), content_type, headers or {}, study))
        return content

    return enter


def hostile_bodies() -> list[HostileBody]:
    """All of them."""
    return list(_BODIES)


def part(content: bytes, kind: str = "application/dicom") -> bytes:
    """One part, its delimiter before it."""
    return f"--{BOUNDARY}\r\nContent-Type: {kind}\r\n\r\n".encode() + content + b"\r\n"


def good() -> bytes:
    """An instance that is fine."""
    return Identity.new().file(element(0x00100010, "PN", b"Fine^All"))


@body(400, content_type='multipart/related; type="application/dicom"')
def no_boundary() -> Iterator[bytes]:
    yield part(good()) + END


@body(400, content_type=f'multipart/related; type="application/dicom"; boundary="{"b" * 100_0}"')
def a_boundary_of_a_thousand_letters() -> Iterator[bytes]:
    yield part(good()) + END


@body(400, content_type='multipart/related; type="application/dicom"; boundary="a\\"\\r\\nX: y"')
def a_boundary_with_quotes() -> Iterator[bytes]:
    yield part(good()) + END


@body(400, content_type='multipart/related; type="application/dicom"; boundary=another')
def another_boundary() -> Iterator[bytes]:
    yield part(good()) + END


@body(400)
def nothing() -> Iterator[bytes]:
    yield b""


@body(400)
def only_the_end() -> Iterator[bytes]:
    yield END


@body(413)
def a_hundred_thousand_parts() -> Iterator[bytes]:
    one = part(b"") * 1000
    for _ in range(100):
        yield one
    yield END


@body(409)
def a_thousand_empty_parts() -> Iterator[bytes]:
    yield part(b"") * 1000 + END


@body(409, 415)
def parts_of_other_types() -> Iterator[bytes]:
    yield part(b"<html></html>", "text/html") + part(b"MZ", "application/x-msdownload") + END


@body(409, study="1.2.3.4.5")
def another_study() -> Iterator[bytes]:
    yield part(good()) + END


@body(400, 404, study="..%2f..%2fetc")
def a_study_that_climbs() -> Iterator[bytes]:
    yield part(good()) + END


@body(413, headers={"Content-Length": str(1 << 50)})
def a_length_of_a_petabyte() -> Iterator[bytes]:
    yield part(good())


@body(400)
def cut_short() -> Iterator[bytes]:
    yield part(good())[:-20]


@body(400)
def a_preamble_without_end() -> Iterator[bytes]:
    for _ in range(30):
        yield b"x" * MIB


@body(400)
def part_headers_without_end() -> Iterator[bytes]:
    yield f"--{BOUNDARY}\r\n".encode()
    for _ in range(30):
        yield b"X-Header: " + b"x" * MIB + b"\r\n"


@body(400)
def a_part_header_without_a_name() -> Iterator[bytes]:
    yield f"--{BOUNDARY}\r\nno colon here\r\n\r\nabc\r\n".encode() + END


@body(400, 409, 200)
def part_headers_that_smuggle() -> Iterator[bytes]:
    headers = "Content-Type: application/dicom\r\nContent-Length: 99999999\r\nTransfer-Encoding: chunked\r\n"
    yield f"--{BOUNDARY}\r\n{headers}Content-Location: ../../etc/passwd\r\n\r\n".encode() + good() + b"\r\n" + END


@body(400, 409)
def delimiters_that_nearly_are() -> Iterator[bytes]:
    """Each makes a reader look again."""
    yield part(b"")[:-2]
    for _ in range(20):
        yield f"\r\n--{BOUNDARY}x".encode() * 20_000
    yield b"\r\n" + END


@body(400, 409)
def delimiters_in_single_bytes() -> Iterator[bytes]:
    for byte in part(b"abc") + END:
        yield bytes([byte])


@body(400, 409)
def line_breaks_only() -> Iterator[bytes]:
    yield part(b"")[:-2]
    for _ in range(20):
        yield b"\r\n" * (MIB // 2)
    yield b"\r\n" + END


@body(400, 413, 415, headers={"Content-Encoding": "gzip"})
def gzip_of_a_gigabyte() -> Iterator[bytes]:
    start, zeros = part(b"")[:-2], bytes(MIB)
    block = gzip.compress(zeros, 9)
    yield gzip.compress(start)
    for _ in range(1024):
        yield block  # members of one file follow each other (RFC 1952 section 2.2)
    yield gzip.compress(b"\r\n" + END)


@body(400, 413, 415, headers={"Content-Encoding": "gzip"})
def gzip_in_gzip() -> Iterator[bytes]:
    yield gzip.compress(gzip.compress(bytes(50 * MIB), 1), 1)


@body(400, 415, headers={"Content-Encoding": "gzip"})
def gzip_in_name_only() -> Iterator[bytes]:
    yield part(good()) + END


@body(400, 415, headers={"Content-Encoding": "gzip"})
def gzip_cut_short() -> Iterator[bytes]:
    yield gzip.compress(part(good()) + END)[:-30]


@body(415, headers={"Content-Encoding": "br, gzip, deflate, gzip, gzip"})
def encodings_upon_encodings() -> Iterator[bytes]:
    yield part(good()) + END


@body(400, 409, 413, 415, content_type=JSON_TYPE)
def json_nested_deep() -> Iterator[bytes]:
    yield part(b'[{"00400275":{"vr":"SQ","Value":[' * 1 + b"[" * 200_000, "application/dicom+json") + END


@body(400, 409, 413, 415, content_type=JSON_TYPE)
def json_sequences_nested_deep() -> Iterator[bytes]:
    opening, closing = b'{"00400275":{"vr":"SQ","Value":[', b"]}}"
    yield part(b"[" + opening * 10_000 + closing * 10_000 + b"]", "application/dicom+json") + END


@body(400, 409, 413, 415, content_type=JSON_TYPE)
def json_of_80_megabytes() -> Iterator[bytes]:
    yield part(b'[{"00204000":{"vr":"LT","Value":["', "application/dicom+json")[:-2]
    for _ in range(80):
        yield b"x" * MIB
    yield b'"]}}]\r\n' + END


@body(400, 409, 413, 415, content_type=JSON_TYPE)
def json_of_a_million_empty_objects() -> Iterator[bytes]:
    yield part(b"[" + b"{}," * 1_000_000 + b"{}]", "application/dicom+json") + END


@body(400, 409, 415, content_type=JSON_TYPE)
def json_with_bulk_data_elsewhere() -> Iterator[bytes]:
    """A server that fetches what the sender names can be made to fetch anything."""
    text = b'[{"7FE00010":{"vr":"OW","BulkDataURI":"http://169.254.169.254/latest/meta-data/"}}]'
    yield part(text, "application/dicom+json") + part(b"abc", "application/octet-stream") + END


@body(400, 409, 415, content_type="application/dicom+json")
def json_that_is_none() -> Iterator[bytes]:
    yield b"\xff\xfe" + b"[NaN,Infinity,1e999999,{]" * 1000


@body(415, content_type="application/dicom+xml")
def xml_entities() -> Iterator[bytes]:
    yield (
        b'<!DOCTYPE a [<!ENTITY b "bbbbbbbbbb">'
        + b"".join(f'<!ENTITY b{i} "{f"&b{i - 1};" * 10}">'.encode() for i in range(1, 10))
        + b"]><NativeDicomModel>&b9;</NativeDicomModel>"
    )


@body(400, 409, content_type="application/dicom")
def a_single_part_of_40_megabytes_of_nothing() -> Iterator[bytes]:
    for _ in range(40):
        yield bytes(MIB)

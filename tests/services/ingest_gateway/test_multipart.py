"""The multipart reader: whatever chunks a body comes in, its parts are the ones that were sent."""

import random

import pytest

from services.ingest_gateway.multipart import (
    InvalidMultipart,
    MultipartReader,
    PartBegan,
    PartData,
    PartEnded,
    TooManyParts,
    parse_media_type,
    require_boundary,
)

Part = tuple[dict[str, str], bytes]


def read(body: bytes, size: int, *, boundary: bytes = b"B", max_parts: int = 10, max_header: int = 200) -> list[Part]:
    reader = MultipartReader(boundary, max_parts=max_parts, max_header=max_header)
    parts: list[Part] = []
    current: tuple[dict[str, str], bytearray] | None = None
    for start in range(0, len(body), size):
        for event in reader.feed(body[start : start + size]):
            if isinstance(event, PartBegan):
                current = (event.headers, bytearray())
            elif isinstance(event, PartData):
                assert current is not None
                current[1].extend(event.data)
            elif isinstance(event, PartEnded):
                assert current is not None
                parts.append((current[0], bytes(current[1])))
                current = None
    reader.finish()
    return parts


BODY = (
    b"this is the preamble\r\n--Bogus\r\nstill the preamble\r\n--B  \t\r\n"
    b"Content-Type: application/dicom\r\nX-Folded: one\r\n two\r\n\r\nfirst\r\n--Beware\r\n--B-\r\n-\r\n\r\n"
    b"--B\r\n\r\nno headers"
    b"\r\n--B\r\nContent-Type: a/b\r\n\r\n"
    b"\r\n--B\r\nContent-Type: no/body\r\n\r\n--B\r\n\r\n\r\n\r\n"
    b"\r\n--B--  \r\nthe epilogue\r\n--B\r\n\r\nis not read\r\n--B--"
)
PARTS: list[Part] = [
    ({"content-type": "application/dicom", "x-folded": "one two"}, b"first\r\n--Beware\r\n--B-\r\n-\r\n"),
    ({}, b"no headers"),
    ({"content-type": "a/b"}, b""),
    ({"content-type": "no/body"}, b""),
    ({}, b"\r\n\r\n"),
]


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 11, 64, 10_000])
def test_chunk_borders_make_no_difference(size: int) -> None:
    assert read(BODY, size) == PARTS


def test_random_parts_come_back_whole_from_random_chunks() -> None:
    chance = random.Random(7)
    for _ in range(200):
        alphabet = [b"\r", b"\n", b"-", b"B", b"\r\n--B", b"\r\n--", b" ", b"x", bytes(50)]
        # What looks like a delimiter of its own must not be in a part: that is the sender's duty.
        contents = [b"".join(chance.choices(alphabet, k=chance.randrange(30))) for _ in range(4)]
        contents = [c for c in contents if b"\r\n--B" not in c + b"\r\n" and not c.startswith(b"--B")]
        body = b"".join(b"--B\r\nA: b\r\n\r\n" + c + b"\r\n" for c in contents) + b"--B--"
        if contents:
            assert [data for _, data in read(body, chance.randrange(1, 40))] == contents


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "does not begin"),
        (b"no delimiter at all", "does not begin"),
        (b"x" * 100_000, "first 65536 bytes"),
        (b"--B\r\nA: b\r\n\r\ndata", "cut short"),
        (b"--B\r\nA: b\r\n\r\ndata\r\n--B", "cut short"),
        (b"--B\r\nA: b\r\n\r\ndata\r\n--B\r\n", "cut short"),
        (b"--B\r\nA: " + b"b" * 300 + b"\r\n\r\ndata\r\n--B--", "more than 200 bytes"),
        (b"--B\r\n" + b"A: b\r\n" * 1000, "more than 200 bytes"),
        (b"--B\r\nno colon\r\n\r\ndata\r\n--B--", "no name"),
        (b"--B\r\n: b\r\n\r\ndata\r\n--B--", "no name"),
    ],
)
def test_what_departs_from_the_standard_is_named(body: bytes, words: str) -> None:
    for size in (1, 1 << 20):
        with pytest.raises(InvalidMultipart, match=words):
            read(body, size)


def test_parts_are_counted() -> None:
    body = b"--B\r\n\r\n\r\n" * 10 + b"--B--"
    assert len(read(body, 100)) == 10
    with pytest.raises(TooManyParts):
        read(b"--B\r\n\r\n\r\n" + body, 100)


def test_memory_does_not_grow_with_a_part() -> None:
    reader = MultipartReader(b"B" * 70, max_parts=1, max_header=200)
    reader.feed(b"--" + b"B" * 70 + b"\r\n\r\n")
    for _ in range(100):
        reader.feed(b"\r\n--" * 5000)
        assert len(reader._buffer) < 300


@pytest.mark.parametrize(
    ("text", "name", "parameters"),
    [
        (
            'multipart/related; type="application/dicom"; boundary="a b=c"',
            "multipart/related",
            {"type": "application/dicom", "boundary": "a b=c"},
        ),
        (
            "Multipart/Related;boundary=xyz;TYPE=application/dicom",
            "multipart/related",
            {"type": "application/dicom", "boundary": "xyz"},
        ),
        ("application/dicom", "application/dicom", {}),
        ("", "", {}),
    ],
)
def test_media_types_quoted_or_not(text: str, name: str, parameters: dict[str, str]) -> None:
    media_type = parse_media_type(text)
    assert (media_type.name, media_type.parameters) == (name, parameters)


@pytest.mark.parametrize("boundary", ["", "x" * 129, "a;b", "ends with a space ", "a\x00b", "ü"])
def test_boundaries_that_the_standard_forbids(boundary: str) -> None:
    with pytest.raises(InvalidMultipart):
        require_boundary(parse_media_type(f'multipart/related; boundary="{boundary}"'))

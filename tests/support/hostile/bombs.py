"""Few bytes that become many: deflated data sets, nested sequences, numbers of elements and values."""

import zlib

from libs.dicom.identifiers import DEFLATED_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from tests.support.dicom_bytes import ITEM_END, SEQUENCE_END, UNDEFINED, element, implicit, item
from tests.support.hostile.corpus import CANNOT_UNDERSTAND, STORED, Identity, instance

MIB = 1 << 20


def _deflated(identity: Identity, *pieces: bytes, zeros: int = 0) -> bytes:
    """A deflated file of these pieces and, behind them, ``zeros`` MiB of zeros."""
    packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    start = b"".join(packer.compress(piece) for piece in pieces) + packer.flush(zlib.Z_FULL_FLUSH)
    mebibyte = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = mebibyte.compress(bytes(MIB)) + mebibyte.flush(zlib.Z_FULL_FLUSH)
    return identity.head(DEFLATED_LITTLE_ENDIAN) + start + block * zeros + packer.flush()


def _image(pixels: int) -> bytes:
    size = element(0x00280010, "US", b"\0\2") + element(0x00280011, "US", b"\0\2")
    return size + element(0x7FE00010, "OW", b"", length=pixels)


@instance("bomb", CANNOT_UNDERSTAND)
def deflated_zeros(identity: Identity) -> bytes:
    return _deflated(identity, zeros=400)


@instance("bomb", CANNOT_UNDERSTAND)
def deflated_image_of_a_gigabyte(identity: Identity) -> bytes:
    return _deflated(identity, *identity.elements(), _image(1024 * MIB), zeros=1024)


@instance("bomb", STORED)
def deflated_image_of_200_megabytes(identity: Identity) -> bytes:
    """A segmentation that is empty but for a little deflates as well as a bomb, and is none."""
    return _deflated(identity, *identity.elements(), _image(200 * MIB), zeros=200)


@instance("bomb", CANNOT_UNDERSTAND)
def deflated_elements(identity: Identity) -> bytes:
    elements = b"".join(element(0x00211000 + i, "LO", b"a\\b ") for i in range(50_000))
    return _deflated(identity, *identity.elements(), *[elements] * 8)


@instance("bomb", CANNOT_UNDERSTAND)
def deflated_and_cut_short(identity: Identity) -> bytes:
    return _deflated(identity, *identity.elements(), _image(MIB), bytes(MIB))[:-5]


@instance("bomb", CANNOT_UNDERSTAND)
def deflated_in_name_only(identity: Identity) -> bytes:
    return identity.file(syntax=DEFLATED_LITTLE_ENDIAN)


@instance("bomb", CANNOT_UNDERSTAND)
def deflated_twice(identity: Identity) -> bytes:
    return _deflated(identity, _deflated(identity, zeros=100))


def _nested(depth: int, *, defined: bool) -> bytes:
    content = b""
    for _ in range(depth):
        if defined:
            content = element(0x00400275, "SQ", item(content))
        else:
            inner = item(content + ITEM_END, length=UNDEFINED)
            content = element(0x00400275, "SQ", inner + SEQUENCE_END, length=UNDEFINED)
    return content


@instance("nesting", CANNOT_UNDERSTAND)
def sequences_200_deep(identity: Identity) -> bytes:
    return identity.file(_nested(200, defined=False))


@instance("nesting", CANNOT_UNDERSTAND)
def sequences_5000_deep(identity: Identity) -> bytes:
    return identity.file(_nested(5000, defined=True))


@instance("nesting", CANNOT_UNDERSTAND)
def sequences_100_000_deep_that_never_end(identity: Identity) -> bytes:
    level = implicit(0x00400275, b"", length=UNDEFINED) + item(b"", length=UNDEFINED)
    elements = [
        implicit(int.from_bytes(e[0:2], "little") << 16 | int.from_bytes(e[2:4], "little"), e[8:])
        for e in identity.elements()
    ]
    return identity.head(IMPLICIT_VR_LITTLE_ENDIAN) + b"".join(elements) + level * 100_000


@instance("nesting", CANNOT_UNDERSTAND)
def sequences_in_unknown_200_deep(identity: Identity) -> bytes:
    content = b""
    for _ in range(200):
        content = implicit(0x00291010, item(content + ITEM_END, length=UNDEFINED) + SEQUENCE_END, length=UNDEFINED)
    return identity.file(element(0x00291010, "UN", item(content) + SEQUENCE_END, length=UNDEFINED))


@instance("nesting", STORED)
def sequence_of_a_million_items(identity: Identity) -> bytes:
    return identity.file(element(0x00400275, "SQ", item(b"") * 1_000_000))


@instance("nesting", STORED)
def sequence_of_undefined_lengths(identity: Identity) -> bytes:
    one = item(element(0x00400009, "SH", b"ab") + ITEM_END, length=UNDEFINED)
    return identity.file(element(0x00400275, "SQ", one * 150_000 + SEQUENCE_END, length=UNDEFINED))


@instance("numbers", STORED)
def a_hundred_thousand_private_tags(identity: Identity) -> bytes:
    groups = [
        b"".join(element(group << 16 | i, "LO", b"ab") for i in range(0x1000, 0x1000 + 50_000)) for group in (9, 11)
    ]
    return identity.file(element(0x000B0010, "LO", b"NOBODY"), after=b"").replace(
        element(0x000B0010, "LO", b"NOBODY"), b"".join(groups)
    )


@instance("numbers", CANNOT_UNDERSTAND)
def half_a_million_private_tags(identity: Identity) -> bytes:
    groups = (
        b"".join(element(group << 16 | i, "LO", b"") for i in range(0x10, 0xFFFF)) for group in range(0x21, 0x31, 2)
    )
    return identity.file(after=b"".join(groups))


@instance("numbers", CANNOT_UNDERSTAND)
def many_short_values(identity: Identity) -> bytes:
    return identity.file(after=b"".join(element(0x00211000 + i, "LO", b"ab\\" * 85) for i in range(60_000)))


@instance("numbers", STORED)
def backslashes(identity: Identity) -> bytes:
    return identity.file(after=b"".join(element(0x00211000 + i, "LO", b"\\" * 65_000) for i in range(200)))


@instance("numbers", STORED)
def a_text_of_20_megabytes(identity: Identity) -> bytes:
    return identity.file(element(0x0040A160, "UT", b"<" * (20 * MIB)))

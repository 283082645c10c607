"""Images that are not what they say: dimensions, palettes, frames, offset tables, code streams."""

import struct

import imagecodecs
import numpy as np

from libs.dicom.frames import frame_count, frame_ranges
from libs.dicom.identifiers import HTJ2K_LOSSLESS, JPEG_2000_LOSSLESS, JPEG_BASELINE, JPEG_LS_LOSSLESS, RLE_LOSSLESS
from tests.support.dicom_bytes import SEQUENCE_END, UNDEFINED, element, item
from tests.support.hostile.corpus import CANNOT_UNDERSTAND, STORED, Identity, instance
from tests.support.samples import sample


def _us(tag: int, value: int) -> bytes:
    return element(tag, "US", struct.pack("<H", value))


def _image(
    rows: int = 16, columns: int = 16, *, frames: bytes | None = None, photometric: bytes = b"MONOCHROME2 "
) -> list[bytes]:
    found = [
        _us(0x00280002, 1),
        element(0x00280004, "CS", photometric),
        _us(0x00280010, rows),
        _us(0x00280011, columns),
        _us(0x00280100, 8),
        _us(0x00280101, 8),
        _us(0x00280102, 7),
        _us(0x00280103, 0),
    ]
    return found if frames is None else [*found, element(0x00280008, "IS", frames + b" " * (len(frames) % 2))]


def _native(identity: Identity, *elements: bytes, size: int = 256) -> bytes:
    return identity.file(*elements, element(0x7FE00010, "OW", bytes(range(256)) * (size // 256)))


def _encapsulated(identity: Identity, content: bytes, *elements: bytes, syntax: str, count: bytes = b"1") -> bytes:
    pixels = element(0x7FE00010, "OB", content, length=UNDEFINED)
    return identity.file(*_image(64, 64, frames=count), *elements, pixels, syntax=syntax)


@instance("dimensions", STORED)
def rows_and_columns_of_another_representation(identity: Identity) -> bytes:
    wide = [element(0x00280010, "UL", struct.pack("<I", 1 << 31)), element(0x00280011, "UL", struct.pack("<I", 0))]
    return _native(identity, *[e for e in _image() if e[2:4] not in (b"\x10\0", b"\x11\0")], *wide)


@instance("dimensions", STORED)
def rows_and_columns_of_65535(identity: Identity) -> bytes:
    return _native(identity, *_image(0xFFFF, 0xFFFF))


@instance("dimensions", STORED)
def rows_and_columns_of_zero(identity: Identity) -> bytes:
    return _native(identity, *_image(0, 0))


@instance("dimensions", STORED)
def frames_without_number(identity: Identity) -> bytes:
    return _native(identity, *_image(frames=b"many"))


@instance("dimensions", STORED)
def frames_of_two_thousand_million(identity: Identity) -> bytes:
    return _native(identity, *_image(frames=b"2147483647"))


@instance("dimensions", STORED)
def frames_fewer_than_nothing(identity: Identity) -> bytes:
    return _native(identity, *_image(frames=b"-1"))


@instance("dimensions", STORED)
def a_million_frames_of_one_pixel(identity: Identity) -> bytes:
    return _native(identity, *_image(1, 1, frames=b"1000000"), size=1_000_192)


@instance("dimensions", STORED)
def palette_shorter_than_its_indices(identity: Identity) -> bytes:
    lut = [element(0x00281101 + i, "US", struct.pack("<3H", 0, 0, 16)) for i in range(3)]
    data = [element(0x00281201 + i, "OW", bytes(4)) for i in range(3)]
    return _native(identity, *_image(photometric=b"PALETTE COLOR "), *lut, *data)


@instance("dimensions", STORED)
def window_of_nothing(identity: Identity) -> bytes:
    window = [
        element(0x00281050, "DS", b"1e400 "),
        element(0x00281051, "DS", b"0 "),
        element(0x00281053, "DS", b"nan "),
    ]
    return _native(identity, *_image(), *window)


def _frame_of(name: str) -> bytes:
    """The first compressed frame of a real file."""
    real = sample(name)
    table = real.header.frames
    assert table is not None
    assert frame_count(table)
    data = real.path.read_bytes()
    return b"".join(data[offset : offset + length] for offset, length in frame_ranges(table, 1))


def _cut(identity: Identity, frame: bytes, syntax: str) -> bytes:
    half = frame[: len(frame) // 4 * 2]
    return _encapsulated(identity, item(b"") + item(half) + SEQUENCE_END, syntax=syntax)


@instance("codec", STORED)
def jpeg_2000_cut_short(identity: Identity) -> bytes:
    return _cut(identity, _frame_of("MR_small_jp2klossless.dcm"), JPEG_2000_LOSSLESS)


@instance("codec", STORED)
def jpeg_ls_cut_short(identity: Identity) -> bytes:
    return _cut(identity, _frame_of("MR_small_jpeg_ls_lossless.dcm"), JPEG_LS_LOSSLESS)


@instance("codec", STORED)
def rle_cut_short(identity: Identity) -> bytes:
    return _cut(identity, _frame_of("MR_small_RLE.dcm"), RLE_LOSSLESS)


@instance("codec", STORED)
def htj2k_cut_short(identity: Identity) -> bytes:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64), np.uint8)
    return _cut(identity, bytes(imagecodecs.htj2k_encode(noise, tlm=True)), HTJ2K_LOSSLESS)


@instance("codec", STORED)
def rle_with_segments_beyond_the_frame(identity: Identity) -> bytes:
    head = struct.pack("<16I", 15, *[0xFFFFFFF0] * 15)
    return _encapsulated(identity, item(b"") + item(head + bytes(64)) + SEQUENCE_END, syntax=RLE_LOSSLESS)


@instance("codec", STORED)
def jpeg_of_another_size(identity: Identity) -> bytes:
    frame = b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00" + bytes(100)
    return _encapsulated(identity, item(b"") + item(frame + b"\0") + SEQUENCE_END, syntax=JPEG_BASELINE)


@instance("codec", STORED)
def offsets_beyond_the_frames(identity: Identity) -> bytes:
    content = item(struct.pack("<3I", 0, 0xFFFFFFF0, 4)) + item(b"\xff\xd8ab") * 4 + SEQUENCE_END
    return _encapsulated(identity, content, syntax=JPEG_BASELINE, count=b"3")


@instance("codec", STORED)
def offset_table_of_twenty_megabytes(identity: Identity) -> bytes:
    content = item(bytes(20 << 20)) + item(b"\xff\xd8ab") * 4 + SEQUENCE_END
    return _encapsulated(identity, content, syntax=JPEG_BASELINE, count=b"3")


@instance("codec", STORED)
def extended_offset_table_of_twenty_megabytes(identity: Identity) -> bytes:
    table = element(0x7FE00001, "OV", bytes(20 << 20))
    content = item(b"") + item(b"\xff\xd8ab") * 4 + SEQUENCE_END
    return _encapsulated(identity, content, table, syntax=JPEG_BASELINE, count=b"3")


@instance("codec", CANNOT_UNDERSTAND)
def half_a_million_fragments(identity: Identity) -> bytes:
    return _encapsulated(identity, item(b"") * 500_000 + SEQUENCE_END, syntax=JPEG_BASELINE, count=b"500000")


@instance("codec", STORED)
def two_hundred_thousand_fragments(identity: Identity) -> bytes:
    """As many as the tiles of a large slide. Those of the largest that is taken need about 57 MiB for their table."""
    return _encapsulated(identity, item(b"") * 200_001 + SEQUENCE_END, syntax=JPEG_BASELINE, count=b"200000")


@instance("codec", CANNOT_UNDERSTAND)
def fragment_longer_than_the_file(identity: Identity) -> bytes:
    return _encapsulated(identity, item(b"") + item(b"ab", length=0xFFFFFFF0), syntax=JPEG_BASELINE)


@instance("codec", STORED)
def no_delimiter_after_the_fragments(identity: Identity) -> bytes:
    return _encapsulated(identity, item(b"") + item(b"\xff\xd8ab"), syntax=JPEG_BASELINE)


@instance("codec", STORED)
def native_pixels_under_a_compressed_syntax(identity: Identity) -> bytes:
    return identity.file(*_image(), element(0x7FE00010, "OW", bytes(256)), syntax=JPEG_BASELINE)

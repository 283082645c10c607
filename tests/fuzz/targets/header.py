"""The header walk: any bytes give a header whose every promise holds, or a typed error.

The first byte says how the rest is wrapped: its transfer syntax, and whether the four identifiers come before it.
"""

import warnings
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Final

import orjson
import pydicom
from pydicom.dataset import Dataset

from libs.dicom import DicomError, Header, is_uid, read_header
from libs.dicom.frames import frame_count, frame_ranges
from libs.dicom.identifiers import (
    DEFLATED_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    JPEG_BASELINE,
    RLE_LOSSLESS,
)
from libs.dicom.part10 import inflate
from tests.fuzz.target import Target
from tests.support.dicom_bytes import SEQUENCE_END, UNDEFINED, element, head, identity, implicit, item

_SYNTAXES: Final = (
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_LITTLE_ENDIAN,
    JPEG_BASELINE,
    RLE_LOSSLESS,
)
_WITH_IDENTITY: Final = 0x80
_WHOLE_FILE: Final = 0x40
_RAW_DEFLATE: Final = 0x20
_MOST_FRAMES: Final = 64
_IDENTITY: Final = {
    "SOPInstanceUID": "sop_instance_uid",
    "SOPClassUID": "sop_class_uid",
    "StudyInstanceUID": "study_uid",
}


def _file(data: bytes) -> bytes:
    how, rest = data[0], data[1:]
    if how & _WHOLE_FILE:
        return rest
    syntax = _SYNTAXES[how % 8 % len(_SYNTAXES)]
    if how & _WITH_IDENTITY:
        rest = _identity(syntax) + rest
    if syntax == DEFLATED_LITTLE_ENDIAN and not how & _RAW_DEFLATE:
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
        rest = packer.compress(rest) + packer.flush()
    return head(syntax) + rest


def _identity(syntax: str) -> bytes:
    if syntax == EXPLICIT_VR_BIG_ENDIAN:
        swapped = (e[1::-1] + e[3:1:-1] + e[4:6] + e[7:5:-1] + e[8:] for e in identity())
        return b"".join(swapped)
    if syntax == IMPLICIT_VR_LITTLE_ENDIAN:
        return b"".join(
            implicit(int.from_bytes(e[:2], "little") << 16 | int.from_bytes(e[2:4], "little"), e[8:])
            for e in identity()
        )
    return b"".join(identity())


def run(data: bytes) -> None:
    """Reads it, and holds the header to its word."""
    if not data:
        return
    file = _file(data)
    try:
        header = read_header(file)
    except DicomError:
        return
    _check_promises(header, file)
    if data[0] & 0x10 == 0:
        _compare(header, file)


def _check_promises(header: Header, file: bytes) -> None:
    text = orjson.dumps(header.dicom)
    assert b"\\u0000" not in text
    for uid in (header.sop_instance_uid, header.sop_class_uid, header.study_uid, header.series_uid):
        assert is_uid(uid)
    size = len(inflate(file)) if header.transfer_syntax == DEFLATED_LITTLE_ENDIAN else len(file)
    for offset, length in header.bulk.values():
        assert 0 <= offset <= offset + length <= size
    assert set(_bulk_names(header.dicom)) == set(header.bulk), (
        "each bulk value that is named has its place, and no other has"
    )
    if header.frames is not None:
        for number in range(1, min(_MOST_FRAMES, frame_count(header.frames)) + 1):
            for offset, length in frame_ranges(header.frames, number):
                assert 0 <= offset <= offset + length <= size
    assert list(header.dicom) == sorted(header.dicom)


def _bulk_names(dicom: dict[str, dict[str, object]]) -> Iterator[str]:
    for entry in dicom.values():
        if isinstance(name := entry.get("BulkDataURI"), str):
            yield name
        if entry["vr"] == "SQ" and isinstance(items := entry.get("Value"), list):
            for one in items:
                yield from _bulk_names(one)


def _compare(header: Header, file: bytes) -> None:
    """Where pydicom reads an identifier at all, it reads the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            reference = pydicom.dcmread(BytesIO(file), stop_before_pixels=True, specific_tags=list(_IDENTITY))
            found = {ours: _text(reference, keyword) for keyword, ours in _IDENTITY.items()}
        except Exception:
            return  # it may refuse what we live with
    for ours, value in found.items():
        assert value is None or value == getattr(header, ours), f"pydicom reads another {ours}"


def _text(reference: Dataset, keyword: str) -> str | None:
    value = reference.get(keyword)
    return str(value) if value and is_uid(str(value)) else None


def seeds() -> Iterator[bytes]:
    """One of each construction, and the beginnings of real files."""
    from tests.support.samples import sample_files

    text = element(0x00080005, "CS", b"\\ISO 2022 IR 87") + element(0x00100010, "PN", b"a\x1b$B;3ED\x1b(B^b=c=d ")
    sequence = element(0x00400275, "SQ", item(element(0x00080100, "SH", b"ab")) + SEQUENCE_END, length=UNDEFINED)
    fragments = item(b"\0\0\0\0\x0a\0\0\0") + item(b"\xff\xd8") + item(b"\xff\xd8ab") + SEQUENCE_END
    frames = element(0x00280008, "IS", b"2 ") + element(0x7FE00010, "OB", fragments, length=UNDEFINED)
    native = (
        element(0x00280010, "US", b"\2\0") + element(0x00280011, "US", b"\2\0") + element(0x00280100, "US", b"\1\0")
    )
    numbers = (
        element(0x00280030, "DS", b"1.5\\2") + element(0x00200013, "IS", b"1 ") + element(0x00189087, "FD", bytes(8))
    )
    private = (
        element(0x00090010, "LO", b"SIEMENS CT VA0  COAD")
        + element(0x00091010, "UN", b"ab")
        + element(0x0009FF00, "OB", bytes(300))
    )
    for how in (0x80, 0x83, 0x84, 0x85, 0x90):
        yield bytes([how]) + text + sequence + numbers + private
        yield bytes([how]) + native + element(0x7FE00010, "OW", bytes(8))
        yield bytes([how]) + frames
    yield bytes([0x81]) + implicit(0x00100010, b"Doe^Jane") + implicit(0x00400275, item(b""), length=8)
    yield bytes([0x82]) + b"\0\x10\0\x20LO\0\4abcd"
    yield bytes([0xA3]) + b"\xcb\x48\xcd\xc9\xc9\x57\x28\xcf\x2f\xca\x49\x01\0"
    for real in sample_files():
        yield bytes([_WHOLE_FILE]) + real.path.read_bytes()[:4000]


TARGET: Final = Target("header", run, seeds, ("libs.dicom",), 8192)

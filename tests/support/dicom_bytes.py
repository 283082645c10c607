"""Small Part 10 files made byte by byte, for what no writer would write."""

import struct
from typing import Final

from libs.dicom.identifiers import EXPLICIT_VR_LITTLE_ENDIAN
from libs.dicom.part10 import file_meta

SOP_CLASS: Final = "1.2.840.10008.5.1.4.1.1.2"
INSTANCE: Final = "1.2.3.4"
STUDY: Final = "1.2.3"
SERIES: Final = "1.2.3.1"
LONG: Final = frozenset({"OB", "OW", "OL", "OF", "OD", "OV", "SQ", "UC", "UN", "UR", "UT", "SV", "UV"})
UNDEFINED: Final = 0xFFFFFFFF


def element(tag: int, vr: str, value: bytes, *, length: int | None = None) -> bytes:
    """One element in explicit VR little endian; ``length`` may lie."""
    size = len(value) if length is None else length
    head = struct.pack("<HH2s", tag >> 16, tag & 0xFFFF, vr.encode())
    return head + (struct.pack("<HI", 0, size) if vr in LONG else struct.pack("<H", size)) + value


def implicit(tag: int, value: bytes, *, length: int | None = None) -> bytes:
    """One element in implicit VR little endian."""
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value) if length is None else length) + value


def item(content: bytes, *, length: int | None = None) -> bytes:
    """One item of a sequence, or a fragment."""
    return implicit(0xFFFEE000, content, length=length)


SEQUENCE_END: Final = implicit(0xFFFEE0DD, b"")
ITEM_END: Final = implicit(0xFFFEE00D, b"")


def identity(
    *, instance: str = INSTANCE, study: str = STUDY, series: str = SERIES, sop_class: str = SOP_CLASS
) -> list[bytes]:
    """The four identifiers, padded with NUL; a test adds elements and joins all in order."""
    return [
        element(0x00080016, "UI", _padded(sop_class)),
        element(0x00080018, "UI", _padded(instance)),
        element(0x00080060, "CS", b"CT"),
        element(0x0020000D, "UI", _padded(study)),
        element(0x0020000E, "UI", _padded(series)),
    ]


def part10(elements: list[bytes], *, syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    """A file of these elements, sorted by tag (of little endian)."""
    ordered: list[bytes] = sorted(elements, key=_tag_of)
    return head(syntax) + b"".join(ordered)


def head(syntax: str = EXPLICIT_VR_LITTLE_ENDIAN) -> bytes:
    """Preamble and file meta information."""
    return file_meta(sop_class_uid=SOP_CLASS, sop_instance_uid=INSTANCE, transfer_syntax=syntax)


def _padded(uid: str) -> bytes:
    raw = uid.encode("latin-1")
    return raw + b"\0" if len(raw) % 2 else raw


def _tag_of(raw: bytes) -> tuple[int, ...]:
    return struct.unpack("<HH", raw[:4])

"""The Part 10 file: preamble, file meta information, and where the data set begins (PS3.10 section 7.1)."""

import struct
from dataclasses import dataclass
from typing import Final

from libs.dicom.errors import InvalidDicom, NotDicom
from libs.dicom.identifiers import require_uid

IMPLEMENTATION_CLASS_UID: Final = "2.25.226364379386418513171265107062893137413"
"""This implementation, in the file meta information that it writes (PS3.10 section 7.1, UUID-derived)."""
IMPLEMENTATION_VERSION_NAME: Final = "LIGHTBOX_01"

PREAMBLE_LENGTH: Final = 128
_PREFIX: Final = b"DICM"
_META_START: Final = PREAMBLE_LENGTH + 4
_LARGEST_META: Final = 64 * 1024
_LONG_VRS: Final = frozenset(
    {b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN", b"SV", b"UV"}
)


@dataclass(frozen=True)
class FileMeta:
    """The file meta information as found.

    Attributes:
        transfer_syntax: (0002,0010); empty when absent.
        sop_class_uid: (0002,0002); empty when absent.
        sop_instance_uid: (0002,0003); empty when absent.
        source_ae_title: (0002,0016); empty when absent.
        dataset_offset: bytes from the start of the file to the data set.
    """

    transfer_syntax: str
    sop_class_uid: str
    sop_instance_uid: str
    source_ae_title: str
    dataset_offset: int


def file_meta(
    *, sop_class_uid: str, sop_instance_uid: str, transfer_syntax: str, source_ae_title: str = ""
) -> bytes:
    """Preamble, prefix and file meta information for a data set that arrived without (PS3.10 table 7.1-1).

    Arguments:
        sop_class_uid: (0002,0002).
        sop_instance_uid: (0002,0003).
        transfer_syntax: (0002,0010), that of the data set which follows.
        source_ae_title: (0002,0016), up to 16 characters; left out when empty.

    Returns:
        The bytes to which the data set, as received, is appended.

    Raises:
        InvalidUid: one of the identifiers is not valid.
    """
    body = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", require_uid(sop_class_uid, "SOP class UID").encode()),
            _element(0x0003, b"UI", require_uid(sop_instance_uid, "SOP instance UID").encode()),
            _element(0x0010, b"UI", require_uid(transfer_syntax, "transfer syntax UID").encode()),
            _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode()),
            _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode()),
            _element(0x0016, b"AE", _ae_title(source_ae_title)) if source_ae_title else b"",
        )
    )
    return bytes(PREAMBLE_LENGTH) + _PREFIX + _element(0x0000, b"UL", struct.pack("<I", len(body))) + body


def read_file_meta(head: bytes | memoryview) -> FileMeta:
    """Reads the file meta information at the beginning of a Part 10 file.

    The group length is not trusted: the group is walked until an element of another group, since real files carry
    wrong lengths or none.

    Arguments:
        head: the beginning of the file, or all of it; 64 KiB suffice.

    Raises:
        NotDicom: no "DICM" prefix at byte 128, or the file ends before it.
        InvalidDicom: the group is broken or larger than 64 KiB.
    """
    data = memoryview(head)[: _META_START + _LARGEST_META]
    if len(data) < _META_START or data[PREAMBLE_LENGTH:_META_START] != _PREFIX:
        raise NotDicom("This is not a DICOM Part 10 file: the prefix DICM is missing at byte 128.")
    values, position = _walk(data)
    return FileMeta(
        transfer_syntax=_text(values.get(0x0010, b"")),
        sop_class_uid=_text(values.get(0x0002, b"")),
        sop_instance_uid=_text(values.get(0x0003, b"")),
        source_ae_title=_text(values.get(0x0016, b"")),
        dataset_offset=position,
    )


def _walk(data: memoryview) -> tuple[dict[int, bytes], int]:
    values: dict[int, bytes] = {}
    position = _META_START
    while position + 8 <= len(data):
        group, element = struct.unpack_from("<HH", data, position)
        if group != 0x0002:
            break
        vr = bytes(data[position + 4 : position + 6])
        if vr in _LONG_VRS:
            if position + 12 > len(data):
                raise InvalidDicom("The file meta information ends in the middle of an element.")
            (length,) = struct.unpack_from("<I", data, position + 8)
            start = position + 12
        elif vr.isalpha() and vr.isupper():
            (length,) = struct.unpack_from("<H", data, position + 6)
            start = position + 8
        else:  # implicit VR, against the standard but seen
            (length,) = struct.unpack_from("<I", data, position + 4)
            start = position + 8
        if start + length > len(data):
            raise InvalidDicom("An element of the file meta information is longer than the file.")
        values[element] = bytes(data[start : start + length])
        position = start + length
    return values, position


def _text(value: bytes) -> str:
    return value.decode("latin-1").strip(" \0")


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    if len(value) % 2:
        value += b"\0" if vr in {b"UI", b"OB"} else b" "
    if vr in _LONG_VRS:
        return struct.pack("<HH2sHI", 0x0002, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _ae_title(title: str) -> bytes:
    return title.encode("ascii", "replace").replace(b"\\", b"?")[:16]

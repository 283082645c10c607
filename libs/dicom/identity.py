"""The four identifying UIDs of a data set, read without the rest: for those who only need to know what came."""

import struct
from dataclasses import dataclass
from typing import Final

from libs.dicom.identifiers import DEFLATED, EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN, is_uid

_SOP_CLASS_UID: Final = 0x00080016
_SOP_INSTANCE_UID: Final = 0x00080018
_STUDY_UID: Final = 0x0020000D
_SERIES_UID: Final = 0x0020000E
_IDENTITY: Final = frozenset({_SOP_CLASS_UID, _SOP_INSTANCE_UID, _STUDY_UID, _SERIES_UID})
_FIRST: Final = 0x00080000
_MOST_ELEMENTS: Final = 1000
_DEEPEST: Final = 8
_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_SEQUENCE_END: Final = 0xFFFEE0DD
_LONG_HEADER: Final = {
    **dict.fromkeys(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split(), False),
    **dict.fromkeys(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split(), True),
}
"""Whether the length of an element of this representation has four bytes."""
_EXPLICIT: Final = struct.Struct("<HH2sH").unpack_from
_IMPLICIT: Final = struct.Struct("<HHI").unpack_from
_LENGTH: Final = struct.Struct("<I").unpack_from


@dataclass(frozen=True)
class Identity:
    """Which instance a data set is.

    Attributes:
        sop_instance_uid: (0008,0018).
        sop_class_uid: (0008,0016).
        study_uid: (0020,000D).
        series_uid: (0020,000E).
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str


def quick_identity(data: bytes | bytearray | memoryview, transfer_syntax: str, size: int) -> Identity | None:
    """The identity of a plain data set, whose elements fill it exactly, from its beginning.

    It never says anything else than ``libs.dicom.read_header`` of the whole: whatever is not plain gives None, and
    needs that function, which also judges what is wrong. Not plain are elements out of order, a transfer syntax that is
    deflated or big endian, explicit VR under an implicit transfer syntax or the other way round, encapsulated Pixel
    Data, a UID that is missing or malformed, and a data set with an element that begins after ``data``.

    Arguments:
        data: the data set without file meta information, or its first kilobytes.
        transfer_syntax: of the data set.
        size: bytes of the whole data set.
    """
    if transfer_syntax in DEFLATED or transfer_syntax == EXPLICIT_VR_BIG_ENDIAN:
        return None
    explicit = transfer_syntax != IMPLICIT_VR_LITTLE_ENDIAN
    try:
        if (bytes(data[4:6]) in _LONG_HEADER) != explicit:
            return None
        found = (_walk_explicit if explicit else _walk_implicit)(bytes(data), size)
    except struct.error:
        return None
    if found is None or len(found) < len(_IDENTITY) or not all(map(is_uid, found.values())):
        return None
    return Identity(found[_SOP_INSTANCE_UID], found[_SOP_CLASS_UID], found[_STUDY_UID], found[_SERIES_UID])


def _walk_explicit(data: bytes, size: int) -> dict[int, str] | None:
    found: dict[int, str] = {}
    position, previous = 0, _FIRST - 1
    for _ in range(_MOST_ELEMENTS):
        group, element, vr, length = _EXPLICIT(data, position)
        position += 8
        tag = group << 16 | element
        if tag <= previous:
            return None
        previous = tag
        long = _LONG_HEADER.get(vr)
        if long is None:
            return None
        if long:
            length = _LENGTH(data, position)[0]
            position += 4
            if length == _UNDEFINED:
                if vr != b"SQ":
                    return None
                position, length = _after_items(data, position, 1), 0
        if tag in _IDENTITY:
            if position + length > len(data):
                return None  # the beginning of a UID is another UID
            found[tag] = _uid(data[position : position + length])
        position += length
        if position >= size:
            return found if position == size else None
    return None


def _walk_implicit(data: bytes, size: int) -> dict[int, str] | None:
    found: dict[int, str] = {}
    position, previous = 0, _FIRST - 1
    for _ in range(_MOST_ELEMENTS):
        group, element, length = _IMPLICIT(data, position)
        position += 8
        tag = group << 16 | element
        if tag <= previous or length == _UNDEFINED:
            return None
        previous = tag
        if tag in _IDENTITY:
            if position + length > len(data):
                return None  # the beginning of a UID is another UID
            found[tag] = _uid(data[position : position + length])
        position += length
        if position >= size:
            return found if position == size else None
    return None


def _after_items(data: bytes, position: int, depth: int) -> int:
    """Where an explicit VR sequence of undefined length ends; struct.error when that is not plain."""
    for _ in range(_MOST_ELEMENTS):
        group, element, length = _IMPLICIT(data, position)
        position += 8
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            return position
        if tag != _ITEM:
            break
        position = _after_item(data, position, depth) if length == _UNDEFINED else position + length
    raise struct.error


def _after_item(data: bytes, position: int, depth: int) -> int:
    for _ in range(_MOST_ELEMENTS):
        group, element, vr, length = _EXPLICIT(data, position)
        position += 8
        if group == 0xFFFE:
            if element == 0xE00D:
                return position
            break
        long = _LONG_HEADER.get(vr)
        if long is None:
            break
        if long:
            length = _LENGTH(data, position)[0]
            position += 4
            if length == _UNDEFINED:
                if vr != b"SQ" or depth == _DEEPEST:
                    break
                position, length = _after_items(data, position, depth + 1), 0
        position += length
    raise struct.error


def _uid(value: bytes) -> str:
    return value.decode("latin-1").rstrip("\0 ").lstrip(" ")

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
_MOST_ELEMENTS: Final = 512
_UNDEFINED: Final = 0xFFFFFFFF
_SHORT: Final = frozenset(
    b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()  # those with a length of two bytes
)
_LONG: Final = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
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


def quick_identity(data: bytes | bytearray | memoryview, transfer_syntax: str) -> Identity | None:
    """The identity of a plain data set, from its beginning: nothing after (0020,000E) is looked at.

    It never says anything else than ``libs.dicom.read_header`` of an intact data set: whatever is not plain gives None,
    and needs that function, which also judges what is wrong. Not plain are elements out of order, a transfer syntax
    that is deflated or big endian, explicit VR under an implicit transfer syntax or the other way round, sequences of
    undefined length, a UID that is missing or malformed, and a data set whose UIDs are not within ``data``.

    Arguments:
        data: the data set without file meta information, or its first kilobytes.
        transfer_syntax: of the data set.
    """
    if transfer_syntax in DEFLATED or transfer_syntax == EXPLICIT_VR_BIG_ENDIAN:
        return None
    try:
        found = _walk(data, explicit=transfer_syntax != IMPLICIT_VR_LITTLE_ENDIAN)
    except struct.error:
        return None
    if found is None or len(found) < len(_IDENTITY) or not all(map(is_uid, found.values())):
        return None
    return Identity(found[_SOP_INSTANCE_UID], found[_SOP_CLASS_UID], found[_STUDY_UID], found[_SERIES_UID])


def _walk(data: bytes | bytearray | memoryview, *, explicit: bool) -> dict[int, str] | None:
    found: dict[int, str] = {}
    position, previous = 0, _FIRST - 1
    if (bytes(data[4:6]) in _SHORT | _LONG) != explicit:
        return None
    for _ in range(_MOST_ELEMENTS):
        if explicit:
            group, element, vr, length = _EXPLICIT(data, position)
            position += 8
            if vr not in _SHORT:
                if vr not in _LONG:
                    return None
                length = _LENGTH(data, position)[0]
                position += 4
        else:
            group, element, length = _IMPLICIT(data, position)
            position += 8
        tag = group << 16 | element
        if tag <= previous or length == _UNDEFINED:
            return None
        if tag > _SERIES_UID:
            return found
        previous = tag
        if tag in _IDENTITY:
            value = bytes(data[position : position + length])
            if len(value) < length:
                return None
            found[tag] = value.decode("latin-1").rstrip("\0 ").lstrip(" ")
        position += length
    return None

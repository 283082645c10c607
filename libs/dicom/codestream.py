"""The dimensions that a compressed frame names itself: JPEG, JPEG-LS (ISO 10918-1, 14495-1) and JPEG 2000 (15444-1)."""

import struct
from typing import Final

from libs.dicom.identifiers import JPEG_BASELINE, JPEG_EXTENDED, JPEG_LOSSLESS, JPEG_LOSSLESS_FIRST_ORDER

_SOI: Final = b"\xff\xd8"
_J2K: Final = b"\xff\x4f\xff\x51"
_JP2: Final = b"\x00\x00\x00\x0cjP  "
_FRAME_HEADERS: Final = frozenset({*range(0xC0, 0xD0), 0xF7}) - {0xC4, 0xC8, 0xCC}
_WITHOUT_LENGTH: Final = frozenset({0x01, *range(0xD0, 0xD9)})
_MOST_MARKERS: Final = 1000
_START_OF_SCAN: Final = 0xDA
_LOSSLESS: Final = 0xC3
_LOSSY: Final = {0xC0: JPEG_BASELINE, 0xC1: JPEG_EXTENDED}


def dimensions(frame: bytes) -> tuple[int, int, int] | None:
    """Rows, columns and components of a code stream; none where it is not one of these kinds or is broken."""
    try:
        if frame.startswith(_SOI):
            return _jpeg(frame)
        if frame.startswith(_J2K):
            return _jpeg2000(frame, 0)
        if frame.startswith(_JP2):
            start = frame.find(_J2K, 0, 65536)
            return _jpeg2000(frame, start) if start > 0 else None
    except struct.error:
        return None
    return None


def _jpeg(frame: bytes) -> tuple[int, int, int] | None:
    position = 2
    for _ in range(_MOST_MARKERS):
        lead, marker = struct.unpack_from(">BB", frame, position)
        if lead != 0xFF:
            return None
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker in _WITHOUT_LENGTH:
            position += 2
        elif marker in _FRAME_HEADERS:
            _, rows, columns, components = struct.unpack_from(">BHHB", frame, position + 4)
            return rows, columns, components
        else:
            (length,) = struct.unpack_from(">H", frame, position + 2)
            position += 2 + length
    return None


def _jpeg2000(frame: bytes, start: int) -> tuple[int, int, int]:
    _, _, right, bottom, left, top = struct.unpack_from(">HHIIII", frame, start + 4)
    (components,) = struct.unpack_from(">H", frame, start + 40)
    return bottom - top, right - left, components


def jpeg_syntax(frame: bytes) -> str | None:
    """The transfer syntax of a JPEG code stream, by its process (PS3.5 section 8.2.1).

    Returns:
        none where it is no JPEG, or of a process that DICOM has no transfer syntax for.
    """
    position, process = 2, -1
    if not frame.startswith(_SOI):
        return None
    try:
        for _ in range(_MOST_MARKERS):
            lead, marker = struct.unpack_from(">BB", frame, position)
            if lead != 0xFF:
                return None
            if marker == 0xFF:
                position += 1
                continue
            if marker == _START_OF_SCAN:
                if process == _LOSSLESS:
                    return JPEG_LOSSLESS_FIRST_ORDER if _selection(frame, position) == 1 else JPEG_LOSSLESS
                return _LOSSY.get(process)
            if marker in _FRAME_HEADERS:
                process = marker
            if marker in _WITHOUT_LENGTH:
                position += 2
            else:
                position += 2 + int(struct.unpack_from(">H", frame, position + 2)[0])
    except struct.error:
        return None
    return None


def _selection(frame: bytes, position: int) -> int:
    """The predictor of a lossless scan: what follows the components in its header (ISO 10918-1 section B.2.3)."""
    (components,) = struct.unpack_from(">B", frame, position + 4)
    return int(struct.unpack_from(">B", frame, position + 5 + 2 * components)[0])

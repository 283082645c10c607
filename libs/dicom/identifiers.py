"""Unique identifiers, and what follows from the ones that name transfer syntaxes and SOP classes."""

import re
from dataclasses import dataclass
from typing import Final

from libs.dicom.errors import InvalidUid

# Leading zeros in a component are against the standard and common in the field; they do no harm.
_UID: Final = re.compile(r"[0-9]+(?:\.[0-9]+)*", re.ASCII)
_LONGEST: Final = 64


def is_uid(text: object) -> bool:
    """Whether the text is a unique identifier: digits and single dots, at most 64 characters (PS3.5 section 9.1)."""
    return isinstance(text, str) and len(text) <= _LONGEST and _UID.fullmatch(text) is not None


def require_uid(text: object, what: str = "unique identifier") -> str:
    """The text, if it is a unique identifier.

    Arguments:
        text: the candidate.
        what: the attribute's name for the message.

    Raises:
        InvalidUid: it is anything else; the text itself is not repeated in the message.
    """
    if isinstance(text, str) and is_uid(text):
        return text
    raise InvalidUid(f"The {what} is not valid: only digits and dots, 64 characters at most, are allowed.")


IMPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
ENCAPSULATED_UNCOMPRESSED: Final = "1.2.840.10008.1.2.1.98"
DEFLATED_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1.99"
EXPLICIT_VR_BIG_ENDIAN: Final = "1.2.840.10008.1.2.2"
JPEG_BASELINE: Final = "1.2.840.10008.1.2.4.50"
JPEG_EXTENDED: Final = "1.2.840.10008.1.2.4.51"
JPEG_LOSSLESS: Final = "1.2.840.10008.1.2.4.57"
JPEG_LOSSLESS_FIRST_ORDER: Final = "1.2.840.10008.1.2.4.70"
JPEG_LS_LOSSLESS: Final = "1.2.840.10008.1.2.4.80"
JPEG_LS_NEAR_LOSSLESS: Final = "1.2.840.10008.1.2.4.81"
JPEG_2000_LOSSLESS: Final = "1.2.840.10008.1.2.4.90"
JPEG_2000: Final = "1.2.840.10008.1.2.4.91"
JPEG_2000_PART_2_LOSSLESS: Final = "1.2.840.10008.1.2.4.92"
JPEG_2000_PART_2: Final = "1.2.840.10008.1.2.4.93"
HTJ2K_LOSSLESS: Final = "1.2.840.10008.1.2.4.201"
HTJ2K_LOSSLESS_RPCL: Final = "1.2.840.10008.1.2.4.202"
HTJ2K: Final = "1.2.840.10008.1.2.4.203"
RLE_LOSSLESS: Final = "1.2.840.10008.1.2.5"
DEFLATED: Final = frozenset({DEFLATED_LITTLE_ENDIAN, "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})
"""The transfer syntaxes whose data set is deflated as a whole: the plain one, and two of JPIP."""


@dataclass(frozen=True)
class TransferSyntax:
    """What is known of a transfer syntax (PS3.5 annex A, PS3.6 annex A).

    Attributes:
        uid: its identifier.
        name: its name for people.
        media_type: of a frame sent by WADO-RS (PS3.18 table 8.7.3-2, -5); video types are those of a whole stream.
        encapsulated: whether Pixel Data is kept in fragments.
        lossy: whether it may have lost information.
        decodable: whether ``libs.dicom.frames`` can decode it.
        video: whether one stream holds all frames.
    """

    uid: str
    name: str
    media_type: str = "application/octet-stream"
    encapsulated: bool = True
    lossy: bool = False
    decodable: bool = True
    video: bool = False


def _video(uid: str, name: str, media_type: str) -> TransferSyntax:
    return TransferSyntax(uid, name, media_type, lossy=True, decodable=False, video=True)


_SYNTAXES: Final = (
    TransferSyntax(IMPLICIT_VR_LITTLE_ENDIAN, "Implicit VR Little Endian", encapsulated=False),
    TransferSyntax(EXPLICIT_VR_LITTLE_ENDIAN, "Explicit VR Little Endian", encapsulated=False),
    TransferSyntax(ENCAPSULATED_UNCOMPRESSED, "Encapsulated Uncompressed Explicit VR Little Endian"),
    TransferSyntax(DEFLATED_LITTLE_ENDIAN, "Deflated Explicit VR Little Endian", encapsulated=False),
    TransferSyntax(EXPLICIT_VR_BIG_ENDIAN, "Explicit VR Big Endian", encapsulated=False),
    TransferSyntax(JPEG_BASELINE, "JPEG Baseline (8 bit)", "image/jpeg", lossy=True),
    TransferSyntax(JPEG_EXTENDED, "JPEG Extended (12 bit)", "image/jpeg", lossy=True),
    TransferSyntax(JPEG_LOSSLESS, "JPEG Lossless", "image/jpeg"),
    TransferSyntax(JPEG_LOSSLESS_FIRST_ORDER, "JPEG Lossless, First-Order Prediction", "image/jpeg"),
    TransferSyntax(JPEG_LS_LOSSLESS, "JPEG-LS Lossless", "image/jls"),
    TransferSyntax(JPEG_LS_NEAR_LOSSLESS, "JPEG-LS Near-Lossless", "image/jls", lossy=True),
    TransferSyntax(JPEG_2000_LOSSLESS, "JPEG 2000 Lossless", "image/jp2"),
    TransferSyntax(JPEG_2000, "JPEG 2000", "image/jp2", lossy=True),
    TransferSyntax(JPEG_2000_PART_2_LOSSLESS, "JPEG 2000 Part 2 Lossless", "image/jpx", decodable=False),
    TransferSyntax(JPEG_2000_PART_2, "JPEG 2000 Part 2", "image/jpx", lossy=True, decodable=False),
    TransferSyntax(HTJ2K_LOSSLESS, "High-Throughput JPEG 2000 Lossless", "image/jphc"),
    TransferSyntax(HTJ2K_LOSSLESS_RPCL, "High-Throughput JPEG 2000 Lossless, RPCL", "image/jphc"),
    TransferSyntax(HTJ2K, "High-Throughput JPEG 2000", "image/jphc", lossy=True),
    TransferSyntax(RLE_LOSSLESS, "RLE Lossless", "image/dicom-rle"),
    _video("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level", "video/mpeg"),
    _video("1.2.840.10008.1.2.4.101", "MPEG2 Main Profile / High Level", "video/mpeg"),
    _video("1.2.840.10008.1.2.4.102", "MPEG-4 AVC/H.264 High Profile / Level 4.1", "video/mp4"),
    _video("1.2.840.10008.1.2.4.103", "MPEG-4 AVC/H.264 BD-compatible High Profile / Level 4.1", "video/mp4"),
    _video("1.2.840.10008.1.2.4.104", "MPEG-4 AVC/H.264 High Profile / Level 4.2 for 2D video", "video/mp4"),
    _video("1.2.840.10008.1.2.4.105", "MPEG-4 AVC/H.264 High Profile / Level 4.2 for 3D video", "video/mp4"),
    _video("1.2.840.10008.1.2.4.106", "MPEG-4 AVC/H.264 Stereo High Profile / Level 4.2", "video/mp4"),
    _video("1.2.840.10008.1.2.4.107", "HEVC/H.265 Main Profile / Level 5.1", "video/mp4"),
    _video("1.2.840.10008.1.2.4.108", "HEVC/H.265 Main 10 Profile / Level 5.1", "video/mp4"),
)
TRANSFER_SYNTAXES: Final = {syntax.uid: syntax for syntax in _SYNTAXES}
"""The transfer syntaxes that are known, by identifier."""


def transfer_syntax(uid: str) -> TransferSyntax:
    """What is known of a transfer syntax; an unknown one counts as encapsulated and not decodable."""
    return TRANSFER_SYNTAXES.get(uid) or TransferSyntax(uid, "Unknown transfer syntax", decodable=False)


_IMAGELESS_PREFIXES: Final = (
    "1.2.840.10008.5.1.4.1.1.88.",  # structured reports
    "1.2.840.10008.5.1.4.1.1.11.",  # presentation states
    "1.2.840.10008.5.1.4.1.1.104.",  # encapsulated documents
    "1.2.840.10008.5.1.4.1.1.9.",  # waveforms
)


def may_have_frames(sop_class_uid: str) -> bool:
    """Whether instances of the SOP class can hold frames; true for classes that are not known (PS3.4 annex B.5)."""
    return not sop_class_uid.startswith(_IMAGELESS_PREFIXES)

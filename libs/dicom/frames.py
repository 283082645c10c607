"""Frames: where they are, and from stored bytes to pixels."""

import warnings
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.pixels.decoders.base import Decoder, get_decoder
from pydicom.uid import UID

from libs.dicom.codestream import dimensions
from libs.dicom.errors import InvalidFrame
from libs.dicom.identifiers import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    JPEG_EXTENDED,
    RLE_LOSSLESS,
    transfer_syntax,
)
from libs.dicom.pixels import FrameTable, integer_of, text_of
from libs.dicom.walk import DicomJson

MOST_PIXELS: Final = 256 * 1024 * 1024
"""Rows times columns of a frame that is decoded."""
LARGEST_DECODED: Final = 1024 * 1024 * 1024
"""Bytes of a frame after decoding."""
_ITEM_HEADERS: Final = 16
"""Bytes of the empty offset table and the item header that ``_encapsulated`` puts before a frame."""
_COLOUR: Final = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420"})
_GREY: Final = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
_KEYWORDS: Final = {"7FE00008": "FloatPixelData", "7FE00009": "DoubleFloatPixelData", "7FE00010": "PixelData"}


def frame_count(table: FrameTable | None) -> int:
    """The number of frames that the table lists."""
    if table is None:
        return 0
    return table.get("count", 0) if table["kind"] == "native" else len(table.get("fragments", []))


def frame_ranges(table: FrameTable, number: int) -> list[tuple[int, int]]:
    """The byte ranges (offset, length) of a frame, to be fetched and joined in order.

    Arguments:
        table: of the instance.
        number: of the frame, from 1.

    Raises:
        InvalidFrame: there is no such frame.
    """
    if not 1 <= number <= frame_count(table):
        raise InvalidFrame("There is no frame of this number.")
    if table["kind"] == "encapsulated":
        return [(offset, length) for offset, length in table["fragments"][number - 1]]
    offset, length = table["offset"], table["length"]
    if bits := table.get("bits"):
        first, last = (number - 1) * bits // 8, (number * bits - 1) // 8
        return [(offset + first, last - first + 1)]
    return [(offset + (number - 1) * length, length)]


def frame_bytes(table: FrameTable, number: int, joined: bytes) -> bytes:
    """The frame out of the joined bytes of its ranges; shifts the bits where frames do not begin on a byte.

    Arguments:
        table: of the instance.
        number: of the frame, from 1.
        joined: what ``frame_ranges`` names, joined.

    Raises:
        InvalidFrame: the bytes are not those of the ranges.
    """
    if len(joined) != sum(length for _, length in frame_ranges(table, number)):
        raise InvalidFrame("These are not the bytes of the frame.")
    bits = table.get("bits")
    if not bits:
        return joined
    shift = (number - 1) * bits % 8
    # The first pixel is the lowest bit (PS3.5 section 8.1.1).
    whole = (int.from_bytes(joined, "little") >> shift) & ((1 << bits) - 1)
    return whole.to_bytes((bits + 7) // 8, "little")


@dataclass(frozen=True)
class PixelAttributes:
    """The Image Pixel attributes that decoding needs (PS3.3 section C.7.6.3), checked and bounded.

    Attributes:
        keyword: ``PixelData``, ``FloatPixelData`` or ``DoubleFloatPixelData``.
        vr: its value representation, which matters for eight bits in big endian.
    """

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric_interpretation: str
    planar_configuration: int
    number_of_frames: int
    keyword: str = "PixelData"
    vr: str = "OW"

    @classmethod
    def of(cls, dicom: DicomJson) -> "PixelAttributes":
        """The attributes out of DICOM JSON.

        Raises:
            InvalidFrame: they are absent, out of bounds, or do not fit each other.
        """
        tag = next((tag for tag in _KEYWORDS if tag in dicom), "7FE00010")
        allocated = {"7FE00008": 32, "7FE00009": 64}.get(tag) or integer_of(dicom, "00280100", 0)
        attributes = cls(
            rows=integer_of(dicom, "00280010", 0),
            columns=integer_of(dicom, "00280011", 0),
            samples_per_pixel=integer_of(dicom, "00280002", 1),
            bits_allocated=allocated,
            bits_stored=integer_of(dicom, "00280101", allocated),
            pixel_representation=integer_of(dicom, "00280103", 0),
            photometric_interpretation=text_of(dicom, "00280004").upper(),
            planar_configuration=integer_of(dicom, "00280006", 0),
            number_of_frames=integer_of(dicom, "00280008", 1),
            keyword=_KEYWORDS[tag],
            vr=str(dicom.get(tag, {}).get("vr", "OW")),
        )
        attributes.check()
        return attributes

    def check(self) -> None:
        """Raises InvalidFrame when the attributes are out of bounds or do not fit each other."""
        if not (0 < self.rows <= 2**31 and 0 < self.columns <= 2**31):
            raise InvalidFrame("Rows or Columns is missing or not valid.")
        if self.rows * self.columns > MOST_PIXELS:
            raise InvalidFrame(f"The frame has more than {MOST_PIXELS} pixels.")
        colour, grey = self.photometric_interpretation in _COLOUR, self.photometric_interpretation in _GREY
        if not (colour or grey):
            raise InvalidFrame("Photometric Interpretation is missing or can't be shown.")
        if self.samples_per_pixel != (3 if colour else 1):
            raise InvalidFrame("Samples per Pixel does not fit Photometric Interpretation.")
        if self.bits_allocated not in {1, 8, 16, 32, 64} or not 0 < self.bits_stored <= self.bits_allocated:
            raise InvalidFrame("Bits Allocated or Bits Stored is not valid.")
        if self.pixel_representation not in {0, 1} or self.planar_configuration not in {0, 1}:
            raise InvalidFrame("Pixel Representation or Planar Configuration is not valid.")
        if self.rows * self.columns * self.samples_per_pixel * max(self.bits_allocated // 8, 1) > LARGEST_DECODED:
            raise InvalidFrame(f"The frame has more than {LARGEST_DECODED} bytes when decoded.")


@dataclass(frozen=True)
class DecodedFrame:
    """Pixels and what has to be said of them.

    Attributes:
        pixels: rows x columns, or rows x columns x 3.
        photometric_interpretation: what the values mean, which may differ from what was stored.
        bits_stored: bits of a value that are used.
    """

    pixels: npt.NDArray[Any]
    photometric_interpretation: str
    bits_stored: int


def decode_frame(frame: bytes, attributes: PixelAttributes, syntax: str) -> npt.NDArray[Any]:
    """The pixels of one frame.

    Arguments:
        frame: its bytes as stored, fragments joined.
        attributes: of the instance.
        syntax: transfer syntax UID that the frame is stored in.

    Returns:
        rows x columns, or rows x columns x 3 of red, green, blue; stored values, of the smallest integer type that
        Bits Allocated needs; palette indices stay indices.

    Raises:
        InvalidFrame: the syntax can't be decoded, or the bytes are not a frame of it.
    """
    return decode(frame, attributes, syntax, rgb=True).pixels


def decode(frame: bytes, attributes: PixelAttributes, syntax: str, *, rgb: bool) -> DecodedFrame:
    """As ``decode_frame``, telling what came out; with ``rgb`` false, YBR values are left as they are stored."""
    known = transfer_syntax(syntax)
    if not known.decodable:
        raise InvalidFrame("Frames of this transfer syntax can't be decoded.")
    options: dict[str, Any] = {
        "rows": attributes.rows,
        "columns": attributes.columns,
        "samples_per_pixel": attributes.samples_per_pixel,
        "bits_allocated": attributes.bits_allocated,
        "bits_stored": attributes.bits_stored,
        "pixel_representation": attributes.pixel_representation,
        "photometric_interpretation": attributes.photometric_interpretation,
        "planar_configuration": attributes.planar_configuration,
        "number_of_frames": 1,
        "pixel_keyword": attributes.keyword,
        "pixel_vr": attributes.vr if attributes.vr in {"OB", "OW"} else "OW",
    }
    if known.encapsulated:
        _check_codestream(frame, attributes, syntax)
        frame = _encapsulated(frame)
    else:
        syntax = syntax if syntax == EXPLICIT_VR_BIG_ENDIAN else EXPLICIT_VR_LITTLE_ENDIAN
        frame = frame + b"\0" if len(frame) % 2 else frame
    pixels, meta = _decoded(frame, syntax, raw=not rgb, options=options)
    return DecodedFrame(
        np.ascontiguousarray(pixels, pixels.dtype.newbyteorder("=")),
        str(meta.get("photometric_interpretation", attributes.photometric_interpretation)),
        int(meta.get("bits_stored", attributes.bits_stored)),
    )


def _decoded(
    frame: bytes, syntax: str, *, raw: bool, options: dict[str, Any]
) -> tuple[npt.NDArray[Any], dict[str, Any]]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _decoder(syntax).as_array(frame, index=0, raw=raw, **options)
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except BaseException as error:  # codecs raise whatever they like; those in Rust even what is no Exception
        if syntax == JPEG_EXTENDED:
            pixels = _lenient_jpeg(frame[_ITEM_HEADERS:], options)
            if pixels is not None:
                return pixels, {}
        raise InvalidFrame("The frame can't be decoded.") from error


def _lenient_jpeg(frame: bytes, options: dict[str, Any]) -> npt.NDArray[Any] | None:
    """Grey frames of 12 bits with a scan header that only one of the codecs lives with."""
    from imagecodecs import jpeg8_decode

    try:
        pixels: npt.NDArray[Any] = jpeg8_decode(frame)
    except Exception:
        return None
    return pixels if pixels.shape == (options["rows"], options["columns"]) else None


def _check_codestream(frame: bytes, attributes: PixelAttributes, syntax: str) -> None:
    """A codec allocates what the code stream names, so its size is compared first."""
    if syntax == RLE_LOSSLESS or transfer_syntax(syntax).media_type == "application/octet-stream":
        return
    found = dimensions(frame)
    if found is None:
        raise InvalidFrame("The frame does not begin as its transfer syntax asks.")
    if found != (attributes.rows, attributes.columns, attributes.samples_per_pixel):
        raise InvalidFrame("The compressed frame has other dimensions than the instance.")


def _encapsulated(frame: bytes) -> bytes:
    """One frame as the value of Pixel Data, with an empty offset table (PS3.5 section A.4)."""
    padded = frame + b"\0" if len(frame) % 2 else frame
    return b"".join(
        (
            b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0",
            len(padded).to_bytes(4, "little"),
            padded,
            b"\xfe\xff\xdd\xe0\x00\x00\x00\x00",
        )
    )


@lru_cache(maxsize=64)
def _decoder(syntax: str) -> Decoder:
    return get_decoder(UID(syntax))

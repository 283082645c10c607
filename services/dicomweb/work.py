"""What the worker processes do."""

from collections.abc import Mapping

import orjson

from libs.dicom.frames import PixelAttributes, decode_frame
from libs.dicom.part10 import inflate
from libs.dicom.rendering import render
from libs.dicom.transcoding import to_explicit_little_endian


def transcode_instance(part10: bytes) -> bytes:
    """The instance as Explicit VR Little Endian. Raises DicomError."""
    return to_explicit_little_endian(part10)


def decode_frames(frames: list[bytes], dicom: bytes, syntax: str) -> list[bytes]:
    """Frames as little-endian pixels, colour by pixel as RGB (PS3.18 table 8.7.3-4). Raises DicomError.

    Arguments:
        frames: the stored bytes of each.
        dicom: the instance's DICOM JSON.
        syntax: the transfer syntax in which they are stored.
    """
    attributes = PixelAttributes.of(orjson.loads(dicom))
    pixels = (decode_frame(frame, attributes, syntax) for frame in frames)
    return [p.astype(p.dtype.newbyteorder("<"), copy=False).tobytes() for p in pixels]


def inflated_ranges(part10: bytes, ranges: list[tuple[int, int]]) -> list[bytes]:
    """Byte ranges (offset, length) of a deflated instance as it is when inflated. Raises DicomError."""
    whole = inflate(part10)
    return [whole[offset : offset + length] for offset, length in ranges]


def render_frame(
    frame: bytes,
    dicom: bytes,
    syntax: str,
    *,
    viewport: tuple[int, int] | None,
    window: tuple[float, float] | None,
    quality: int,
    bulk: Mapping[str, bytes],
) -> bytes:
    """One frame as JPEG. Raises DicomError.

    Arguments:
        frame: its stored bytes.
        dicom: the instance's DICOM JSON.
        syntax: the transfer syntax in which it is stored.
        viewport: width and height in pixels that it must fit in.
        window: centre and width.
        quality: 1 to 100.
        bulk: palettes and lookup tables by their path.
    """
    return render(frame, orjson.loads(dicom), syntax, viewport=viewport, window=window, quality=quality, bulk=bulk)

"""Rendering: from a stored frame to a JPEG for people (PS3.18 section 8.7.4, PS3.4 section N.2)."""

from base64 import b64decode
from collections.abc import Iterator, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import simplejpeg

from libs.dicom.errors import InvalidFrame
from libs.dicom.frames import PixelAttributes, decode
from libs.dicom.greyscale import Window, windowed
from libs.dicom.identifiers import EXPLICIT_VR_BIG_ENDIAN
from libs.dicom.palette import coloured
from libs.dicom.walk import DicomJson, swapped

Pixels = npt.NDArray[Any]

LARGEST_SIDE: Final = 65500
"""Rows or columns of a JPEG."""
_PALETTE: Final = ("00281201", "00281202", "00281203", "00281221", "00281222", "00281223")


def bulk_for_rendering(dicom: DicomJson) -> list[str]:
    """Paths of ``Header.bulk`` (palettes) whose bytes ``render`` wants in its argument ``bulk``; mostly none."""
    return [tag for tag in _PALETTE if "BulkDataURI" in dicom.get(tag, {})]


def render(
    frame: bytes,
    dicom: DicomJson,
    syntax: str,
    *,
    viewport: tuple[int, int] | None = None,
    window: tuple[float, float] | None = None,
    quality: int = 90,
    bulk: Mapping[str, bytes] | None = None,
    number: int = 1,
) -> bytes:
    """One frame as JPEG. Runs for a while and holds the frame in memory: to be called in a process of its own.

    Arguments:
        frame: its bytes as stored, fragments joined.
        dicom: the instance's DICOM JSON.
        syntax: transfer syntax UID that the frame is stored in.
        viewport: width and height in pixels to fit into, the ratio of the sides kept; nothing is made larger.
        window: centre and width in the values after the modality transformation; else those of the data set, and where
            it has none the darkest and lightest half percent of the pixels are cut off.
        quality: of the JPEG, 1 to 100.
        bulk: the bytes of ``bulk_for_rendering``, as they lie in the file.
        number: of the frame, from 1, for attributes that differ from frame to frame.

    Raises:
        InvalidFrame: the frame can't be decoded or shown, or an argument is out of bounds.
    """
    if not 1 <= quality <= 100:
        raise InvalidFrame("The quality is not between 1 and 100.")
    if viewport is not None and (min(viewport) < 1 or max(viewport) > LARGEST_SIDE):
        raise InvalidFrame("The viewport is not valid.")
    if window is not None and not (np.isfinite(window).all() and window[1] >= 0):
        raise InvalidFrame("The window is not valid.")
    attributes = PixelAttributes.of(dicom)
    decoded = decode(frame, attributes, syntax, rgb=True)
    pixels = decoded.pixels
    if attributes.photometric_interpretation == "PALETTE COLOR":
        pixels = coloured(pixels, dicom, _palette(dicom, bulk or {}, syntax))
    elif pixels.ndim == 2:
        pixels = windowed(
            shrunk(pixels, viewport),
            list(functional_groups(dicom, number)),
            attributes,
            None if window is None else Window(*window),
        )
    elif pixels.dtype != np.uint8:
        pixels = (pixels >> max(decoded.bits_stored - 8, 0)).astype(np.uint8)
    return _jpeg(shrunk(pixels, viewport), quality)


def functional_groups(dicom: DicomJson, number: int) -> Iterator[DicomJson]:
    """Where to look for what may differ from frame to frame, the nearest first (PS3.3 section C.7.6.16).

    These are the frame's own functional groups, the shared ones, and the data set itself.
    """
    frames = dicom.get("52009230", {}).get("Value") or []
    for group in (*frames[number - 1 : number], *(dicom.get("52009229", {}).get("Value") or [])[:1]):
        for element in group.values():
            if element.get("vr") == "SQ":
                yield from (element.get("Value") or [])[:1]
    yield dicom


def shrunk(pixels: Pixels, viewport: tuple[int, int] | None) -> Pixels:
    """The picture made to fit, each new pixel the mean of those it covers; as it is where it fits already.

    Arguments:
        pixels: rows x columns, or rows x columns x 3.
        viewport: width and height.
    """
    if viewport is None:
        return pixels
    rows, columns = pixels.shape[:2]
    scale = min(viewport[0] / columns, viewport[1] / rows)
    if scale >= 1:
        return pixels
    height, width = max(1, round(rows * scale)), max(1, round(columns * scale))
    return _means(_means(pixels, height, 0), width, 1)


def _means(pixels: Pixels, count: int, axis: int) -> Pixels:
    size = pixels.shape[axis]
    if count >= size:
        return pixels
    edges = np.arange(count) * size // count
    sums = np.add.reduceat(pixels, edges, axis=axis, dtype=np.float32)
    widths = np.diff(np.append(edges, size)).astype(np.float32)
    sums /= widths.reshape([-1 if i == axis else 1 for i in range(pixels.ndim)])
    if pixels.dtype.kind == "f":
        return sums
    result: Pixels = np.rint(sums).astype(pixels.dtype)
    return result


def _palette(dicom: DicomJson, bulk: Mapping[str, bytes], syntax: str) -> dict[str, bytes]:
    """The bytes of the palettes in little endian, from wherever they are."""
    found: dict[str, bytes] = {}
    for tag in _PALETTE:
        element = dicom.get(tag, {})
        if "InlineBinary" in element:
            found[tag] = b64decode(element["InlineBinary"])
        elif tag in bulk:
            found[tag] = swapped(bulk[tag], 2) if syntax == EXPLICIT_VR_BIG_ENDIAN else bulk[tag]
        elif "BulkDataURI" in element:
            raise InvalidFrame("A palette of the instance was not given.")
    return found


def _jpeg(pixels: Pixels, quality: int) -> bytes:
    if max(pixels.shape[:2]) > LARGEST_SIDE:
        raise InvalidFrame("The frame is too large for a JPEG; ask for a smaller viewport.")
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    colours = "GRAY" if pixels.shape[2] == 1 else "RGB"
    encoded: bytes = simplejpeg.encode_jpeg(
        np.ascontiguousarray(pixels),
        quality=quality,
        colorspace=colours,
        colorsubsampling="Gray" if colours == "GRAY" else "444",
    )
    return encoded

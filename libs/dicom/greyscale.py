"""Grey pixels: modality transformation, window, presentation (PS3.3 sections C.11.1 and C.11.2, PS3.4 N.2.1)."""

import math
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from libs.dicom.errors import InvalidFrame
from libs.dicom.frames import PixelAttributes
from libs.dicom.walk import DicomJson

Pixels = npt.NDArray[Any]

_CUT: Final = 0.5
"""Percent of the pixels cut off at each end where nothing says what to show."""
_SAMPLE: Final = 1_000_000


@dataclass(frozen=True)
class Window:
    """Centre and width, in values after the modality transformation; how they are meant (PS3.3 C.11.2.1.2, .3)."""

    center: float
    width: float
    function: str = "LINEAR"


def windowed(
    pixels: Pixels, groups: Sequence[DicomJson], attributes: PixelAttributes, window: Window | None
) -> npt.NDArray[np.uint8]:
    """Grey values to show, 0 black.

    Arguments:
        pixels: stored values, rows x columns.
        groups: where attributes are looked for, the nearest first.
        attributes: of the instance.
        window: what the caller wants; else that of the data set.

    Raises:
        InvalidFrame: a lookup table is broken.
    """
    padding = _padding(pixels, groups, attributes)
    values = _modality(pixels, groups)
    lut = None if window is not None else _voi_lut(groups)
    if lut is not None:
        shown = _looked_up(values, *lut)
        # Entries use the bits that the descriptor says.
        grey = shown.astype(np.float32) * (255 / max((1 << lut[2]) - 1, 1))
    else:
        grey = _apply(values, window or _window(groups) or _plausible(values, padding))
    np.clip(grey, 0, 255, out=grey)
    if attributes.photometric_interpretation == "MONOCHROME1":
        grey = 255 - grey
    result: npt.NDArray[np.uint8] = np.rint(grey).astype(np.uint8)
    if padding is not None:
        result[padding] = 0
    return result


def _modality(pixels: Pixels, groups: Sequence[DicomJson]) -> npt.NDArray[np.float32]:
    sequence = _first(groups, "00283000")
    if isinstance(sequence, dict):
        return _looked_up(pixels, *_lut(sequence)).astype(np.float32)
    slope, intercept = _number(groups, "00281053", 1.0), _number(groups, "00281052", 0.0)
    return pixels.astype(np.float32) * np.float32(slope or 1.0) + np.float32(intercept)


def _apply(values: npt.NDArray[np.float32], window: Window) -> npt.NDArray[np.float32]:
    """The VOI functions, from 0 to 255."""
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        exponent = np.clip(-4 * (values - center) / max(width, 1e-6), -60, 60)
        return np.asarray(255 / (1 + np.exp(exponent)), np.float32)
    if window.function == "LINEAR_EXACT":
        return np.asarray(((values - center) / max(width, 1e-6) + 0.5) * 255, np.float32)
    if width <= 1:  # a step (PS3.3 section C.11.2.1.2.1)
        return np.where(values > center - 0.5, np.float32(255), np.float32(0))
    return np.asarray(((values - (center - 0.5)) / (width - 1) + 0.5) * 255, np.float32)


def _window(groups: Sequence[DicomJson]) -> Window | None:
    center, width = _first(groups, "00281050"), _first(groups, "00281051")
    if not (isinstance(center, int | float) and isinstance(width, int | float)):
        return None
    function = _first(groups, "00281056")
    # No width is not a window; some writers mean "none" by it.
    return (
        Window(float(center), float(width), function if isinstance(function, str) else "LINEAR") if width > 0 else None
    )


def _plausible(values: npt.NDArray[np.float32], padding: npt.NDArray[np.bool_] | None) -> Window:
    seen = values if padding is None else values[~padding]
    seen = seen.ravel()[:: max(1, seen.size // _SAMPLE)]
    seen = seen[np.isfinite(seen)]
    if seen.size == 0:
        return Window(0.5, 1, "LINEAR_EXACT")
    low, high = (float(edge) for edge in np.percentile(seen, (_CUT, 100 - _CUT)))
    if low == high:
        low, high = float(seen.min()), float(seen.max())
    return Window((low + high) / 2, max(high - low, 1e-6), "LINEAR_EXACT")


def _padding(pixels: Pixels, groups: Sequence[DicomJson], attributes: PixelAttributes) -> npt.NDArray[np.bool_] | None:
    """Where there is no picture, which is left out of the choice of a window (PS3.3 section C.7.5.1.1.2)."""
    value, limit = _first(groups, "00280120"), _first(groups, "00280121")
    if not isinstance(value, int) or attributes.keyword != "PixelData":
        return None
    low, high = sorted((value, limit)) if isinstance(limit, int) else (value, value)
    found = (pixels >= low) & (pixels <= high)
    return found if found.any() and not found.all() else None


def _voi_lut(groups: Sequence[DicomJson]) -> tuple[npt.NDArray[np.uint16], int, int] | None:
    if _window(groups) is not None:
        return None
    sequence = _first(groups, "00283010")
    return _lut(sequence) if isinstance(sequence, dict) else None


def _lut(item: DicomJson) -> tuple[npt.NDArray[np.uint16], int, int]:
    """Entries, first value mapped, bits of an entry (PS3.3 section C.11.1.1.1)."""
    descriptor = item.get("00283002", {}).get("Value") or []
    data = item.get("00283006", {})
    if len(descriptor) != 3 or not all(isinstance(value, int) for value in descriptor):
        raise InvalidFrame("A lookup table has no valid descriptor.")
    count, first, bits = descriptor
    count = count % 65536 or 65536
    if "InlineBinary" in data:
        raw = b64decode(data["InlineBinary"])
        entries = np.frombuffer(raw[: len(raw) // 2 * 2], "<u2")
    else:
        entries = np.asarray([v for v in data.get("Value") or [] if isinstance(v, int)], np.int64).astype(np.uint16)
    if entries.size < count or not 8 <= bits <= 16:
        raise InvalidFrame("A lookup table is shorter than its descriptor says, or is not at hand.")
    return entries[:count], first, bits


def _looked_up(values: Pixels, entries: npt.NDArray[np.uint16], first: int, _bits: int) -> npt.NDArray[np.uint16]:
    index = np.clip(np.rint(values).astype(np.int64) - first, 0, entries.size - 1)
    return entries[index]


def _first(groups: Sequence[DicomJson], tag: str) -> Any:
    for group in groups:
        values = group.get(tag, {}).get("Value")
        if values:
            return values[0]
    return None


def _number(groups: Sequence[DicomJson], tag: str, default: float) -> float:
    value = _first(groups, tag)
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else default

"""Palette colour: indices to red, green and blue (PS3.3 sections C.7.6.3.1.5, .6 and C.7.9)."""

import struct
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from libs.dicom.errors import InvalidFrame
from libs.dicom.walk import DicomJson

_DESCRIPTORS: Final = ("00281101", "00281102", "00281103")
_TABLES: Final = ("00281201", "00281202", "00281203")
_SEGMENTED: Final = ("00281221", "00281222", "00281223")
_MOST_SEGMENTS: Final = 100_000


def coloured(indices: npt.NDArray[Any], dicom: DicomJson, tables: Mapping[str, bytes]) -> npt.NDArray[np.uint8]:
    """The picture in red, green and blue.

    Arguments:
        indices: stored values, rows x columns.
        dicom: the instance's DICOM JSON, for the descriptors.
        tables: tag → bytes of the lookup tables, plain or segmented.

    Returns:
        rows x columns x 3.

    Raises:
        InvalidFrame: a table is missing or broken.
    """
    channels = []
    for descriptor, plain, segmented in zip(_DESCRIPTORS, _TABLES, _SEGMENTED, strict=True):
        values = dicom.get(descriptor, {}).get("Value") or []
        if len(values) != 3 or not all(isinstance(value, int) for value in values):
            raise InvalidFrame("A palette has no valid descriptor.")
        count, first, bits = values[0] % 65536 or 65536, values[1], values[2]
        if plain in tables:
            table = _plain(tables[plain], count, bits)
        elif segmented in tables:
            table = _expanded(tables[segmented], count, bits)
        else:
            raise InvalidFrame("A palette is missing.")
        channels.append(table[np.clip(indices.astype(np.int64) - first, 0, count - 1)])
    return np.stack(channels, axis=-1)


def _plain(data: bytes, count: int, bits: int) -> npt.NDArray[np.uint8]:
    if bits <= 8 and count <= len(data) < 2 * count:  # entries of one byte, though the element is of words
        return np.frombuffer(data, np.uint8)[:count]
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2")
    if words.size < count:
        raise InvalidFrame("A palette is shorter than its descriptor says.")
    return _eight_bits(words[:count], bits)


def _eight_bits(words: npt.NDArray[np.uint16], bits: int) -> npt.NDArray[np.uint8]:
    return (words >> 8 if bits > 8 else words & 0xFF).astype(np.uint8)


def _expanded(data: bytes, count: int, bits: int) -> npt.NDArray[np.uint8]:
    """A segmented table: runs of values, straight lines, and repetitions of what came before (section C.7.9.2)."""
    wide = bits > 8
    values = [value for (value,) in struct.iter_unpack("<H" if wide else "<B", data[: len(data) // 2 * 2])]
    entries: list[int] = []
    _segments(values, (0, _MOST_SEGMENTS), entries, count, wide=wide, nested=False)
    if len(entries) < count:
        raise InvalidFrame("A segmented palette is shorter than its descriptor says.")
    return _eight_bits(np.asarray(entries[:count], np.uint16), bits)


def _segments(
    values: list[int], span: tuple[int, int], entries: list[int], count: int, *, wide: bool, nested: bool
) -> None:
    """Appends the entries of the segments in ``span`` (position of the first, how many)."""
    position, segments = span
    try:
        for _ in range(segments):
            if len(entries) >= count or position >= len(values):
                return
            kind, length = values[position], values[position + 1]
            position += 2
            if kind == 0:
                entries.extend(values[position : position + length])
                position += length
            elif kind == 1:
                start, end = entries[-1], values[position]
                entries.extend(round(start + (end - start) * step / length) for step in range(1, length + 1))
                position += 1
            elif kind == 2 and not nested:
                # Four bytes say where the repeated segments begin, in bytes.
                parts, width = (2, 16) if wide else (4, 8)
                offset = sum(values[position + i] << (width * i) for i in range(parts))
                start_at = offset // 2 if wide else offset
                _segments(values, (start_at, length), entries, count, wide=wide, nested=True)
                position += parts
            else:
                raise InvalidFrame("A segmented palette has an unknown segment.")
    except (IndexError, ZeroDivisionError) as error:
        raise InvalidFrame("A segmented palette is broken.") from error

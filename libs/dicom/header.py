"""Reading the header of a Part 10 file: identifiers, the JSON model, bulk data and frames as byte ranges."""

from collections.abc import Mapping
from dataclasses import dataclass
from mmap import mmap
from pathlib import Path
from typing import Any, BinaryIO, Literal, NotRequired, TypedDict

DicomJson = dict[str, dict[str, Any]]
"""One data set in the DICOM JSON model (PS3.18 annex F)."""


class FrameTable(TypedDict):
    """Where the frames of an instance are, in bytes from the start of the Part 10 file.

    Native Pixel Data: frame ``n`` (from 1) is ``length`` bytes at ``offset + (n - 1) * length``; where ``bits`` is set
    (one bit a pixel, frames that do not end on a byte), it begins at bit ``(n - 1) * bits`` after ``offset``.
    Encapsulated Pixel Data: ``fragments[n - 1]`` lists ``[offset, length]`` of each fragment of frame ``n``.
    Where ``deflated`` is true, offsets are those in the file as ``libs.dicom.part10.inflate`` returns it.
    """

    kind: Literal["native", "encapsulated"]
    offset: NotRequired[int]
    length: NotRequired[int]
    count: NotRequired[int]
    bits: NotRequired[int]
    fragments: NotRequired[list[list[list[int]]]]
    deflated: NotRequired[bool]


@dataclass(frozen=True)
class Header:
    """What is known of an instance without its bulk data.

    Attributes:
        sop_instance_uid: (0008,0018).
        sop_class_uid: (0008,0016).
        study_uid: (0020,000D).
        series_uid: (0020,000E).
        transfer_syntax: (0002,0010).
        modality: (0008,0060); empty when absent.
        frames: where the frames are; none without Pixel Data.
        dicom: the data set as DICOM JSON, tags ascending; binary values over 256 bytes are
            ``{"vr": ..., "BulkDataURI": PATH}`` with the key of ``bulk``.
        bulk: path (``TAG`` or ``TAG/ITEM/TAG``, items from 1) → ``(offset, length)`` in the file. Of encapsulated Pixel
            Data: all its items, with their headers, without the final delimiter.
        warnings: what is wrong but was lived with, in words, without values.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    transfer_syntax: str
    modality: str
    frames: FrameTable | None
    dicom: DicomJson
    bulk: Mapping[str, tuple[int, int]]
    warnings: list[str]


Source = Path | str | bytes | bytearray | memoryview | mmap | BinaryIO


def read_header(source: Source) -> Header:
    """Reads everything but bulk data from a Part 10 file."""
    raise NotImplementedError

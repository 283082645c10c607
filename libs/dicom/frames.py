"""Frames: where they are, and from stored bytes to pixels."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.dicom.pixels import FrameTable
from libs.dicom.walk import DicomJson


def frame_count(table: FrameTable | None) -> int:
    """The number of frames that the table lists."""
    raise NotImplementedError


def frame_ranges(table: FrameTable, number: int) -> list[tuple[int, int]]:
    """The byte ranges (offset, length) of frame ``number`` (from 1), to be fetched and joined in order.

    Raises:
        InvalidFrame: there is no such frame.
    """
    raise NotImplementedError


def frame_bytes(table: FrameTable, number: int, joined: bytes) -> bytes:
    """The frame out of the joined bytes of its ranges; shifts the bits where frames do not begin on a byte."""
    raise NotImplementedError


@dataclass(frozen=True)
class PixelAttributes:
    """The Image Pixel attributes that decoding needs (PS3.3 section C.7.6.3)."""

    rows: int
    columns: int
    samples_per_pixel: int
    bits_allocated: int
    bits_stored: int
    pixel_representation: int
    photometric_interpretation: str
    planar_configuration: int
    number_of_frames: int

    @classmethod
    def of(cls, dicom_json: DicomJson) -> "PixelAttributes":
        """Raises InvalidFrame when they are absent or out of bounds."""
        raise NotImplementedError


def decode_frame(frame: bytes, attributes: PixelAttributes, transfer_syntax: str) -> npt.NDArray[Any]:
    """Pixels, rows x columns or rows x columns x 3, colour as RGB. Raises InvalidFrame."""
    raise NotImplementedError

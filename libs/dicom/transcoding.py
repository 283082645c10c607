"""Rewriting a Part 10 file in another transfer syntax."""

from pathlib import Path


def to_explicit_little_endian(source: Path | bytes) -> bytes:
    """The Part 10 file as Explicit VR Little Endian, Pixel Data decompressed.

    Raises:
        InvalidFrame: its transfer syntax can't be decoded.
        DicomError: the file is broken.
    """
    raise NotImplementedError

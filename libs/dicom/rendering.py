"""Rendering: from a stored frame to a JPEG for people (PS3.18 section 8.7.4, PS3.4 section N.2)."""

from collections.abc import Mapping

from libs.dicom.walk import DicomJson


def bulk_for_rendering(dicom_json: DicomJson) -> list[str]:
    """Paths of ``Header.bulk`` (palettes, lookup tables) whose bytes ``render`` wants in ``bulk``; mostly none."""
    raise NotImplementedError


def render(
    frame: bytes,
    dicom_json: DicomJson,
    transfer_syntax: str,
    *,
    viewport: tuple[int, int] | None = None,
    window: tuple[float, float] | None = None,
    quality: int = 90,
    bulk: Mapping[str, bytes] | None = None,
) -> bytes:
    """One frame as JPEG. ``viewport`` is (width, height), never upscaled; ``window`` is (center, width)."""
    raise NotImplementedError

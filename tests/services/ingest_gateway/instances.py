"""Small instances made for a test, and the body of a STOW-RS request."""

import hashlib
from collections.abc import Iterable
from io import BytesIO
from typing import Any
from uuid import uuid4

from pydicom import uid as identifiers
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"
BOUNDARY = "the-boundary-of-this-test"
TYPE = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


def new_uid() -> str:
    return f"2.25.{uuid4().int}"


def make_instance(
    *,
    study: str | None = None,
    series: str | None = None,
    uid: str | None = None,
    sop_class: str = CT_IMAGE_STORAGE,
    number: int = 1,
    pixels: int = 512,
    note: str = "",
) -> bytes:
    """A CT image of about ``pixels`` bytes as a Part 10 file."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = identifiers.UID(sop_class)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = identifiers.UID(uid or new_uid())
    image.StudyInstanceUID = study or new_uid()
    image.SeriesInstanceUID = series or new_uid()
    image.Modality = "CT"
    image.PatientName = "Test^Ingest"
    image.PatientID = "INGEST-1"
    image.InstanceNumber = number
    image.ImageComments = note
    image.Rows, image.Columns = max(1, pixels // 512), 256
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    image.PixelData = bytes((number + i) % 256 for i in range(256)) * 2 * image.Rows
    buffer = BytesIO()
    image.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def make_series(count: int, *, pixels: int = 512) -> list[bytes]:
    """A series of CT images."""
    study, series = new_uid(), new_uid()
    return [make_instance(study=study, series=series, number=n, pixels=pixels) for n in range(1, count + 1)]


def multipart(parts: Iterable[bytes], *, part_type: str = "application/dicom") -> bytes:
    """The body of a request with these parts."""
    header = f"Content-Type: {part_type}\r\n" if part_type else ""
    lines = [f"--{BOUNDARY}\r\n{header}\r\n".encode() + part + b"\r\n" for part in parts]
    return b"".join(lines) + f"--{BOUNDARY}--\r\n".encode()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def values(answer: dict[str, Any], sequence: str, tag: str) -> list[Any]:
    """The values of an attribute in each item of a sequence of the answer; ``None`` where it is left out.

    Failures that no instance can be told of have a sequence of their own; they come last.
    """
    items: list[dict[str, Any]] = list(answer.get(sequence, {}).get("Value", []))
    if sequence == FAILED:
        assert all(item.get(UID) for item in items), "each failed item must name its instance"
        items += answer.get(OTHER_FAILURES, {}).get("Value", [])
    return [item.get(tag, {}).get("Value", [None])[0] for item in items]


FAILED, STORED, OTHER_FAILURES = "00081198", "00081199", "0008119A"
UID, FAILURE_REASON, WARNING_REASON, SHA256 = "00081155", "00081197", "00081196", "00091001"

"""Small instances made for a test."""

from pathlib import Path
from uuid import uuid4

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

CT_IMAGE_STORAGE = "1.2.840.10008.5.1.4.1.1.2"


def new_uid() -> str:
    return f"2.25.{uuid4().int}"


def write_instance(
    folder: Path,
    *,
    study: str | None = None,
    series: str | None = None,
    uid: str | None = None,
    sop_class: str = CT_IMAGE_STORAGE,
    number: int = 1,
    side: int = 16,
    note: str = "",
) -> Path:
    """Writes a CT image of ``side`` times ``side`` pixels."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = UID(sop_class)
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = UID(uid or new_uid())
    image.StudyInstanceUID = study or new_uid()
    image.SeriesInstanceUID = series or new_uid()
    image.Modality = "CT"
    image.PatientName = "Test^Edge"
    image.PatientID = "EDGE-1"
    image.InstanceNumber = number
    image.ImageComments = note
    image.Rows = image.Columns = side
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = image.BitsStored = 16
    image.HighBit = 15
    image.PixelRepresentation = 0
    image.PixelData = bytes((number + i) % 256 for i in range(256)) * (side * side * 2 // 256)
    path = folder / f"{image.SOPInstanceUID}.dcm"
    image.save_as(path, enforce_file_format=True)
    return path


def write_series(folder: Path, count: int, *, side: int = 16) -> list[Path]:
    """Writes a series of ``count`` CT images."""
    folder.mkdir(parents=True, exist_ok=True)
    study, series = new_uid(), new_uid()
    return [write_instance(folder, study=study, series=series, number=n, side=side) for n in range(1, count + 1)]

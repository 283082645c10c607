"""Volumes as MR slices: a head from the MNI152 template, and a phantom that bears the head's UIDs."""

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import nibabel.nifti1
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian

from libs.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

_NAMESPACE: Final = uuid.UUID("6f0f5d5e-6a8c-5f0e-9d0d-4a1b5c0f2d11")
_MR_IMAGE_STORAGE: Final = "1.2.840.10008.5.1.4.1.1.4"
_TWELVE_BITS: Final = 16
# Millimetres from the template's origin to its first voxel: left, behind, below (the affine of the NIfTI file).
_ORIGIN_Z: Final = -72.0
_ORIGIN_ROW: Final = -98.0
_ORIGIN_COLUMN: Final = -98.0

Voxels = NDArray[np.uint16]
"""Slices, rows, columns: slices from the feet up, rows from the front back, columns from the right to the left."""


def demo_uid(name: str) -> str:
    """A UID that is the same in every run (PS3.5 section B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, name).int}"


HEAD_STUDY: Final = demo_uid("head")
"""The study of the head, and, in the other tenant, of the phantom."""


def read_head(template: Path) -> Voxels:
    """The template as 189 axial slices of 233 rows and 197 columns, 1 mm apart, 12 bits.

    Arguments:
        template: the NIfTI file; its axes run to the right, to the front and to the head.
    """
    stored = np.asanyarray(nibabel.nifti1.Nifti1Image.from_filename(template).dataobj)
    if stored.shape != (197, 233, 189) or stored.dtype != np.uint8:
        raise ValueError(f"{template} is not the template that is meant")
    slices = stored[::-1, ::-1, :].transpose(2, 1, 0).astype(np.uint16) * _TWELVE_BITS
    return np.ascontiguousarray(slices)


def make_phantom(slices: int = 48, rows: int = 233, columns: int = 197) -> Voxels:
    """A ball with rings and rods, which nobody takes for a head."""
    z, y, x = np.ogrid[:slices, :rows, :columns]
    depth = (z - slices / 2) / (slices / 2)
    height = (y - rows / 2) / (columns / 2)
    width = (x - columns / 2) / (columns / 2)
    distance = np.sqrt(depth**2 * 0.3 + height**2 + width**2)
    rings = np.where((distance * 10).astype(int) % 2 == 0, 3200, 900)
    volume = np.where(distance < 0.9, rings, 100)
    angle = np.arctan2(height, width) + depth
    rods = (np.abs(np.sqrt(height**2 + width**2) - 0.5) < 0.08) & (np.cos(6 * angle) > 0.7)
    return np.where(rods, 4000, volume).astype(np.uint16)


def head_instances(template: Path) -> Iterator[Dataset]:
    """The head as MR images of the patient ``Head^Template``."""
    patient = {
        "PatientName": "Head^Template",
        "PatientID": "NORTH-0001",
        "PatientBirthDate": "19800229",
        "PatientSex": "O",
        "PatientAge": "045Y",
        "PatientWeight": "70",
        "AccessionNumber": "N-1001",
        "InstitutionName": "Northern Clinic",
        "StudyDescription": "MNI152 head",
        "SeriesDescription": "T1 axial 1 mm",
        "BodyPartExamined": "HEAD",
        "ReferringPhysicianName": "Example^Rosa",
        "DerivationDescription": "Average of 152 heads, MNI ICBM152 2009a nonlinear symmetric",
    }
    yield from _instances(read_head(template), patient)


def phantom_instances() -> Iterator[Dataset]:
    """The phantom as MR images with the study, series and instance UIDs of the head, of another patient."""
    patient = {
        "PatientName": "Phantom^Rings",
        "PatientID": "SOUTH-0001",
        "PatientBirthDate": "20010101",
        "PatientSex": "O",
        "PatientAge": "025Y",
        "PatientWeight": "12",
        "AccessionNumber": "S-1001",
        "InstitutionName": "Southern Hospital",
        "StudyDescription": "Quality control",
        "SeriesDescription": "Rings and rods",
        "BodyPartExamined": "PHANTOM",
        "ReferringPhysicianName": "Example^Otto",
        "DerivationDescription": "Computed",
    }
    yield from _instances(make_phantom(), patient)


def _instances(voxels: Voxels, described: dict[str, str]) -> Iterator[Dataset]:
    for index, pixels in enumerate(voxels):
        image = _common(described)
        image.SOPInstanceUID = UID(demo_uid(f"head/{index}"))
        image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID
        image.InstanceNumber = index + 1
        image.ImagePositionPatient = [_ORIGIN_COLUMN, _ORIGIN_ROW, _ORIGIN_Z + index]
        image.SliceLocation = _ORIGIN_Z + index
        image.Rows, image.Columns = pixels.shape
        image.PixelData = pixels.astype("<u2").tobytes()
        yield image


def _common(described: dict[str, str]) -> Dataset:
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.MediaStorageSOPClassUID = UID(_MR_IMAGE_STORAGE)
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.ImplementationClassUID = UID(IMPLEMENTATION_CLASS_UID)
    image.file_meta.ImplementationVersionName = IMPLEMENTATION_VERSION_NAME
    image.SOPClassUID = UID(_MR_IMAGE_STORAGE)
    image.StudyInstanceUID = UID(HEAD_STUDY)
    image.SeriesInstanceUID = UID(demo_uid("head/series"))
    image.FrameOfReferenceUID = UID(demo_uid("head/frame of reference"))
    image.SpecificCharacterSet = "ISO_IR 192"
    image.ImageType = ["DERIVED", "PRIMARY", "OTHER"]
    image.Modality = "MR"
    image.Manufacturer = "Lightbox demo"
    for keyword, value in described.items():
        setattr(image, keyword, value)
    image.StudyID = "1"
    image.SeriesNumber = 1
    image.AcquisitionNumber = 1
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = "20260112"
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = "093000"
    image.PatientPosition = "HFS"
    image.PositionReferenceIndicator = ""
    image.Laterality = ""
    image.ScanningSequence = "RM"
    image.SequenceVariant = "NONE"
    image.ScanOptions = ""
    image.MRAcquisitionType = "3D"
    image.EchoTime = ""
    image.EchoTrainLength = ""
    image.RepetitionTime = ""
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.PixelSpacing = [1, 1]
    image.SliceThickness = 1
    image.SpacingBetweenSlices = 1
    image.SamplesPerPixel = 1
    image.PhotometricInterpretation = "MONOCHROME2"
    image.BitsAllocated = 16
    image.BitsStored = 12
    image.HighBit = 11
    image.PixelRepresentation = 0
    image.SmallestImagePixelValue = 0
    image.LargestImagePixelValue = 4095
    image.WindowCenter = 2048
    image.WindowWidth = 4096
    return image


def write_volume(instances: Iterator[Dataset], folder: Path) -> list[Path]:
    """Writes a volume's slices, unless they are there; the same bytes in every run.

    Arguments:
        instances: the slices.
        folder: where they go, ``NNN.dcm`` each; it gets its name when it is complete.
    """
    if not folder.is_dir():
        unfinished = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}")
        unfinished.mkdir(parents=True)
        for image in instances:
            image.save_as(unfinished / f"{int(image.InstanceNumber or 0):03}.dcm", enforce_file_format=True)
        unfinished.rename(folder)
    return sorted(folder.glob("*.dcm"))

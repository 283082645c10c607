"""Reading a header: our walk beside pydicom, to the same DICOM JSON.

python -m benchmarks.header
"""

import time
import warnings
from collections.abc import Callable
from io import BytesIO

import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks.measure import console, interleave, report
from libs.dicom import read_header

_SECONDS = 0.5
_PIXELS = 512 * 512 * 2


def _instance(elements: int) -> bytes:
    """A CT slice of 0.5 MB with so many elements besides Pixel Data; what a small one lacks are text and numbers."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID = CTImageStorage
    image.file_meta.MediaStorageSOPInstanceUID = image.SOPInstanceUID = generate_uid()
    image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = (generate_uid() for _ in range(3))
    image.SpecificCharacterSet, image.Modality, image.PatientName = "ISO_IR 100", "CT", "Müller^Jörg"
    image.PatientID, image.PatientBirthDate, image.PatientSex = "4711", "19570302", "F"
    image.StudyDate = image.SeriesDate = image.ContentDate = "20261125"
    image.StudyTime, image.AccessionNumber, image.StudyDescription = "081500", "A1", "CT of the chest"
    image.ImageType, image.Manufacturer, image.SliceThickness = ["ORIGINAL", "PRIMARY", "AXIAL"], "maker", 1.25
    image.KVP, image.SeriesNumber, image.InstanceNumber = 120, 3, 42
    image.ImagePositionPatient, image.ImageOrientationPatient = [-120.5, -118.2, 44.75], [1, 0, 0, 0, 1, 0]
    image.PixelSpacing, image.WindowCenter, image.WindowWidth = [0.7, 0.7], 40, 400
    image.RescaleIntercept, image.RescaleSlope = -1024, 1
    image.Rows = image.Columns = 512
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
    first = len(image)
    for number in range(first, elements):
        representation, value = (("LO", "some text"), ("DS", "1.5"), ("US", 7), ("CS", "YES"))[number % 4]
        creator = number == first
        tag = 0x00190010 if creator else 0x00191000 + number
        image.add_new(tag, "LO" if creator else representation, "LIGHTBOX" if creator else value)
    image.PixelData = bytes(_PIXELS)
    assert len(image) == elements + 1
    file = BytesIO()
    image.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _rate(read: Callable[[bytes], object], file: bytes) -> Callable[[], float]:
    """How many a second of processor time."""

    def run() -> float:
        count, began = 0, time.process_time()
        while time.process_time() - began < _SECONDS:
            for _ in range(20):
                read(file)
            count += 20
        return count / (time.process_time() - began)

    return run


def _pydicom_json(file: bytes) -> object:
    return pydicom.dcmread(BytesIO(file), stop_before_pixels=True).to_json_dict()


def _pydicom_identity(file: bytes) -> object:
    found = pydicom.dcmread(BytesIO(file), stop_before_pixels=True)
    return found.SOPInstanceUID, found.SOPClassUID, found.StudyInstanceUID, found.SeriesInstanceUID


def main() -> None:
    """Measures headers of 38 and 256 elements."""
    warnings.simplefilter("ignore")
    for elements in (38, 256):
        file = _instance(elements)
        subjects = {
            "Lightbox, to DICOM JSON": _rate(read_header, file),
            "pydicom, to DICOM JSON": _rate(_pydicom_json, file),
            "pydicom, four UIDs only": _rate(_pydicom_identity, file),
        }
        figures = interleave(subjects)
        report(f"headers of {elements} elements", "a second of processor time", figures, ours="Lightbox, to DICOM JSON")
        for name, rates in figures.items():
            console.print(f"  {name}: {1e6 / sorted(rates)[len(rates) // 2]:.0f} µs each", highlight=False)


if __name__ == "__main__":
    main()

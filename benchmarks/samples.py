"""Made-up CT series as heavy as real ones: 16 bits a pixel, with noise that does not compress."""

from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_ct_series(folder: Path, count: int, *, seed: int = 1, side: int = 512) -> list[Path]:
    """Writes one CT series.

    Arguments:
        folder: where to; it is made.
        count: slices, 0.5 MB each unless ``side`` says otherwise.
        seed: of the noise.
        side: rows and columns of a slice.

    Returns:
        The files, in slice order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed)
    study, series, frame_of_reference = generate_uid(), generate_uid(), generate_uid()
    paths = []
    for number in range(1, count + 1):
        image = Dataset()
        image.SpecificCharacterSet = "ISO_IR 100"
        image.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
        image.SOPClassUID = CTImageStorage
        image.SOPInstanceUID = generate_uid()
        image.StudyDate = image.SeriesDate = "20260102"
        image.StudyTime = "101500"
        image.Modality = "CT"
        image.StudyDescription = "Benchmark"
        image.PatientName = "Bench^Mark"
        image.PatientID = f"BENCH-{seed}"
        image.StudyInstanceUID, image.SeriesInstanceUID = study, series
        image.FrameOfReferenceUID = frame_of_reference
        image.StudyID, image.SeriesNumber, image.InstanceNumber = "1", 1, number
        image.ImagePositionPatient = [0, 0, float(number)]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.PixelSpacing, image.SliceThickness = [0.7, 0.7], 1.0
        image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
        image.Rows = image.Columns = side
        image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 12, 11, 0
        image.RescaleIntercept, image.RescaleSlope = -1024, 1
        image.WindowCenter, image.WindowWidth = 40, 400
        image.PixelData = noise.integers(0, 4096, (side, side), dtype=np.uint16).tobytes()
        image.file_meta = FileMetaDataset()
        image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = folder / f"{number:04d}.dcm"
        image.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths

"""Real DICOM files for tests, from pydicom, pydicom-data, pynetdicom, nibabel; all are on disk, none is fetched."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import files
from pathlib import Path
from typing import Final

import pydicom

from libs.dicom import DicomError, Header, read_header

_PYDICOM: Final = Path(pydicom.__file__).parent / "data"

# name → what it is. Each is a Part 10 file with all UIDs; several share a SOP Instance UID with another's encoding.
_DESCRIPTIONS: Final = {
    "RG1_UNCR.dcm": "CR of a chest, 7 MB, explicit VR little endian",
    "RG3_J2KR.dcm": "CR of a skull, JPEG 2000 lossless",
    "CT_small.dcm": "CT slice of 128 x 128, many private attributes, explicit VR little endian",
    "693_UNCR.dcm": "CT slice of 512 x 512, explicit VR little endian",
    "693_J2KR.dcm": "CT slice, JPEG 2000 lossless",
    "693_J2KI.dcm": "CT slice, JPEG 2000",
    "explicit_VR-UN.dcm": "CT slice whose attributes all have VR UN, JPEG 2000 lossless",
    "eCT_Supplemental.dcm": "enhanced CT with two frames, a palette beside the grey values",
    "MR_small.dcm": "MR slice of 64 x 64, explicit VR little endian",
    "MR_small_implicit.dcm": "MR slice, implicit VR little endian",
    "MR_small_bigendian.dcm": "MR slice, explicit VR big endian",
    "MR_small_RLE.dcm": "MR slice, RLE",
    "MR_small_jp2klossless.dcm": "MR slice, JPEG 2000 lossless",
    "MR_small_jpeg_ls_lossless.dcm": "MR slice, JPEG-LS lossless",
    "MR2_UNCR.dcm": "MR slice of 1024 x 1024, explicit VR little endian",
    "MR-SIEMENS-DICOM-WithOverlays.dcm": "MR slice with overlay planes and private sequences",
    "emri_small.dcm": "enhanced MR with ten frames, explicit VR little endian",
    "emri_small_jpeg_2k_lossless.dcm": "enhanced MR with ten frames, JPEG 2000 lossless",
    "emri_small_jpeg_ls_lossless.dcm": "enhanced MR with ten frames, JPEG-LS lossless",
    "emri_small_RLE.dcm": "enhanced MR with ten frames, RLE",
    "US1_UNCR.dcm": "US image in RGB, explicit VR little endian",
    "US1_J2KR.dcm": "US image in colour, JPEG 2000 lossless",
    "OBXXXX1A_rle_2frame.dcm": "US image, palette colour, two frames, RLE",
    "examples_palette.dcm": "US image, palette colour",
    "examples_ybr_color.dcm": "US clip of 30 frames in colour, JPEG baseline",
    "color3d_jpeg_baseline.dcm": "US clip of 120 frames in colour, JPEG baseline, 6 MB",
    "gdcm-US-ALOKA-16.dcm": "US image, implicit VR little endian, private attributes",
    "JPGLosslessP14SV1_1s_1f_8b.dcm": "US image, JPEG lossless first-order",
    "JPEG-LL.dcm": "NM whole body, JPEG lossless first-order",
    "JPGExtended.dcm": "NM whole body, JPEG extended (12 bit)",
    "image_dfl.dcm": "secondary capture, deflated",
    "SC_rgb_rle_2frame.dcm": "secondary capture in RGB, two frames, RLE",
    "SC_rgb_jpeg_dcmtk.dcm": "secondary capture in YBR, JPEG baseline",
    "SC_ybr_full_422_uncompressed.dcm": "secondary capture, YBR_FULL_422 not compressed",
    "liver.dcm": "segmentation with three frames of one bit a pixel",
    "rtplan.dcm": "RT plan, implicit VR little endian, no pixel data",
    "rtdose.dcm": "RT dose with 15 frames of 32 bits, implicit VR little endian",
    "reportsi.dcm": "structured report",
    "test-SR.dcm": "structured report, comprehensive",
    "waveform_ecg.dcm": "ECG waveform, no pixel data",
    "chrH31.dcm": "text in Japanese (ISO 2022)",
    "chrX1.dcm": "text in Chinese (UTF-8)",
}


@dataclass(frozen=True)
class Sample:
    """One real file.

    Attributes:
        name: its file name.
        path: where it is.
        description: what it is.
    """

    name: str
    path: Path
    description: str

    @property
    def header(self) -> Header:
        """What ``read_header`` finds in it."""
        return read_header(self.path)


@cache
def _places() -> dict[str, Path]:
    found = {path.name: path for path in (_PYDICOM / "charset_files").glob("*.dcm")}
    for file in files("pydicom-data") or ():
        if file.parent.name == "data":
            found[file.name] = Path(str(file.locate()))
    found.update({path.name: path for path in (_PYDICOM / "test_files").glob("*.dcm")})
    return found


def sample(name: str) -> Sample:
    """The sample of this file name; any file of pydicom and pydicom-data will do."""
    return Sample(name, _places()[name], _DESCRIPTIONS.get(name, ""))


def sample_files() -> list[Sample]:
    """Every named sample: all modalities and transfer syntaxes that matter; SOP Instance UIDs may repeat."""
    return [sample(name) for name in _DESCRIPTIONS]


def distinct_sample_files() -> list[Sample]:
    """The named samples, each SOP Instance UID once."""
    seen: set[str] = set()
    found = []
    for item in sample_files():
        uid = item.header.sop_instance_uid
        if uid not in seen:
            seen.add(uid)
            found.append(item)
    return found


def every_file() -> Iterator[Path]:
    """Every file that the packages carry, broken ones and those that are no DICOM among them."""
    yield from sorted(path for path in (_PYDICOM / "test_files").rglob("*") if path.is_file())
    yield from sorted(path for path in (_PYDICOM / "charset_files").glob("*.dcm"))
    yield from sorted(path for name, path in _places().items() if path.parent.name == "data" and name.endswith(".dcm"))
    for package in ("nibabel", "pynetdicom"):
        carried = (Path(str(file.locate())) for file in files(package) or () if file.suffix == ".dcm")
        yield from sorted(path for path in carried if path.is_file())


def readable_files() -> list[Path]:
    """Those of ``every_file`` that ``read_header`` takes."""
    found = []
    for path in every_file():
        try:
            read_header(path)
        except DicomError:
            continue
        found.append(path)
    return found

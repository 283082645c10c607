"""Files of every transfer syntax and encoding that others can write, read by our walk and by pydicom.

A hospital's devices write with all of these, and what they wrote must be read as what it is.
"""

import os
import subprocess
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import highdicom
import numpy as np
import pydicom
import pytest
from highdicom.sr.coding import CodedConcept
from pydicom import uid as identifiers
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from libs.dicom import DicomError, read_header
from tests.libs.json_oracle import require_same_instance, require_same_model
from tests.services.edge_gateway.sender import dcmtk
from tests.support.samples import every_file, sample

# Files that pydicom reads, with a SOP Instance UID, and we refuse; each is refused on purpose.
REFUSED: Final = {
    "JPEGLSNearLossless_08.dcm": "a test picture without a study: it can be filed nowhere",
    "JPEGLSNearLossless_16.dcm": "the same",
    "SC_rgb_jls_lossy_line.dcm": "the same",
    "SC_rgb_jls_lossy_sample.dcm": "the same",
    "MR_truncated.dcm": "its pixels were cut off on the way: the sender must hear so and send it again",
    "rtplan_truncated.dcm": "the same, of a treatment plan",
    "bad_sequence.dcm": "its identifiers were replaced by text",
}


def test_whatever_pydicom_reads_is_taken() -> None:
    """An image that is refused is an image that somebody waits for."""
    refused = set()
    for path in every_file():
        try:
            read_header(path)
        except DicomError:
            if _has_instance_uid(path):
                refused.add(path.name)
    assert refused == set(REFUSED)


def _has_instance_uid(path: Path) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return bool(pydicom.dcmread(path).get("SOPInstanceUID"))
        except Exception:
            return False


GREY, COLOUR, FRAMES, DEEP, PALETTE = (
    "MR_small.dcm",
    "SC_rgb.dcm",
    "emri_small.dcm",
    "CT_small.dcm",
    "OBXXXX1A.dcm",
)
DCMTK: Final = {
    "implicit": (["dcmconv", "+ti"], [GREY, COLOUR, FRAMES, DEEP, PALETTE, "reportsi.dcm", "rtplan.dcm"]),
    "big-endian": (["dcmconv", "+tb"], [GREY, COLOUR, FRAMES, DEEP, PALETTE, "reportsi.dcm", "rtplan.dcm"]),
    "deflated": (["dcmconv", "+td"], [GREY, COLOUR, FRAMES, DEEP, PALETTE, "reportsi.dcm", "rtplan.dcm"]),
    "defined-lengths": (["dcmconv", "+te", "+e"], [FRAMES, DEEP, "reportsi.dcm", "rtplan.dcm"]),
    "undefined-lengths": (["dcmconv", "+te", "-e"], [FRAMES, DEEP, "reportsi.dcm", "rtplan.dcm"]),
    "group-lengths": (["dcmconv", "+te", "+g"], [GREY, FRAMES, "reportsi.dcm"]),
    "padding": (["dcmconv", "+te", "+p", "512", "16"], [GREY, FRAMES, "reportsi.dcm"]),
    "rle": (["dcmcrle"], [GREY, FRAMES, DEEP]),
    "rle-fragments": (["dcmcrle", "+fs", "1"], [GREY, FRAMES]),
    "jpeg-baseline": (["dcmcjpeg", "+eb"], [COLOUR]),
    "jpeg-lossless": (["dcmcjpeg", "+e1"], [GREY, COLOUR, FRAMES, DEEP]),
    "jpeg-lossless-14": (["dcmcjpeg", "+el"], [GREY, FRAMES]),
    "jpeg-fragments": (["dcmcjpeg", "+e1", "+fs", "1"], [GREY, FRAMES]),
    "jpeg-no-table": (["dcmcjpeg", "+e1", "-ot", "+fs", "1"], [GREY, FRAMES]),
    "jpeg-ls": (["dcmcjpls", "+el"], [GREY, FRAMES, DEEP]),
    "jpeg-ls-fragments": (["dcmcjpls", "+el", "+fs", "1"], [FRAMES]),
    "jpeg-ls-near": (["dcmcjpls", "+en"], [COLOUR]),
}


@pytest.mark.parametrize("encoding", DCMTK)
def test_what_dcmtk_writes(encoding: str, tmp_path: Path) -> None:
    (program, *options), names = DCMTK[encoding]
    for name in names:
        written = tmp_path / name
        command = [dcmtk(program), *options, str(sample(name).path), str(written)]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert outcome.returncode == 0, outcome.stderr
        require_same_instance(written)
        require_same_model(written)


GDCM: Final = {
    "implicit": ["--implicit"],
    "explicit": ["--explicit"],
    "rle": ["--rle"],
    "jpeg": ["--jpeg"],
    "jpeg-ls": ["--jpegls"],
    "jpeg-2000": ["--j2k"],
}


@pytest.mark.parametrize("encoding", GDCM)
def test_what_gdcm_writes(encoding: str, tmp_path: Path) -> None:
    try:
        subprocess.run(["gdcmconv", "--version"], capture_output=True, check=False)
    except FileNotFoundError:
        message = "gdcmconv is not on this machine (Debian: apt-get install libgdcm-tools)"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    for name in (GREY, FRAMES, DEEP):
        written = tmp_path / name
        command = ["gdcmconv", *GDCM[encoding], str(sample(name).path), str(written)]
        outcome = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert outcome.returncode == 0, outcome.stderr
        require_same_instance(written)
        require_same_model(written)


PYDICOM: Final = (
    identifiers.RLELossless,
    identifiers.JPEGLSLossless,
    identifiers.JPEGLSNearLossless,
    identifiers.JPEG2000Lossless,
    identifiers.JPEG2000,
    identifiers.DeflatedExplicitVRLittleEndian,
)


@pytest.mark.parametrize("syntax", PYDICOM, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("extended", [False, True], ids=["basic", "extended"])
def test_what_pydicom_writes(syntax: identifiers.UID, extended: bool, tmp_path: Path) -> None:
    options: dict[str, Any] = {}
    if syntax == identifiers.JPEGLSNearLossless:
        options = {"jls_error": 2}
    elif syntax == identifiers.JPEG2000:
        options = {"j2k_cr": [5]}
    for name in (GREY, COLOUR, FRAMES, DEEP):
        image = pydicom.dcmread(sample(name).path)
        if syntax.is_encapsulated:
            image.compress(syntax, encapsulate_ext=extended, generate_instance_uid=False, **options)
        else:
            image.file_meta.TransferSyntaxUID = syntax
        image.save_as(tmp_path / name, enforce_file_format=True)
        require_same_instance(tmp_path / name)
        require_same_model(tmp_path / name)


def _slices(count: int) -> list[Dataset]:
    slices: list[Dataset] = []
    for number in range(count):
        image = pydicom.dcmread(sample("CT_small.dcm").path)
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = identifiers.generate_uid()
        image.InstanceNumber = number + 1
        image.ImagePositionPatient = [0.0, 0.0, 5.0 * number]
        slices.append(image)
    return slices


def _segmentation(kind: str, syntax: str) -> Dataset:
    slices = _slices(5)
    algorithm = highdicom.AlgorithmIdentificationSequence("test", codes.cid7162.ArtificialIntelligence, "1")
    segment = highdicom.seg.SegmentDescription(
        1,
        "organ",
        codes.cid7150.Tissue,
        codes.cid7166.ConnectiveTissue,
        highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm,
    )
    mask = np.zeros((5, 128, 128), dtype=bool)
    mask[1:4, 30:90, 31:77] = True
    return highdicom.seg.Segmentation(
        slices,
        mask,
        kind,
        [segment],
        identifiers.generate_uid(),
        7,
        identifiers.generate_uid(),
        1,
        "maker",
        "model",
        "1",
        "serial",
        transfer_syntax_uid=syntax,
    )


def _report() -> Dataset:
    slices = _slices(2)
    observer = highdicom.sr.ObserverContext(
        observer_type=codes.DCM.Person,
        observer_identifying_attributes=highdicom.sr.PersonObserverIdentifyingAttributes(name="Müller^Jörg"),
    )
    measurement = highdicom.sr.Measurement(name=codes.SCT.Length, value=12.5, unit=codes.UCUM.Millimeter)
    group = highdicom.sr.MeasurementsAndQualitativeEvaluations(
        highdicom.sr.TrackingIdentifier(identifiers.generate_uid(), "lesion"),
        measurements=[measurement],
        source_images=[highdicom.sr.SourceImageForMeasurementGroup.from_source_image(slices[0])],
    )
    report = highdicom.sr.MeasurementReport(
        highdicom.sr.ObservationContext(observer_person_context=observer),
        CodedConcept("126000", "DCM", "Imaging Measurement Report"),
        [group],
    )
    return highdicom.sr.Comprehensive3DSR(
        slices, report[0], identifiers.generate_uid(), 8, identifiers.generate_uid(), 1, "maker", institution_name="x"
    )


MADE: Final[dict[str, Callable[[], Dataset]]] = {
    "segmentation-binary": lambda: _segmentation("BINARY", identifiers.ExplicitVRLittleEndian),
    "segmentation-fractional-rle": lambda: _segmentation("FRACTIONAL", identifiers.RLELossless),
    "segmentation-fractional": lambda: _segmentation("FRACTIONAL", identifiers.ImplicitVRLittleEndian),
    "segmentation-fractional-j2k": lambda: _segmentation("FRACTIONAL", identifiers.JPEG2000Lossless),
    "report": _report,
}


@pytest.mark.parametrize("kind", MADE)
def test_what_highdicom_makes(kind: str, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made = MADE[kind]()
        path = tmp_path / "made.dcm"
        made.save_as(path)
    require_same_instance(path)
    require_same_model(path)

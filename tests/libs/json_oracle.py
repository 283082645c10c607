"""pydicom as the judge of the header walk: the JSON model, identifiers and frames of a file, and what may differ."""

import base64
import math
import warnings
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from libs.dicom import FrameTable, Header, read_header
from libs.dicom.errors import DicomError
from libs.dicom.frames import frame_bytes, frame_count, frame_ranges
from libs.dicom.identifiers import DEFLATED, EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from libs.dicom.part10 import inflate, read_file_meta
from libs.dicom.values import BINARY, SWAP_WIDTH
from libs.dicom.walk import Walk, swapped

Json = dict[str, dict[str, Any]]

# Files of which pydicom gives no model, each with its reason; the other differences are named in ``_normal``.
PYDICOM_GIVES_UP = {
    "badVR.dcm": "pydicom raises on a DS that holds no number; we keep its text",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "pydicom reads nothing without the last delimiter; we warn",
}


def walked(path: Path) -> tuple[bytes, Json, Walk] | None:
    data = path.read_bytes()
    try:
        meta = read_file_meta(data)
        if not meta.transfer_syntax:
            return None
        if meta.transfer_syntax in DEFLATED:
            data = inflate(data)
        walk = Walk(data, little=meta.transfer_syntax != EXPLICIT_VR_BIG_ENDIAN)
        explicit = meta.transfer_syntax != IMPLICIT_VR_LITTLE_ENDIAN
        return data, walk.run(meta.dataset_offset, len(data), explicit=explicit), walk
    except DicomError:
        return None


def require_same_model(path: Path) -> None:
    """Fails where the walk's JSON model of a file is not pydicom's."""
    found = walked(path)
    assert found is not None
    data, dicom, walk = found
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
        if path.name in PYDICOM_GIVES_UP:
            assert len(dicom) > 10
            return
        reference = dataset.to_json_dict()
    pixels = {"7FE00008", "7FE00009", "7FE00010"} & reference.keys()
    for tag in pixels:
        _same_pixels(dataset, tag, data, walk)
    mine = _normal({tag: element for tag, element in dicom.items() if tag not in pixels}, data, walk, "")
    theirs = _normal({tag: element for tag, element in reference.items() if tag not in pixels}, None, walk, "")
    for tag in sorted(mine.keys() | theirs.keys()):
        assert mine.get(tag) == theirs.get(tag), tag
    assert list(dicom) == sorted(dicom), "tags ascend"


def require_same_instance(path: Path) -> None:
    """Fails where ``read_header`` finds another instance in a file than pydicom, or other frames."""
    header = read_header(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = pydicom.dcmread(path)
    assert header.sop_instance_uid == dataset.SOPInstanceUID
    assert header.sop_class_uid == dataset.SOPClassUID
    assert (header.study_uid, header.series_uid) == (dataset.StudyInstanceUID, dataset.SeriesInstanceUID)
    assert header.transfer_syntax == dataset.file_meta.TransferSyntaxUID
    assert header.modality == dataset.get("Modality", "")
    if header.frames is not None:
        _same_frames(header, header.frames, dataset, path)


def _same_frames(header: Header, table: FrameTable, dataset: Dataset, path: Path) -> None:
    data = path.read_bytes()
    if table.get("deflated"):
        data = inflate(data)
    count = frame_count(table)
    assert count == int(dataset.get("NumberOfFrames", 1) or 1)
    found = [
        frame_bytes(table, number, b"".join(data[at : at + size] for at, size in frame_ranges(table, number)))
        for number in range(1, count + 1)
    ]
    if table["kind"] == "encapsulated":
        extended = None
        if "ExtendedOffsetTable" in dataset:
            extended = dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
        expected = list(generate_frames(dataset.PixelData, number_of_frames=count, extended_offsets=extended))
        # An offset table may count the padding in, an extended one leaves it out.
        assert [frame.rstrip(b"\0") for frame in found] == [frame.rstrip(b"\0") for frame in expected]
    elif not table.get("bits"):
        assert b"".join(found) == dataset.PixelData[: sum(map(len, found))]
        assert len(dataset.PixelData) - sum(map(len, found)) <= 1


def _same_pixels(dataset: Dataset, tag: str, data: bytes, walk: Walk) -> None:
    if not dataset[tag].value:
        assert tag not in walk.bulk
        return
    offset, length = walk.bulk[tag]
    found, expected = data[offset : offset + length], bytes(dataset[tag].value)
    if walk.pixels is not None and walk.pixels.fragments is not None:
        expected = expected.removesuffix(b"\xfe\xff\xdd\xe0\x00\x00\x00\x00")
    assert found == expected


def _normal(dicom: Json, data: bytes | None, walk: Walk, path: str) -> Json:
    """One data set with the differences that are meant taken away.

    Empty: pydicom writes ``Value: []`` for an empty sequence, empty texts where the standard asks for null, and empty
    component groups of names. White space: pydicom keeps what is only padding. Numbers: 1 and 1.0 are one JSON number.
    Group lengths and padding: pydicom writes them where the file has them.
    """
    result: Json = {}
    for tag, element in dicom.items():
        if tag.endswith("0000") or tag == "FFFCFFFC":
            continue
        if "BulkDataURI" in element:
            assert data is not None
            offset, length = walk.bulk[element["BulkDataURI"]]
            assert element["BulkDataURI"] == f"{path}{tag}"
            result[tag] = _bytes(element["vr"], data[offset : offset + length], walk)
        elif "InlineBinary" in element:
            raw = base64.b64decode(element["InlineBinary"])
            # The reference has the words as they lie; ours are little endian.
            result[tag] = {"vr": element["vr"], "bytes": raw if data is not None else _little(element["vr"], raw, walk)}
        elif element["vr"] == "SQ":
            items = element.get("Value") or []
            result[tag] = {
                "vr": "SQ",
                "Value": [_normal(item, data, walk, f"{path}{tag}/{i + 1}/") for i, item in enumerate(items)],
            }
        else:
            values = [_value(value, element["vr"]) for value in element.get("Value") or []]
            if all(value is None for value in values):
                values = []
            result[tag] = {"vr": element["vr"], "Value": values}
    return result


def _bytes(vr: str, raw: bytes, walk: Walk) -> dict[str, Any]:
    assert vr in BINARY
    return {"vr": vr, "bytes": _little(vr, raw, walk)}


def _little(vr: str, raw: bytes, walk: Walk) -> bytes:
    return raw if walk.little or vr not in SWAP_WIDTH else swapped(raw, SWAP_WIDTH[vr])


def _value(value: Any, vr: str) -> Any:
    if isinstance(value, dict):
        groups = {group: text.strip(" \0") for group, text in value.items() if text.strip(" \0")}
        return groups or None
    if isinstance(value, str):
        if vr in {"SV", "UV"}:
            return int(value)
        return value.strip(" \0\t\r\n").replace("\0", "") or None
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value

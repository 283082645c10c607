"""The JSON model of every real file at hand against pydicom's: an attribute read wrongly is shown wrongly."""

import base64
import math
import warnings
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from libs.dicom.errors import DicomError
from libs.dicom.identifiers import DEFLATED, EXPLICIT_VR_BIG_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from libs.dicom.part10 import inflate, read_file_meta
from libs.dicom.values import BINARY, SWAP_WIDTH
from libs.dicom.walk import Walk, swapped
from tests.support.samples import every_file

Json = dict[str, dict[str, Any]]

# Files of which pydicom gives no model, each with its reason; the other differences are named in ``_normal``.
PYDICOM_GIVES_UP = {
    "badVR.dcm": "pydicom raises on a DS that holds no number; we keep its text",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "pydicom reads nothing without the last delimiter; we warn",
}


def _walked(path: Path) -> tuple[bytes, Json, Walk] | None:
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


def _files() -> list[Path]:
    return [path for path in every_file() if _walked(path) is not None]


@pytest.mark.parametrize("path", _files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_json_model_equals_that_of_pydicom(path: Path) -> None:
    walked = _walked(path)
    assert walked is not None
    data, dicom, walk = walked
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

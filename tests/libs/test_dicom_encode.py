"""Encoding DICOM JSON: what a client sent as a model must come back as the same model, and nothing may be bent."""

import base64
import math
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread

from libs.dicom import DicomError, Header, InvalidDicom, read_header
from libs.dicom.encode import BulkData, encode_data_set
from libs.dicom.identifiers import DEFLATED, EXPLICIT_VR_LITTLE_ENDIAN, transfer_syntax
from libs.dicom.part10 import file_meta, inflate
from tests.support.samples import every_file

UIDS = {
    "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.7"]},
    "00080018": {"vr": "UI", "Value": ["1.2.3.4"]},
    "0020000D": {"vr": "UI", "Value": ["1.2.3"]},
    "0020000E": {"vr": "UI", "Value": ["1.2.3.1"]},
}


def nothing(_: str) -> BulkData | None:
    return None


def as_file(model: dict[str, Any], resolve: Any = nothing) -> bytes:
    encoded = encode_data_set(model, resolve)
    meta = file_meta(
        sop_class_uid=model["00080016"]["Value"][0],
        sop_instance_uid=model["00080018"]["Value"][0],
        transfer_syntax=encoded.transfer_syntax or EXPLICIT_VR_LITTLE_ENDIAN,
    )
    data = b"".join(piece if isinstance(piece, bytes) else piece.read_bytes() for piece in encoded.pieces)
    assert len(data) == encoded.size
    return meta + data


def read_back(model: dict[str, Any]) -> dict[str, Any]:
    """The model after it went through a file."""
    return read_header(as_file({**UIDS, **model})).dicom


@pytest.mark.parametrize(
    "element",
    [
        {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane", "Phonetic": "x"}, None, {"Ideographic": "山田"}]},
        {"vr": "LO", "Value": ["one", None, "Ärzte"]},
        {"vr": "LT", "Value": ["a\\b is one text"]},
        {"vr": "DS", "Value": [0.1, -1024, 1.5e-07, None, 123456789.12345]},
        {"vr": "IS", "Value": [-5, 2147483647]},
        {"vr": "US", "Value": [0, 65535]},
        {"vr": "SL", "Value": [-(2**31)]},
        {"vr": "UV", "Value": [str(2**64 - 1), 5]},
        {"vr": "FD", "Value": [1e300, "NaN", "-inf"]},
        {"vr": "AT", "Value": ["7FE00010"]},
        {"vr": "OB", "InlineBinary": base64.b64encode(b"four").decode()},
        {"vr": "UN"},
        {"vr": "SQ", "Value": [{"00080060": {"vr": "CS", "Value": ["CT"]}}, {}]},
        {"vr": "SQ"},
    ],
    ids=lambda element: element["vr"],
)
def test_every_representation_comes_back_as_it_was(element: dict[str, Any]) -> None:
    assert read_back({"00091001": element})["00091001"] == element


@pytest.mark.parametrize(
    "element",
    [
        {"vr": "DS", "Value": [math.pi]},
        {"vr": "DS", "Value": ["seven"]},
        {"vr": "DS", "Value": [True]},
        {"vr": "IS", "Value": [2**31]},
        {"vr": "IS", "Value": [1.5]},
        {"vr": "US", "Value": [-1]},
        {"vr": "US", "Value": [None]},
        {"vr": "UI", "Value": ["1.2/3"]},
        {"vr": "CS", "Value": ["Ä"]},
        {"vr": "LO", "Value": ["a\\b"]},
        {"vr": "LO", "Value": "not a list"},
        {"vr": "LO", "Value": [{}]},
        {"vr": "LO", "Value": ["x" * 70000]},
        {"vr": "PN", "Value": ["Doe^Jane"]},
        {"vr": "PN", "Value": [{"Alphabetic": "a=b"}]},
        {"vr": "AT", "Value": ["7FE0"]},
        {"vr": "OB", "InlineBinary": "not Base64!"},
        {"vr": "OB", "InlineBinary": "AAAA", "BulkDataURI": "x"},
        {"vr": "OB", "BulkDataURI": "missing"},
        {"vr": "OB", "Value": [1]},
        {"vr": "LO", "InlineBinary": "AAAA"},
        {"vr": "SQ", "Value": [{"x": {"vr": "CS"}}]},
        {"vr": "SQ", "Value": [["not an item"]]},
        {"vr": "XX", "Value": ["?"]},
        {"Value": ["no representation"]},
        "no element",
    ],
    ids=str,
)
def test_what_has_no_representation_is_refused_and_not_bent(element: Any) -> None:
    with pytest.raises(InvalidDicom) as refused:
        encode_data_set({"00091001": element}, nothing)
    assert "seven" not in str(refused.value), "the words of a refusal never hold a value"


def test_nesting_and_doubled_tags_are_bounded() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"00400100": {"vr": "SQ", "Value": [deep]}}
    with pytest.raises(InvalidDicom, match="deeper"):
        encode_data_set(deep, nothing)
    with pytest.raises(InvalidDicom, match="twice"):
        encode_data_set({"0020000d": UIDS["0020000D"], "0020000D": UIDS["0020000D"]}, nothing)
    with pytest.raises(InvalidDicom, match="eight"):
        encode_data_set({"PatientName": {"vr": "PN"}}, nothing)


def test_text_that_is_not_ascii_becomes_utf_8_and_says_so() -> None:
    name = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller"}]}}
    latin = {"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}}
    assert read_back(name)["00080005"]["Value"] == ["ISO_IR 192"]
    assert encode_data_set({**name, **latin}, nothing).replaced_character_set == latin["00080005"]
    assert read_back({**name, **latin})["00100010"] == name["00100010"]
    assert encode_data_set(latin, nothing).replaced_character_set is None, "all of it is ASCII: nothing has to change"
    with pytest.raises(InvalidDicom, match="character set of its own"):
        encode_data_set({**name, "00081115": {"vr": "SQ", "Value": [latin]}}, nothing)


def test_real_files_survive_the_way_through_their_model(tmp_path: Path) -> None:
    """For each native file that can be read: model → file → model is the same, and pydicom reads the file."""
    survived, refused = 0, []
    for path in every_file():
        try:
            header = read_header(path)
        except DicomError:
            continue
        if transfer_syntax(header.transfer_syntax).encapsulated and header.frames is not None:
            continue  # compressed frames are sent one by one: tests of the gateway do
        try:
            made = as_file(header.dicom, bulk_of(path, header, tmp_path))
        except InvalidDicom as error:
            refused.append((path.name, str(error)))
            continue
        survived += 1
        again = {tag: element for tag, element in read_header(made).dicom.items() if tag != "00080005"}
        before = {tag: element for tag, element in header.dicom.items() if tag != "00080005"}
        assert set(again) == set(before), path
        for tag, element in before.items():
            assert again[tag] == element or "BulkDataURI" in str(element), (path, tag)
        dcmread(BytesIO(made))
    assert survived > 100
    assert len(refused) < 20, refused


def bulk_of(path: Path, header: Header, folder: Path) -> Any:
    """What finds the bulk data of a file."""
    data = path.read_bytes()
    if header.transfer_syntax in DEFLATED:
        data = inflate(data)

    def resolve(uri: str) -> BulkData | None:
        offset, length = header.bulk[uri]
        target = folder / uri.replace("/", "-")
        target.write_bytes(data[offset : offset + length])
        return BulkData([(target, length)])

    return resolve

"""DICOM JSON on its way in: any JSON becomes a data set that is read as what it says, or is refused."""

from collections.abc import Iterator
from typing import Any, Final

import orjson

from libs.dicom import DicomError, InvalidDicom, read_header
from libs.dicom.encode import encode_data_set
from tests.fuzz.target import Target
from tests.support.dicom_bytes import INSTANCE, SERIES, SOP_CLASS, STUDY, head

_IDENTITY: Final = {
    "00080016": {"vr": "UI", "Value": [SOP_CLASS]},
    "00080018": {"vr": "UI", "Value": [INSTANCE]},
    "0020000D": {"vr": "UI", "Value": [STUDY]},
    "0020000E": {"vr": "UI", "Value": [SERIES]},
}


def run(data: bytes) -> None:
    """Writes the model, reads it, writes what was read, reads that: the two readings are equal."""
    try:
        model = orjson.loads(data)
    except orjson.JSONDecodeError:
        return
    try:
        written = _written({**model, **_IDENTITY} if isinstance(model, dict) else model)
    except InvalidDicom:
        return
    try:
        once = read_header(written)
    except DicomError as error:
        raise AssertionError("what was written can't be read") from error
    if once.bulk:
        return
    twice = read_header(_written(once.dicom))
    assert once.dicom == twice.dicom


def _written(model: Any) -> bytes:
    encoded = encode_data_set(model, lambda _: None)
    data = b"".join(piece for piece in encoded.pieces if isinstance(piece, bytes))
    assert len(data) == encoded.size
    return head() + data


def seeds() -> Iterator[bytes]:
    """One model for each kind of value."""
    values: dict[str, list[Any]] = {
        "AE": ["A", "B"], "AS": ["012Y"], "AT": ["00100010"], "CS": ["ISO_IR 192"], "DA": ["20260101"],
        "DS": [1.5, "2"],
        "DT": ["2026"], "FD": [1.5, "NaN"], "FL": [2], "IS": [1, "2"], "LO": ["a", None, "ü"], "LT": ["x\ny"],
        "PN": [{"Alphabetic": "a^b", "Ideographic": "山"}], "SH": ["s"], "SL": [-1], "SS": [-2], "ST": ["st"],
        "SV": ["-9007199254740993"], "TM": ["0815"], "UC": ["u"], "UI": ["1.2"], "UL": [3], "UR": ["http://x"],
        "US": [4], "UT": ["ut"], "UV": [5],
    }  # fmt: skip
    for number, (vr, value) in enumerate(values.items()):
        yield orjson.dumps({f"0009{number + 0x1000:04X}": {"vr": vr, "Value": value}})
    yield orjson.dumps({"00091000": {"vr": "OB", "InlineBinary": "YWI="}, "00091001": {"vr": "UN"}})
    item = {"00080100": {"vr": "SH", "Value": ["c"]}, "00400275": {"vr": "SQ", "Value": [{}, None]}}
    yield orjson.dumps({"00080005": {"vr": "CS", "Value": ["ISO_IR 100"]}, "00400275": {"vr": "SQ", "Value": [item]}})
    yield b'{"00400275":{"vr":"SQ","Value":[' * 40 + b"]}}" * 40


TARGET: Final = Target("metadata", run, seeds, ("libs.dicom",), 1024)

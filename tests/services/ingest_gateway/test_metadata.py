"""Instances that come as DICOM JSON and bulk data (PS3.18 10.5): kept is what was described, or it is refused."""

import base64
import io
import json
import zipfile
from collections.abc import Iterable
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.encaps import generate_frames
from pydicom.uid import generate_uid

from libs.dicom import read_header
from libs.objects import ObjectStore
from tests.services.ingest_gateway.gateway import Gateway
from tests.services.ingest_gateway.instances import (
    BOUNDARY,
    CT_IMAGE_STORAGE,
    FAILED,
    FAILURE_REASON,
    STORED,
    UID,
    WARNING_REASON,
    make_instance,
    new_uid,
    sha256,
    values,
)
from tests.support.backing import Backing

TYPE = f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}'
JSON = "application/dicom+json"
OCTETS = "application/octet-stream"


@pytest.fixture
def objects(backing: Backing) -> ObjectStore:
    return ObjectStore(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key, "lightbox")


def body(models: Any, bulk: Iterable[tuple[str, str, bytes]] = ()) -> bytes:
    """A request: metadata, and bulk data as (Content-Location, Content-Type, bytes)."""
    content = models if isinstance(models, bytes) else json.dumps(models).encode()
    parts = [f"--{BOUNDARY}\r\nContent-Type: {JSON}\r\n\r\n".encode() + content + b"\r\n"]
    for location, media_type, data in bulk:
        head = f"--{BOUNDARY}\r\nContent-Type: {media_type}\r\nContent-Location: {location}\r\n\r\n"
        parts.append(head.encode() + data + b"\r\n")
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def model(**changes: Any) -> dict[str, Any]:
    """A small grey image whose Pixel Data is at ``pixels``."""
    found: dict[str, Any] = {
        "00080016": {"vr": "UI", "Value": [CT_IMAGE_STORAGE]},
        "00080018": {"vr": "UI", "Value": [new_uid()]},
        "0020000D": {"vr": "UI", "Value": [new_uid()]},
        "0020000E": {"vr": "UI", "Value": [new_uid()]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]},
        "00280002": {"vr": "US", "Value": [1]},
        "00280004": {"vr": "CS", "Value": ["MONOCHROME2"]},
        "00280010": {"vr": "US", "Value": [2]},
        "00280011": {"vr": "US", "Value": [2]},
        "00280100": {"vr": "US", "Value": [8]},
        "00280101": {"vr": "US", "Value": [8]},
        "00280102": {"vr": "US", "Value": [7]},
        "00280103": {"vr": "US", "Value": [0]},
        "7FE00010": {"vr": "OB", "BulkDataURI": "pixels"},
    }
    for tag, element in changes.items():
        found[tag.removeprefix("x")] = element
        if element is None:
            del found[tag.removeprefix("x")]
    return found


PIXELS = ("pixels", OCTETS, bytes([1, 2, 3, 4]))


async def kept(objects: ObjectStore, tenant: str) -> dict[str, bytes]:
    """SOP Instance UID → the Part 10 file that is kept."""
    found = {}
    async for entry in objects.list(tenant, "packs/"):
        with zipfile.ZipFile(io.BytesIO(await objects.get(tenant, entry.key))) as pack:
            found.update({n.removesuffix(".dcm"): pack.read(n) for n in pack.namelist() if n.endswith(".dcm")})
    return found


async def test_metadata_and_bulk_data_become_one_file(gateway: Gateway, tenant: str, objects: ObjectStore) -> None:
    private = {"00091001": {"vr": "OB", "InlineBinary": base64.b64encode(b"inline").decode()}}
    sent = model(x00280010={"vr": "US", "Value": [2]}) | private
    response = await gateway.post(tenant, body([sent], [PIXELS]), TYPE, study=sent["0020000D"]["Value"][0])
    assert response.status_code == 200, response.text
    (uid, file), *_ = (await kept(objects, tenant)).items()
    assert values(response.json(), STORED, UID) == [uid]
    assert values(response.json(), STORED, "00091001") == [sha256(file)]
    found = read_header(file)
    assert found.transfer_syntax == "1.2.840.10008.1.2.1"
    assert found.dicom["00100010"] == sent["00100010"]
    assert found.dicom["00091001"] == private["00091001"]
    assert bytes(pydicom.dcmread(io.BytesIO(file)).pixel_array.tobytes()) == bytes([1, 2, 3, 4])
    assert gateway.leftovers() == []


async def test_a_retry_makes_the_same_file_again(gateway: Gateway, tenant: str, objects: ObjectStore) -> None:
    request = body([model(x00100010={"vr": "PN", "Value": [{"Alphabetic": "Müller"}]})], [PIXELS])
    answers = [(await gateway.post(tenant, request, TYPE)).json() for _ in range(2)]
    assert answers[0] == answers[1]
    assert values(answers[1], STORED, WARNING_REASON) == [None], "a retry is no second version"
    assert len(await kept(objects, tenant)) == 1


async def test_what_can_not_be_made_fails_alone(gateway: Gateway, tenant: str, objects: ObjectStore) -> None:
    good = model()
    bad = [
        model(x7FE00010={"vr": "OB", "BulkDataURI": "was never sent"}),
        model(x00080018={"vr": "UI", "Value": ["1.2/3"]}),
        model(x00101030={"vr": "DS", "Value": ["heavy"]}),
        model(x00280010=None),
        model(x0020000D=None),
        "no object",
        {"PatientName": 1},
    ]
    response = await gateway.post(tenant, body([*bad, good], [PIXELS]), TYPE)
    assert response.status_code == 202
    assert values(response.json(), STORED, UID) == good["00080018"]["Value"]
    told = [0xC000, 0xC000, 0xA900]  # of three we know which they are; the one without a study is read only later
    reasons = values(response.json(), FAILED, FAILURE_REASON)
    assert sorted(reasons) == sorted([*told, 0xA900, 0xA900, 0xC000, 0xA900])
    assert values(response.json(), FAILED, UID)[0] == bad[0]["00080018"]["Value"][0]  # type: ignore[index]
    assert "heavy" not in response.text
    assert len(await kept(objects, tenant)) == 1


async def test_an_instance_of_another_study_fails_and_the_rest_goes_on(gateway: Gateway, tenant: str) -> None:
    right, wrong = model(), model()
    response = await gateway.post(tenant, body([wrong, right], [PIXELS]), TYPE, study=right["0020000D"]["Value"][0])
    assert response.status_code == 202
    assert values(response.json(), FAILED, FAILURE_REASON) == [0xA900]
    assert values(response.json(), STORED, UID) == right["00080018"]["Value"]


async def test_a_changed_character_set_is_warned_of_with_the_original(
    gateway: Gateway, tenant: str, objects: ObjectStore
) -> None:
    latin = {"vr": "CS", "Value": ["ISO_IR 100"]}
    sent = model(x00100010={"vr": "PN", "Value": [{"Alphabetic": "Müller^Änne"}]}, x00080005=latin)
    response = await gateway.post(tenant, body([sent], [PIXELS]), TYPE)
    assert response.status_code == 202
    assert values(response.json(), STORED, WARNING_REASON) == [0xB000]
    ((item,),) = (stored["04000561"]["Value"] for stored in response.json()[STORED]["Value"])
    assert item["04000550"]["Value"] == [{"00080005": latin}]
    assert item["04000565"]["Value"] == ["COERCE"]
    assert item["04000562"]["Value"][0].startswith("20")
    (file,) = (await kept(objects, tenant)).values()
    assert str(pydicom.dcmread(io.BytesIO(file)).PatientName) == "Müller^Änne"


def jpeg_2000() -> tuple[pydicom.Dataset, list[bytes]]:
    """A compressed image, and its frames."""
    image = pydicom.dcmread(str(get_testdata_file("MR_small_jp2klossless.dcm")))
    return image, list(generate_frames(image.PixelData, number_of_frames=1))


def described(image: pydicom.Dataset, **changes: Any) -> dict[str, Any]:
    """The metadata of an image; its Pixel Data is at ``pixels``."""
    found: dict[str, Any] = image.to_json_dict(bulk_data_threshold=1 << 30, suppress_invalid_tags=True)
    return {
        **found,
        "7FE00010": {"vr": "OW", "BulkDataURI": "pixels"},
        "00080018": {"vr": "UI", "Value": [generate_uid()]},
        **{tag.removeprefix("x"): element for tag, element in changes.items()},
    }


@pytest.mark.parametrize(
    "media_type", ["image/jp2", 'image/jp2; transfer-syntax="1.2.840.10008.1.2.4.90"', "image/jp2;transfer-syntax=*"]
)
async def test_compressed_frames_are_encapsulated(
    gateway: Gateway, tenant: str, objects: ObjectStore, media_type: str
) -> None:
    image, (frame,) = jpeg_2000()
    response = await gateway.post(tenant, body([described(image)], [("pixels", media_type, frame)]), TYPE)
    assert response.status_code == 200, response.text
    (file,) = (await kept(objects, tenant)).values()
    again = pydicom.dcmread(io.BytesIO(file))
    assert again.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.4.90"
    assert np.array_equal(again.pixel_array, image.pixel_array)


async def test_frames_of_an_image_come_one_a_part(gateway: Gateway, tenant: str, objects: ObjectStore) -> None:
    image, (frame,) = jpeg_2000()
    three = described(image, x00280008={"vr": "IS", "Value": [3]})
    odd = frame + b"\0" * (1 - len(frame) % 2)
    frames = [("pixels", "image/jp2", data) for data in (frame, odd, frame)]
    response = await gateway.post(tenant, body([three], frames), TYPE)
    assert response.status_code == 200, response.text
    (file,) = (await kept(objects, tenant)).values()
    assert pydicom.dcmread(io.BytesIO(file)).pixel_array.shape == (3, *image.pixel_array.shape)
    short = described(image, x00280008={"vr": "IS", "Value": [3]})
    response = await gateway.post(tenant, body([short], frames[:2]), TYPE)
    assert (response.status_code, values(response.json(), FAILED, FAILURE_REASON)) == (409, [0xC000])


@pytest.mark.parametrize(
    ("media_type", "reason"),
    [
        ("image/jp2; transfer-syntax=1.2.840.10008.1.2.4.50", 0xC122),
        ("image/jp2; transfer-syntax=1.2.3.4", 0xC122),
        (f"{OCTETS}; transfer-syntax=1.2.840.10008.1.2.2", 0xC122),
        ("image/jpeg", 0xC122),
    ],
)
async def test_a_transfer_syntax_that_does_not_fit_is_refused(
    gateway: Gateway, tenant: str, media_type: str, reason: int
) -> None:
    image, (frame,) = jpeg_2000()
    response = await gateway.post(tenant, body([described(image)], [("pixels", media_type, frame)]), TYPE)
    assert response.status_code == 409
    assert values(response.json(), FAILED, FAILURE_REASON) == [reason]


@pytest.mark.parametrize(
    ("name", "syntax"),
    [
        ("SC_rgb_jpeg_dcmtk.dcm", "1.2.840.10008.1.2.4.50"),
        ("JPEG-lossy.dcm", "1.2.840.10008.1.2.4.51"),
        ("JPEG-LL.dcm", "1.2.840.10008.1.2.4.70"),
    ],
)
async def test_jpeg_is_taken_for_what_it_is(
    gateway: Gateway, tenant: str, objects: ObjectStore, name: str, syntax: str
) -> None:
    """Many send image/jpeg without saying which of its four transfer syntaxes it is."""
    image = pydicom.dcmread(str(get_testdata_file(name)))
    (frame,) = generate_frames(image.PixelData, number_of_frames=1)
    response = await gateway.post(tenant, body([described(image)], [("pixels", "image/jpeg", frame)]), TYPE)
    assert response.status_code == 200, response.text
    (file,) = (await kept(objects, tenant)).values()
    assert read_header(file).transfer_syntax == syntax


@pytest.mark.parametrize(
    ("metadata", "status", "words"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "no instance"),
        (b"\xff\xfe[]", 400, "not JSON"),
        (b"[" * 100_000, 400, "not JSON"),
        (b"[" + b"[]," * 200_000 + b"[]]", 413, "too much"),
        (b'["' + b"x" * (9 << 20) + b'"]', 413, "bytes at most"),
    ],
    ids=["broken", "empty", "UTF-16", "nested", "countless", "huge"],
)
async def test_metadata_that_can_not_be_taken(
    gateway: Gateway, tenant: str, metadata: bytes, status: int, words: str
) -> None:
    response = await gateway.post(tenant, body(metadata, [PIXELS]), TYPE)
    assert response.status_code == status, response.text
    assert words in response.json()["detail"]
    assert gateway.leftovers() == []
    assert (await gateway.post(tenant, body([model()], [PIXELS]), TYPE)).status_code == 200


async def test_bulk_data_without_metadata_and_metadata_without_bulk_data(gateway: Gateway, tenant: str) -> None:
    only_bulk = body([], [PIXELS]).replace(JSON.encode(), b"text/plain")
    assert (await gateway.post(tenant, only_bulk, TYPE)).status_code == 400
    report = model(x7FE00010=None)
    assert (await gateway.post(tenant, body(report), TYPE)).status_code == 200, "one object is as good as an array"


async def test_one_part_for_a_thousand_instances_does_not_fill_the_disk(gateway: Gateway, tenant: str) -> None:
    """A small request must not become a large one: what is made is bounded as what is sent."""
    big = bytes(20 << 20)
    models = [model(x7FE00010={"vr": "OB", "BulkDataURI": "big"}) for _ in range(6)]
    limited = gateway.settings.max_request
    object.__setattr__(gateway.settings, "max_request", 50 << 20)
    try:
        response = await gateway.post(tenant, body(models, [("big", OCTETS, big)]), TYPE)
    finally:
        object.__setattr__(gateway.settings, "max_request", limited)
    assert response.status_code == 202
    assert len(values(response.json(), STORED, UID)) == 2
    assert values(response.json(), FAILED, FAILURE_REASON) == [0xA700] * 4


async def test_the_model_that_pydicom_reads_from_a_file_comes_back_as_the_same_file(
    gateway: Gateway, tenant: str, objects: ObjectStore
) -> None:
    file = make_instance(pixels=4096)
    found = pydicom.dcmread(io.BytesIO(file))
    pixels = found.PixelData
    sent = described(found, x00080018={"vr": "UI", "Value": [found.SOPInstanceUID]})
    response = await gateway.post(tenant, body([sent], [("pixels", OCTETS, pixels)]), TYPE)
    assert response.status_code == 200
    (made,) = (await kept(objects, tenant)).values()
    assert pydicom.dcmread(io.BytesIO(made)) == found

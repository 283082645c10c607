"""Frames and bulk data: what a viewer draws and what metadata points to."""

import asyncio
from io import BytesIO
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.encaps import generate_frames
from pydicom.pixels.utils import pixel_array

from libs.dicom.frames import frame_count
from libs.dicom.identifiers import EXPLICIT_VR_LITTLE_ENDIAN, transfer_syntax
from tests.services.dicomweb.archive import Archive, sample
from tests.services.dicomweb.conftest import Sample, Service, named
from tests.services.dicomweb.parts import parts_of

OHIF = "multipart/related; type=application/octet-stream; transfer-syntax=*"


def with_frames(samples: list[Sample]) -> list[tuple[Sample, Any, int]]:
    """The samples with pixels, read by pydicom, and their number of frames."""
    found = []
    for one in samples:
        dataset = pydicom.dcmread(BytesIO(one.stored.data))
        if one.stored.header.frames is not None and "PixelData" in dataset:
            found.append((one, dataset, frame_count(one.stored.header.frames)))
    return found


@pytest.mark.filterwarnings("ignore")
async def test_frames_as_stored_are_those_that_pydicom_finds(service: Service, samples: list[Sample]) -> None:
    """A viewer that gets other bytes than the scanner made draws another picture."""
    compared = 0
    for one, dataset, count in with_frames(samples):
        syntax = one.stored.header.transfer_syntax
        numbers = ",".join(str(n) for n in range(1, count + 1))
        with service.http(one.tenant, Accept=OHIF) as http:
            response = await asyncio.to_thread(http.get, f"{one.stored.path}/frames/{numbers}")
        if response.status_code in (404, 406):
            assert not dataset.file_meta.TransferSyntaxUID.is_little_endian or "truncated" in one.name, one.name
            continue
        assert response.status_code == 200, (one.name, response.text)
        parts = parts_of(response)
        assert len(parts) == count, one.name
        if transfer_syntax(syntax).encapsulated:
            expected = list(generate_frames(dataset.PixelData, number_of_frames=count))
            assert all(kind == f"application/octet-stream; transfer-syntax={syntax}" for kind, _ in parts), one.name
            assert [body.rstrip(b"\0") for _, body in parts] == [f.rstrip(b"\0") for f in expected], one.name
        elif dataset.file_meta.TransferSyntaxUID.is_little_endian:
            assert b"".join(body for _, body in parts) == dataset.PixelData[: sum(len(b) for _, b in parts)], one.name
            assert all(kind.endswith(EXPLICIT_VR_LITTLE_ENDIAN) for kind, _ in parts), one.name
        compared += 1
    assert compared > 40


@pytest.mark.filterwarnings("ignore")
async def test_decoded_frames_are_those_that_pydicom_decodes(service: Service, samples: list[Sample]) -> None:
    """A viewer without a decoder must see the same pixels."""
    compared = 0
    for one, dataset, count in with_frames(samples):
        with service.http(one.tenant, Accept="application/octet-stream") as http:
            response = await asyncio.to_thread(http.get, f"{one.stored.path}/frames/{count}")
        try:
            expected = pixel_array(dataset, index=count - 1)
        except Exception:
            continue
        if not transfer_syntax(one.stored.header.transfer_syntax).encapsulated:
            continue  # native frames go out as they are stored
        assert response.status_code == 200, (one.name, response.text)
        found = np.frombuffer(response.content, expected.dtype.newbyteorder("<")).reshape(expected.shape)
        lossy = transfer_syntax(one.stored.header.transfer_syntax).lossy
        difference = np.abs(found.astype(np.int64) - expected.astype(np.int64))
        # Decoders of lossy JPEG may differ by rounding.
        assert difference.max() <= (3 if lossy else 0), (one.name, difference.max())
        compared += 1
    assert compared > 20


ELE = "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"
RLE = "image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5"
JLS = "image/jls; transfer-syntax=1.2.840.10008.1.2.4.80"
JP2 = "image/jp2; transfer-syntax=1.2.840.10008.1.2.4.90"
MICROSCOPY = ", ".join(
    (
        'multipart/related; type="image/jls"; transfer-syntax=1.2.840.10008.1.2.4.80',
        'multipart/related; type="image/jp2"; transfer-syntax=1.2.840.10008.1.2.4.90',
        'multipart/related; type="application/octet-stream"; transfer-syntax=*',
    )
)
"""A list without weights, JPEG-LS first: the stored syntax is what is wanted."""


@pytest.mark.parametrize(
    ("name", "accept", "content_type"),
    [
        ("CT_small.dcm", OHIF, ELE),
        ("CT_small.dcm", "*/*", ELE),
        ("CT_small.dcm", 'multipart/related; type="image/jls"', None),
        ("MR_small_bigendian.dcm", OHIF, ELE),
        ("MR_small_RLE.dcm", 'multipart/related; type="image/dicom-rle"', RLE),
        ("MR_small_jpeg_ls_lossless.dcm", "multipart/related; type=image/jls", JLS),
        (
            "MR_small_jp2klossless.dcm",
            'multipart/related; type="image/jp2"; transfer-syntax=1.2.840.10008.1.2.4.90',
            JP2,
        ),
        ("MR_small_jp2klossless.dcm", 'multipart/related; type="*/*"; transfer-syntax=*', JP2),
        ("MR_small_jp2klossless.dcm", MICROSCOPY, JP2),
        ("MR_small_jp2klossless.dcm", 'multipart/related; type="image/jphc"', None),
        ("MR_small_jp2klossless.dcm", "multipart/related; type=application/octet-stream", ELE),
        ("MR_small_jp2klossless.dcm", "application/json", None),
    ],
)
async def test_accept(
    service: Service, samples: list[Sample], name: str, accept: str, content_type: str | None
) -> None:
    """Each viewer asks in its own way; the media type must fit the bytes."""
    one = named(samples, name)
    with service.http(one.tenant, Accept=accept) as http:
        response = await asyncio.to_thread(http.get, f"{one.stored.path}/frames/1")
    assert response.status_code == (200 if content_type else 406), response.text
    if content_type:
        ((found, _),) = parts_of(response)
        assert found == content_type


@pytest.mark.parametrize(
    ("frames", "status"), [("2", 404), ("0", 400), ("1,x", 400), ("-1", 400), ("1,,2", 400), ("9" * 12, 400)]
)
async def test_frames_that_are_not_there(service: Service, samples: list[Sample], frames: str, status: int) -> None:
    """A wrong number is told, not answered with another frame."""
    one = named(samples, "CT_small.dcm")
    with service.http(one.tenant, Accept=OHIF) as http:
        response = await asyncio.to_thread(http.get, f"{one.stored.path}/frames/{frames}")
        assert response.status_code == status, response.text


async def test_no_frames_without_pixels(service: Service, tenant: str, archive: Archive) -> None:
    """A report has no frame 1."""
    (stored,) = await archive.store(tenant, [sample("reportsi.dcm")])
    with service.http(tenant, Accept=OHIF) as http:
        assert (await asyncio.to_thread(http.get, f"{stored.path}/frames/1")).status_code == 404


async def test_frames_in_the_order_asked_for(service: Service, tenant: str, archive: Archive) -> None:
    """A viewer matches parts to frames by their order."""
    (stored,) = await archive.store(tenant, [sample("rtdose.dcm")])
    with service.http(tenant, Accept=OHIF) as http:
        together = parts_of(await asyncio.to_thread(http.get, f"{stored.path}/frames/3,1,3"))
        alone = [parts_of(await asyncio.to_thread(http.get, f"{stored.path}/frames/{n}"))[0] for n in (3, 1, 3)]
    assert together == alone


async def test_bulk_data_of_every_sample(service: Service, samples: list[Sample]) -> None:
    """What metadata points to must be there: waveforms, palettes, documents."""
    asked = 0
    for one in samples:
        for path, (offset, length) in one.stored.header.bulk.items():
            encapsulated = path == "7FE00010" and transfer_syntax(one.stored.header.transfer_syntax).encapsulated
            if encapsulated or one.stored.header.transfer_syntax.endswith(".99"):
                continue
            with service.http(one.tenant, Accept="application/octet-stream") as http:
                response = await asyncio.to_thread(http.get, f"{one.stored.path}/bulkdata/{path}")
            assert response.content == one.stored.data[offset : offset + length], (one.name, path)
            asked += 1
    assert asked > 30


async def test_bulk_data_by_range_and_as_part(service: Service, tenant: str, archive: Archive) -> None:
    """Large values are fetched in pieces."""
    (stored,) = await archive.store(tenant, [sample("CT_small.dcm")])
    offset, length = stored.header.bulk["7FE00010"]
    value = stored.data[offset : offset + length]
    place = f"{stored.path}/bulkdata/7FE00010"
    with service.http(tenant) as http:
        piece = await asyncio.to_thread(lambda: http.get(place, headers={"Range": "bytes=10-19"}))
        assert (piece.status_code, piece.content) == (206, value[10:20])
        assert piece.headers["content-range"] == f"bytes 10-19/{length}"
        tail = await asyncio.to_thread(lambda: http.get(place, headers={"Range": "bytes=-5"}))
        assert (tail.status_code, tail.content) == (206, value[-5:])
        part = await asyncio.to_thread(
            lambda: http.get(place, headers={"Accept": 'multipart/related; type="application/octet-stream"'})
        )
        assert parts_of(part) == [("application/octet-stream", value)]
        assert (await asyncio.to_thread(http.get, f"{stored.path}/bulkdata/00100010")).status_code == 404
        assert (await asyncio.to_thread(http.get, f"{stored.path}/bulkdata/../../x")).status_code in (400, 404)

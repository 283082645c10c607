"""Retrieving gives back what was stored, byte for byte, or the same pixels in another transfer syntax."""

import asyncio
import hashlib
from io import BytesIO

import httpx
import numpy as np
import pydicom
import pytest
from pydicom.pixels.utils import pixel_array

from libs.dicom import read_header
from libs.dicom.identifiers import EXPLICIT_VR_LITTLE_ENDIAN
from tests.services.dicomweb.archive import UNDECODABLE, Archive, changed, sample
from tests.services.dicomweb.conftest import Sample, Service, named
from tests.services.dicomweb.parts import parts_of

AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'


async def test_every_instance_comes_back_byte_for_byte(service: Service, samples: list[Sample]) -> None:
    """Otherwise the archive is no archive."""
    assert len(samples) > 60
    for found in samples:
        with service.http(found.tenant) as http:
            response = await asyncio.to_thread(
                http.get, found.stored.path, headers={"Accept": "application/dicom; transfer-syntax=*"}
            )
        assert response.status_code == 200, (found.name, response.text)
        assert hashlib.sha256(response.content).hexdigest() == found.stored.sha256, found.name
        assert (
            response.headers["content-type"]
            == f"application/dicom; transfer-syntax={found.stored.header.transfer_syntax}"
        )
        assert response.headers["cache-control"] == "private, no-cache"


async def test_studies_and_series_come_back_byte_for_byte(service: Service, samples: list[Sample]) -> None:
    """A download of a study that left one out, or changed one, would be found out too late."""
    for tenant in {s.tenant for s in samples}:
        mine = [s.stored for s in samples if s.tenant == tenant]
        with service.http(tenant, Accept=AS_STORED) as http:
            for study in {s.header.study_uid for s in mine}:
                response = await asyncio.to_thread(http.get, f"/studies/{study}")
                expected = sorted(s.sha256 for s in mine if s.header.study_uid == study)
                assert sorted(hashlib.sha256(body).hexdigest() for _, body in parts_of(response)) == expected
            of = mine[0].header
            response = await asyncio.to_thread(http.get, f"/studies/{of.study_uid}/series/{of.series_uid}")
            expected = sorted(s.sha256 for s in mine if s.header.series_uid == of.series_uid)
            assert sorted(hashlib.sha256(body).hexdigest() for _, body in parts_of(response)) == expected


async def test_dicomweb_client_retrieves(service: Service, tenant: str, archive: Archive) -> None:
    """Integrators use clients that other people wrote."""
    stored = await archive.store(
        tenant, [sample("CT_small.dcm"), sample("MR_small.dcm"), sample("examples_jpeg2k.dcm")]
    )
    client = service.dicomweb(tenant)
    for one in stored:
        header = one.header
        uids = (header.study_uid, header.series_uid, header.sop_instance_uid)
        default = (("application/dicom", EXPLICIT_VR_LITTLE_ENDIAN),)
        dataset = await asyncio.to_thread(client.retrieve_instance, *uids, media_types=default)
        assert dataset.file_meta.TransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN
        assert np.array_equal(pixel_array(dataset), pixel_array(pydicom.dcmread(BytesIO(one.data))))
        as_stored = (("application/dicom", header.transfer_syntax),)
        (again,) = await asyncio.to_thread(client.retrieve_series, *uids[:2], media_types=as_stored)
        assert again.file_meta.TransferSyntaxUID == header.transfer_syntax
        assert len(await asyncio.to_thread(client.retrieve_study, uids[0])) == 1


@pytest.mark.filterwarnings("ignore")
async def test_explicit_little_endian_is_the_default(service: Service, samples: list[Sample]) -> None:
    """A client that can't decompress asks for nothing special, and must be able to read what it gets."""
    for found in samples:
        stored = found.stored
        with service.http(found.tenant, Accept="application/dicom") as http:
            response = await asyncio.to_thread(http.get, stored.path)
        if stored.header.transfer_syntax == EXPLICIT_VR_LITTLE_ENDIAN:
            assert hashlib.sha256(response.content).hexdigest() == stored.sha256, found.name
            continue
        if response.status_code == 406:
            assert found.name in UNDECODABLE, (found.name, response.text)
            continue
        assert response.status_code == 200, (found.name, response.text)
        dataset = pydicom.dcmread(BytesIO(response.content))
        assert dataset.file_meta.TransferSyntaxUID == EXPLICIT_VR_LITTLE_ENDIAN, found.name
        assert dataset.SOPInstanceUID == stored.header.sop_instance_uid


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("*/*", 200),
        ("application/dicom", 200),
        ("multipart/related; type=application/dicom", 200),
        ('multipart/related; type="application/dicom"; transfer-syntax="1.2.840.10008.1.2.4.90"', 200),
        ("multipart/related;type=application/dicom;transfer-syntax=1.2.840.10008.1.2.1", 200),
        ("image/png;q=0.9, application/dicom", 400),
        ("application/dicom; transfer-syntax=1.2.840.10008.1.2.4.50", 406),
        ("application/dicom; transfer-syntax=1.2.840.10008.1.2", 406),
        ("image/jpeg", 406),
        ("application/pdf", 406),
        ("application/dicom;q=0", 406),
        ("application/dicom;q=2", 400),
        ("rubbish", 400),
        ('multipart/related; type="application/dicom', 400),
        ("a/b," * 5000, 400),
    ],
)
async def test_accept(service: Service, samples: list[Sample], accept: str, status: int) -> None:
    """What can't be given is refused in words, and nothing else is given in its place."""
    one = named(samples, "examples_jpeg2k.dcm")
    with service.http(one.tenant, Accept=accept) as http:
        response = await asyncio.to_thread(http.get, one.stored.path)
        assert response.status_code == status, response.text
        if status != 200:
            assert response.headers["content-type"] == "application/problem+json"
            assert response.json()["detail"]


async def test_accept_as_query_parameter_goes_first(service: Service, tenant: str, archive: Archive) -> None:
    """A link in a page can't set a header."""
    (stored,) = await archive.store(tenant, [sample("examples_jpeg2k.dcm")])
    with service.http(tenant, Accept="multipart/related; type=application/dicom") as http:
        asked = {"accept": "application/dicom; transfer-syntax=*"}
        response = await asyncio.to_thread(lambda: http.get(stored.path, params=asked))
        assert response.content == stored.data
        # Nothing of the parameter can be given: the header decides.
        response = await asyncio.to_thread(lambda: http.get(stored.path, params={"accept": "application/pdf"}))
        assert response.headers["content-type"].startswith("multipart/related")


async def test_a_single_part_is_for_a_single_instance(service: Service, tenant: str, archive: Archive) -> None:
    """A study has no one file, even when it has one instance now."""
    (stored,) = await archive.store(tenant, [sample("CT_small.dcm")])
    with service.http(tenant, Accept="application/dicom") as http:
        response = await asyncio.to_thread(http.get, f"/studies/{stored.header.study_uid}")
        assert response.status_code == 406


async def test_unchanged_is_not_sent_again(service: Service, tenant: str, archive: Archive) -> None:
    """A browser that has it already should not load it again."""
    (stored,) = await archive.store(tenant, [sample("CT_small.dcm")])
    with service.http(tenant, Accept="application/dicom") as http:
        first = await asyncio.to_thread(http.get, stored.path)
        again = await asyncio.to_thread(lambda: http.get(stored.path, headers={"If-None-Match": first.headers["etag"]}))
        assert again.status_code == 304
        assert again.content == b""


async def test_a_long_series_is_streamed_whole(service: Service, tenant: str, archive: Archive) -> None:
    """A series of many packs and many instances arrives whole and in any number of pieces."""
    one = sample("MR_small.dcm")
    uid = str(read_header(one).sop_instance_uid).encode()
    files = [one.replace(uid, uid[:-4] + b"%04d" % n) for n in range(1000, 2050)]
    stored = [s for start in range(0, 1050, 525) for s in await archive.store(tenant, files[start : start + 525])]
    header = stored[0].header
    with service.http(tenant, Accept=AS_STORED) as http:
        response = await asyncio.to_thread(http.get, f"/studies/{header.study_uid}/series/{header.series_uid}")
        found = [hashlib.sha256(body).hexdigest() for _, body in parts_of(response)]
    assert sorted(found) == sorted(s.sha256 for s in stored)


async def test_damage_is_never_served(service: Service, tenant: str, archive: Archive) -> None:
    """Wrong bytes in an archive are worse than none: the reader must see that something is wrong."""
    files = [changed("CT_small.dcm", SOPInstanceUID=f"1.2.3.{n}") for n in (1, 2)]
    stored = await archive.store(tenant, files)
    pack = bytearray(await archive.objects.get(tenant, stored[0].pack))
    pack[stored[1].offset + 5000] ^= 1
    await archive.objects.put(tenant, stored[0].pack, bytes(pack))
    with service.http(tenant, Accept="application/dicom; transfer-syntax=*") as http:
        response = await asyncio.to_thread(http.get, stored[1].path)
        assert response.status_code == 500
        assert response.json()["title"] == "The stored data is damaged"
        assert (await asyncio.to_thread(http.get, stored[0].path)).content == stored[0].data
        study = f"/studies/{stored[0].header.study_uid}"
        with pytest.raises(httpx.RemoteProtocolError):
            await asyncio.to_thread(lambda: http.get(study, headers={"Accept": AS_STORED}))

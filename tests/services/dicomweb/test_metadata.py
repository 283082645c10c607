"""Metadata: all attributes, prepared or not, compressed or not."""

import asyncio
import json

from libs.dicom import read_header
from tests.services.dicomweb.archive import Archive, changed, sample
from tests.services.dicomweb.conftest import Sample, Service

JSON = "application/dicom+json"


async def test_metadata_has_every_attribute(service: Service, samples: list[Sample]) -> None:
    """What metadata leaves out, a viewer never learns."""
    for one in samples:
        with service.http(one.tenant, Accept=JSON) as http:
            response = await asyncio.to_thread(http.get, f"{one.stored.path}/metadata")
        assert response.status_code == 200, (one.name, response.text)
        (found,) = response.json()
        assert found.keys() == one.stored.header.dicom.keys(), one.name
        assert found["00080018"] == one.stored.header.dicom["00080018"]
        place = f"/dicom-web{one.stored.path}/bulkdata/"
        uris = [value["BulkDataURI"] for value in found.values() if "BulkDataURI" in value]
        assert all(uri.startswith(place) for uri in uris), one.name


async def test_bulk_data_uris_lead_somewhere(service: Service, samples: list[Sample]) -> None:
    """A link that leads nowhere is an error in the middle of reading."""
    one = next(s for s in samples if s.name == "examples_palette.dcm")
    with service.http(one.tenant) as http:
        (found,) = (await asyncio.to_thread(http.get, f"{one.stored.path}/metadata")).json()
        uris = [value["BulkDataURI"] for value in found.values() if "BulkDataURI" in value]
        assert uris
        for uri in uris:
            assert (await asyncio.to_thread(http.get, service.url + uri)).status_code == 200, uri


async def test_levels_and_encodings(service: Service, tenant: str, archive: Archive) -> None:
    """A study's metadata is that of its series, whether the caller can inflate it or not."""
    files = [
        changed(
            "CT_small.dcm",
            StudyInstanceUID="1.2",
            SeriesInstanceUID=f"1.2.{s}",
            SOPInstanceUID=f"1.2.{s}.{n}",
            InstanceNumber=n,
        )
        for s in (1, 2, 3)
        for n in (2, 1)
    ]
    await archive.store(tenant, files)
    with service.http(tenant, Accept=JSON) as client:
        for encoding in ("gzip", "identity", "br", "gzip;q=0", "*"):
            client.headers["Accept-Encoding"] = encoding
            study = await asyncio.to_thread(client.get, "/studies/1.2/metadata")
            assert ("content-encoding" in study.headers) == (encoding in ("gzip", "*"))
            uids = [instance["00080018"]["Value"][0] for instance in study.json()]
            assert uids == ["1.2.1.1", "1.2.1.2", "1.2.2.1", "1.2.2.2", "1.2.3.1", "1.2.3.2"]
            series = await asyncio.to_thread(client.get, "/studies/1.2/series/1.2.2/metadata")
            assert series.json() == study.json()[2:4]
            assert series.headers["content-type"] == JSON
        one = await asyncio.to_thread(client.get, "/studies/1.2/series/1.2.2/instances/1.2.2.1/metadata")
        assert one.json() == series.json()[:1]


async def test_etag_changes_with_the_series(service: Service, tenant: str, archive: Archive) -> None:
    """A viewer that is told "not modified" must not miss a late image."""
    files = [changed("CT_small.dcm", SOPInstanceUID=f"1.2.3.{n}", InstanceNumber=n) for n in (1, 2)]
    (stored,) = await archive.store(tenant, files[:1])
    place = f"/studies/{stored.header.study_uid}/series/{stored.header.series_uid}/metadata"
    with service.http(tenant, Accept=JSON) as http:
        first = await asyncio.to_thread(http.get, place)
        known = {"If-None-Match": first.headers["etag"]}
        assert (await asyncio.to_thread(lambda: http.get(place, headers=known))).status_code == 304
        await archive.store(tenant, files[1:], documents=False)
        again = await asyncio.to_thread(lambda: http.get(place, headers=known))
        assert again.status_code == 200
        assert len(again.json()) == 2


async def test_metadata_before_the_document_is_there(service: Service, tenant: str, archive: Archive) -> None:
    """Prepared or built on the spot, it is the same."""
    (stored,) = await archive.store(tenant, [sample("MR_small.dcm")], documents=False)
    with service.http(tenant, Accept=JSON) as http:
        response = await asyncio.to_thread(http.get, f"/studies/{stored.header.study_uid}/metadata")
        assert response.json()[0].keys() == read_header(stored.data).dicom.keys()


async def test_numbers_are_numbers(service: Service, tenant: str, archive: Archive) -> None:
    """OHIF sorts slices by them."""
    (stored,) = await archive.store(tenant, [sample("CT_small.dcm")])
    with service.http(tenant, Accept="*/*") as http:
        response = await asyncio.to_thread(http.get, f"{stored.path}/metadata")
    (found,) = json.loads(response.content)
    assert found["00200032"]["Value"] == [-158.135803, -179.035797, -75.699997]
    assert found["00200013"]["Value"] == [1]
    assert found["00100010"]["Value"] == [{"Alphabetic": "CompressedSamples^CT1"}]

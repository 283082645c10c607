"""Searching finds what is there, all of it, and nothing else."""

import asyncio
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.services.dicomweb.archive import Archive, changed, sample
from tests.services.dicomweb.conftest import Service
from tests.support.backing import Backing, new_tenant_id

OHIF_FIELDS = "00081030,00080060"


async def get(http: httpx.Client, path: str, **params: Any) -> httpx.Response:
    return await asyncio.to_thread(lambda: http.get(path, params=params))


async def found(http: httpx.Client, path: str, tag: str, **params: Any) -> list[Any]:
    """The values of an attribute in the results."""
    response = await get(http, path, **params)
    assert response.status_code in (200, 204), response.text
    results = response.json() if response.status_code == 200 else []
    return [result[tag]["Value"][0] for result in results]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def studies(backing: Backing, archive: Archive) -> str:
    """A tenant with five studies: 1 to 4 of different patients and days, 5 without a date."""
    tenant = await asyncio.to_thread(backing.create_tenant, new_tenant_id())
    people = [
        ("Head^Anna", "A-1", "20240101", "080000", "MR"),
        ("head^Bert", "B-1", "20240102", "120000", "CT"),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "Y_1", "20240103", "180000", "CT"),
        ("Percent%^Sign_", "P%1", "20240104", "235959", "US"),
        ("Undated^Ulf", "U1", "", "", "MR"),
    ]
    for n, (name, patient, day, at, modality) in enumerate(people, 1):
        values: dict[str, Any] = {
            "PatientName": name,
            "PatientID": patient,
            "StudyDate": day,
            "StudyTime": at,
            "Modality": modality,
            "SpecificCharacterSet": "ISO_IR 192",
            "AccessionNumber": f"ACC{n}",
            "StudyDescription": f"Study No {n}",
            "ReferringPhysicianName": f"Doctor^No{n}",
        }
        for series in (1, 2):
            uids = {
                "StudyInstanceUID": f"1.2.{n}",
                "SeriesInstanceUID": f"1.2.{n}.{series}",
                "SOPInstanceUID": f"1.2.{n}.{series}.1",
                "SeriesNumber": series,
                "InstanceNumber": 1,
                "SeriesDescription": f"Series {series}",
            }
            await archive.store(tenant, [changed("CT_small.dcm", **values, **uids)])
    return tenant


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, "43215"),
        ({"PatientName": "*Head*"}, "21"),
        ({"PatientName": "HEAD^A*"}, "1"),
        ({"PatientName": "Head^Anna"}, "1"),
        ({"PatientName": "Head"}, ""),
        ({"PatientName": "head^?ert"}, "2"),
        ({"PatientName": "山田*"}, "3"),
        ({"PatientName": "*太郎"}, "3"),
        ({"PatientName": "やまだ^たろう"}, "3"),
        ({"PatientName": "Yamada*郎"}, ""),  # a wildcard doesn't reach into the next group
        ({"PatientName": "*%*"}, "4"),
        ({"PatientName": "*_*"}, "4"),
        ({"PatientName": "Percent%^Sign_"}, "4"),
        ({"PatientName": "*(*"}, ""),
        ({"PatientName": "\\*"}, ""),
        ({"PatientName": "*"}, "43215"),
        ({"PatientName": ""}, "43215"),
        ({"00100010": "*anna*"}, "1"),
        ({"PatientID": "A-1"}, "1"),
        ({"PatientID": "a-1"}, ""),  # the case counts, except in names
        ({"PatientID": "?-1"}, "21"),
        ({"PatientID": "Y_1"}, "3"),
        ({"PatientID": "_-1"}, ""),
        ({"PatientID": "%"}, ""),
        ({"00100020": "P%*"}, "4"),
        ({"AccessionNumber": "ACC2"}, "2"),
        ({"StudyDescription": "*No 3"}, "3"),
        ({"ReferringPhysicianName": "doctor^no4"}, "4"),
        ({"StudyInstanceUID": "1.2.1,1.2.3"}, "31"),
        ({"StudyInstanceUID": "1.2.1\\1.2.3"}, "31"),
        ({"StudyInstanceUID": ["1.2.1", "1.2.2"]}, "21"),
        ({"StudyDate": "20240102"}, "2"),
        ({"StudyDate": "20240102-20240103"}, "32"),
        ({"StudyDate": "20240103-"}, "43"),
        ({"StudyDate": "-20240102"}, "21"),
        ({"StudyTime": "12"}, "2"),
        ({"StudyTime": "1200-1800"}, "32"),
        ({"StudyDate": "20240101-20240103", "StudyTime": "100000-130000"}, "2"),  # one range of moments
        ({"StudyDate": "20240102-20240103", "StudyTime": "120000-110000"}, "2"),
        ({"ModalitiesInStudy": "CT"}, "32"),
        ({"ModalitiesInStudy": "CT,US"}, "432"),
        ({"ModalitiesInStudy": "CT\\US"}, "432"),
        ({"Modality": "MR"}, "15"),
        ({"00080060": "MR"}, "15"),
        ({"ModalitiesInStudy": "C*"}, "32"),
        ({"ModalitiesInStudy": "CT", "PatientName": "*Head*"}, "2"),
        ({"PatientSex": "O", "PatientBirthDate": "19000101-"}, ""),
        ({"limit": 2}, "43"),
        ({"limit": 2, "offset": 2}, "21"),
        ({"offset": 4}, "5"),
        ({"offset": 5}, ""),
        ({"limit": 0}, ""),
        ({"StudyInstanceUID": "1.2.99"}, ""),
    ],
)
async def test_studies(service: Service, studies: str, params: dict[str, Any], expected: str) -> None:
    """A filter that finds too little hides a study, one that finds too much shows another patient's."""
    with service.http(studies) as http:
        assert "".join(uid[-1] for uid in await found(http, "/studies", "0020000D", **params)) == expected


@pytest.mark.parametrize(
    "params",
    [
        {"StudyDate": "2024-01-01"},
        {"StudyDate": "20241301"},
        {"StudyDate": "abc"},
        {"StudyTime": "25"},
        {"StudyInstanceUID": "1.2.x"},
        {"StudyInstanceUID": "../../etc"},
        {"limit": "-1"},
        {"limit": "ten"},
        {"offset": "1.5"},
        {"fuzzymatching": "perhaps"},
        {"NoSuchAttribute": "1"},
        {"0010001": "1"},
        {"includefield": "NoSuchAttribute"},
        {"PatientID": ["a", "b"]},
        {"PatientName": "x" * 2000},
        {"00400275." * 9 + "00400009": "x"},
    ],
)
async def test_what_is_malformed_is_refused(service: Service, studies: str, params: dict[str, Any]) -> None:
    """A search that was misunderstood must not look like one that found nothing."""
    with service.http(studies) as http:
        response = await get(http, "/studies", **params)
        assert response.status_code == 400, response.text
        assert response.headers["content-type"] == "application/problem+json"
        assert response.headers["cache-control"] == "private, no-cache"


async def test_nul_and_injection_find_nothing(service: Service, studies: str) -> None:
    """Text is text, whatever is in it."""
    with service.http(studies) as http:
        for text in ("\0", "'; DROP TABLE studies; --", "a\0b", "$$", "%", "(((", "[", "\\"):
            for name in ("PatientName", "PatientID", "ReferringPhysicianName", "ModalitiesInStudy"):
                response = await get(http, "/studies", **{name: text})
                assert response.status_code in (200, 204), (name, text, response.text)
                if text != "\\":
                    assert response.status_code == 204 or text == "%", (name, text)


async def test_what_a_study_says(service: Service, studies: str) -> None:
    """A worklist shows these without asking again (PS3.18 table 10.6.3-3)."""
    with service.http(studies) as http:
        response = await get(http, "/studies", StudyInstanceUID="1.2.3")
        assert response.headers["content-type"] == "application/dicom+json"
        (study,) = response.json()
    assert list(study) == sorted(study)
    assert study["00080020"] == {"vr": "DA", "Value": ["20240103"]}
    assert study["00080061"] == {"vr": "CS", "Value": ["CT"]}
    assert study["00080056"] == {"vr": "CS", "Value": ["ONLINE"]}
    assert study["00081190"] == {"vr": "UR", "Value": ["https://pacs.example/dicom-web/studies/1.2.3"]}
    assert study["00201206"] == {"vr": "IS", "Value": [2]}
    assert study["00201208"] == {"vr": "IS", "Value": [2]}
    assert study["00100010"]["Value"] == [
        {"Alphabetic": "Yamada^Tarou", "Ideographic": "山田^太郎", "Phonetic": "やまだ^たろう"}
    ]
    assert study["00100020"]["Value"] == ["Y_1"]


async def test_warnings(service: Service, studies: str) -> None:
    """What was asked for and not done is said."""
    with service.http(studies) as http:
        response = await get(http, "/studies", fuzzymatching="true", limit="2", BodyPartExamined="HEAD")
        warnings = response.headers.get_list("warning")
    base = "299 https://pacs.example/dicom-web: "
    assert base + "The fuzzymatching parameter is not supported. Only literal matching has been performed." in warnings
    assert base + "There are 3 additional results that can be requested." in warnings
    assert any("00180015" in warning for warning in warnings)


async def test_ohif_finds_a_study(service: Service, studies: str) -> None:
    """These are the requests that the viewer makes when it opens a study."""
    with service.http(studies, Accept="application/dicom+json") as http:
        params = {"limit": 101, "offset": 0, "fuzzymatching": "true", "includefield": OHIF_FIELDS}
        assert await found(http, "/studies", "0020000D", **params, StudyInstanceUID="1.2.1") == ["1.2.1"]
        series = (await get(http, "/studies/1.2.1/series", includefield="00080021,00080031,0008103E,00200011")).json()
        assert [s["00200011"]["Value"][0] for s in series] == [1, 2]
        assert [s["0008103E"]["Value"][0] for s in series] == ["Series 1", "Series 2"]
        assert series[0]["00080060"]["Value"] == ["MR"]
        assert series[0]["00201209"]["Value"] == [1]
        assert await found(http, "/studies", "0020000D", **{"00100020": "A-1", "limit": 101}) == ["1.2.1"]


async def test_series_and_instances(service: Service, studies: str) -> None:
    """Both are found within a study, within a series and over all studies."""
    with service.http(studies) as http:
        assert await found(http, "/studies/1.2.1/series", "0020000E", SeriesNumber=2) == ["1.2.1.2"]
        assert await found(http, "/studies/1.2.1/series", "0020000E", SeriesInstanceUID="1.2.1.1") == ["1.2.1.1"]
        assert await found(http, "/studies/1.2.1/series", "0020000E", SeriesDescription="*1") == ["1.2.1.1"]
        assert await found(http, "/studies/1.2.1/series", "0020000E", Modality="CT") == []
        assert await found(http, "/studies/1.2.1/series", "0020000E", StudyInstanceUID="1.2.2") == []
        assert await found(http, "/series", "0020000E", Modality="US") == ["1.2.4.1", "1.2.4.2"]
        assert await found(http, "/series", "00100020", Modality="US") == ["P%1", "P%1"]
        assert await found(http, "/studies/1.2.1/instances", "00080018") == ["1.2.1.1.1", "1.2.1.2.1"]
        assert await found(http, "/studies/1.2.1/series/1.2.1.2/instances", "00080018") == ["1.2.1.2.1"]
        assert await found(http, "/studies/1.2.2/series/1.2.1.2/instances", "00080018") == []
        assert await found(http, "/instances", "00080018", SOPInstanceUID="1.2.3.1.1") == ["1.2.3.1.1"]
        assert await found(http, "/instances", "00080018", InstanceNumber=2) == []
        ct = "1.2.840.10008.5.1.4.1.1.2"
        assert len(await found(http, "/instances", "00080018", SOPClassUID=ct)) == 10
        assert len(await found(http, "/instances", "00080018", ModalitiesInStudy="CT")) == 4
        (instance,) = (await get(http, "/instances", SOPInstanceUID="1.2.3.1.1")).json()
        assert instance["00280010"]["Value"] == [128]
        assert instance["00200013"]["Value"] == [1]
        assert instance["00081190"]["Value"] == [
            "https://pacs.example/dicom-web/studies/1.2.3/series/1.2.3.1/instances/1.2.3.1.1"
        ]
        assert "00080020" in instance
        (instance,) = (await get(http, "/studies/1.2.3/series/1.2.3.1/instances", includefield="all")).json()
        assert instance["00180050"]["Value"] == [5.0]


async def test_accept(service: Service, studies: str) -> None:
    """Only JSON is given; who wants XML is told so."""
    with service.http(studies, Accept='multipart/related; type="application/dicom+xml"') as http:
        assert (await get(http, "/studies")).status_code == 406
    with service.http(studies, Accept="application/json") as http:
        assert (await get(http, "/studies")).headers["content-type"] == "application/json"


async def test_dicomweb_client_searches(service: Service, studies: str) -> None:
    """Integrators use clients that other people wrote."""
    client = service.dicomweb(studies)
    names = await asyncio.to_thread(client.search_for_studies, search_filters={"PatientName": "*Head*"}, limit=10)
    assert len(names) == 2
    assert len(await asyncio.to_thread(client.search_for_studies, offset=100)) == 0
    assert len(await asyncio.to_thread(client.search_for_studies, get_remaining=True, limit=2)) == 5
    assert len(await asyncio.to_thread(client.search_for_series, "1.2.1", fields=["SeriesDescription"])) == 2
    assert len(await asyncio.to_thread(client.search_for_instances, "1.2.1")) == 2


async def test_an_empty_archive(service: Service, tenant: str) -> None:
    """Nothing is nothing, and no error."""
    with service.http(tenant) as http:
        for path in ("/studies", "/series", "/instances", "/studies/1.2.3/series", "/studies/1.2.3/instances"):
            response = await get(http, path)
            assert (response.status_code, response.content) == (204, b"")


async def test_before_the_document_is_prepared(service: Service, tenant: str, archive: Archive) -> None:
    """A viewer may ask a moment after the images have come."""
    (stored,) = await archive.store(tenant, [sample("CT_small.dcm")], documents=False)
    with service.http(tenant) as http:
        (instance,) = (await get(http, f"/studies/{stored.header.study_uid}/instances")).json()
        assert instance["00280010"]["Value"] == [128]

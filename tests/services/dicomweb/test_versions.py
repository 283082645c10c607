"""What a duplicate has not replaced can still be had, and whoever checks quality sees where there are two."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from libs.packs import Rule
from services.indexing.consumers import handle_events
from services.indexing.resources import Resources as Indexing
from services.indexing.resources import open_resources
from services.indexing.settings import Settings as IndexingSettings
from tests.services.dicomweb.conftest import NOBODY, Service
from tests.services.indexing.packing import Pack, part10, store_pack
from tests.support.backing import Backing

STUDY, SERIES, UID = "1.2", "1.2.1", "1.2.1.1"
PLACE = f"/studies/{STUDY}/series/{SERIES}/instances/{UID}"


@pytest.fixture
async def indexing(backing: Backing) -> AsyncIterator[Indexing]:
    settings = IndexingSettings(
        database_url=backing.database_url("indexing"),
        s3_endpoint=backing.s3_endpoint,
        s3_access_key=backing.s3_access_key,
        s3_secret_key=backing.s3_secret_key,
    )
    async with open_resources(settings) as resources:
        yield resources


async def store(indexing: Indexing, tenant: str, name: str, minute: int, rule: Rule, **attributes: Any) -> bytes:
    """Stores and indexes an instance with this patient's name; its bytes."""
    values = {"PatientName": name, **attributes}
    pack = Pack(STUDY, SERIES, {UID: values}, minute, rule=rule)
    await handle_events(indexing, [await store_pack(indexing.objects, tenant, pack)])
    return part10(STUDY, SERIES, UID, **values)


async def get(client: httpx.Client, path: str, **query: Any) -> httpx.Response:
    return await asyncio.to_thread(client.get, path, params=query)


async def test_each_version_is_listed_and_retrieved_byte_for_byte(
    service: Service, indexing: Indexing, tenant: str
) -> None:
    """A physician who doubts a corrected image can look at what was there before."""
    files = [
        await store(indexing, tenant, "A", 0, "keep-first"),
        await store(indexing, tenant, "B", 1, "keep-latest"),
        await store(indexing, tenant, "C", 2, "keep-first"),
    ]
    with service.http(tenant) as client:
        listed = (await get(client, f"{PLACE}/versions")).json()["versions"]
        assert [version["shown"] for version in listed] == [False, True, False]
        assert [version["size"] for version in listed] == [len(file) for file in files]
        for version, file in zip(listed, files, strict=True):
            answer = await get(client, f"{PLACE}/versions/{version['sha256']}")
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "application/dicom"
            assert answer.content == file
        shown = await get(client, PLACE, accept="application/dicom; transfer-syntax=*")
        assert shown.content == files[1]
        missing = await get(client, f"{PLACE}/versions/{'0' * 64}")
        elsewhere = await get(client, f"/studies/9.9/series/9.9.1/instances/{UID}/versions")
        assert (missing.status_code, elsewhere.status_code) == (404, 404)
        duplicates = (await get(client, "../api/quality/duplicates")).json()
    assert {d["sha256"] for d in duplicates["duplicates"]} == {v["sha256"] for v in listed if not v["shown"]}
    assert {d["shown"] for d in duplicates["duplicates"]} == {v["sha256"] for v in listed if v["shown"]}


async def test_lists_of_quality_come_in_pages_and_by_study(service: Service, indexing: Indexing, tenant: str) -> None:
    """Whoever works through them sees each once."""
    for minute, name in enumerate("ABCD"):
        await store(indexing, tenant, name, minute, "keep-first", Rows=3)
    with service.http(tenant) as client:
        seen: list[str] = []
        after: str | None = ""
        while after is not None:
            page = (await get(client, "../api/quality/duplicates", limit=2, after=after)).json()
            seen += [duplicate["sha256"] for duplicate in page["duplicates"]]
            after = page["next"]
        assert len(seen) == len(set(seen)) == 3
        assert (await get(client, "../api/quality/duplicates", study="9.9")).json()["duplicates"] == []
        assert len((await get(client, "../api/quality/duplicates", study=STUDY)).json()["duplicates"]) == 3
        (odd,) = (await get(client, "../api/quality/warnings", study=STUDY)).json()["instances"]
        assert odd["sop_uid"] == UID
        assert odd["warnings"], "what was odd is said in words"
        assert (await get(client, "../api/quality/warnings", after=UID)).json()["instances"] == []


async def test_another_clinic_learns_nothing(
    service: Service, indexing: Indexing, tenant_pair: tuple[str, str]
) -> None:
    tenant, other = tenant_pair
    await store(indexing, tenant, "A", 0, "keep-first", Rows=3)
    await store(indexing, tenant, "B", 1, "keep-first")
    with service.http(tenant) as client:
        hashes = [version["sha256"] for version in (await get(client, f"{PLACE}/versions")).json()["versions"]]
    for stranger in (other, NOBODY):
        with service.http(stranger) as client:
            for sha256 in hashes:
                assert (await get(client, f"{PLACE}/versions/{sha256}")).status_code == 404
            assert (await get(client, f"{PLACE}/versions")).status_code == 404
            assert (await get(client, "../api/quality/duplicates")).json() == {"duplicates": [], "next": None}
            assert (await get(client, "../api/quality/warnings")).json() == {"instances": [], "next": None}
    await store(indexing, other, "A", 0, "keep-first")
    with service.http(other) as client:
        listed = (await get(client, f"{PLACE}/versions")).json()["versions"]
        assert len(listed) == 1, "the same UID of one's own is one's own alone"

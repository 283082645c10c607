"""Who may see what, and what is recorded of it."""

import asyncio
import json
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.services.dicomweb.archive import Archive, Stored, changed
from tests.services.dicomweb.conftest import NOBODY, READ, Service
from tests.support.backing import Backing, new_tenant_id

OHIF = "multipart/related; type=application/octet-stream; transfer-syntax=*"
UIDS = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}
LEVELS = ("/studies/1.2.3", "/studies/1.2.3/series/1.2.3.4", "/studies/1.2.3/series/1.2.3.4/instances/1.2.3.4.5")
RETRIEVE = (
    *LEVELS,
    *(f"{level}/{what}" for level in LEVELS for what in ("metadata", "rendered", "thumbnail")),
    f"{LEVELS[2]}/frames/1",
    f"{LEVELS[2]}/frames/1/rendered",
    f"{LEVELS[2]}/frames/1/thumbnail",
    f"{LEVELS[2]}/bulkdata/7FE00010",
    f"{LEVELS[2]}/versions",
)
SEARCH = (
    "/studies",
    "/series",
    "/instances",
    "/studies/1.2.3/series",
    "/studies/1.2.3/instances",
    "/studies/1.2.3/series/1.2.3.4/instances",
)
MALFORMED = ("1.2.x", "..%2F..%2Fetc", "1..2", "1" * 65, "1.2;$()", "%00", "%F0%9F%92%A9", "1.2%0A")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def colliding(backing: Backing, archive: Archive) -> dict[str, Stored]:
    """Two tenants that hold different pictures under the same UIDs."""
    found = {}
    for name in ("Mine^Mona", "Theirs^Theo"):
        tenant = await asyncio.to_thread(backing.create_tenant, new_tenant_id())
        (found[tenant],) = await archive.store(tenant, [changed("CT_small.dcm", **UIDS, PatientName=name)])
    return found


@pytest.mark.parametrize("path", [*RETRIEVE, *SEARCH])
async def test_everybody_sees_their_own(service: Service, colliding: dict[str, Stored], path: str) -> None:
    """The same UIDs in two tenants are two studies: each gets its own bytes, and nothing of the other."""
    answers = []
    for tenant, stored in colliding.items():
        with service.http(tenant) as http:
            response = await asyncio.to_thread(http.get, path)
        assert response.status_code == 200, response.text
        other = next(s for t, s in colliding.items() if t != tenant)
        name = str(stored.header.dicom["00100010"]["Value"][0]["Alphabetic"]).encode()
        foreign = str(other.header.dicom["00100010"]["Value"][0]["Alphabetic"]).encode()
        assert foreign not in response.content
        if path in LEVELS or path.endswith("metadata") or path in SEARCH[:3]:
            assert name in response.content
        answers.append(response.content)
    assert len(answers) == 2


@pytest.mark.parametrize("path", RETRIEVE)
async def test_what_is_not_mine_is_not_there(service: Service, colliding: dict[str, Stored], path: str) -> None:
    """Another tenant's study answers exactly as one that nobody has."""
    with service.http(NOBODY) as http:
        theirs = await asyncio.to_thread(http.get, path)
        nobodys = await asyncio.to_thread(http.get, path.replace("1.2.3", "9.9.9"))
        for search in SEARCH:
            assert (await asyncio.to_thread(http.get, search)).status_code == 204
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.content == nobodys.content
    ours = ("date", "x-request-id")
    assert {k: v for k, v in theirs.headers.items() if k not in ours} == {
        k: v for k, v in nobodys.headers.items() if k not in ours
    }


@pytest.mark.parametrize("path", [*RETRIEVE, *SEARCH])
async def test_nobody_gets_in_without_a_token(service: Service, path: str) -> None:
    """Every door is locked, and a key for something else does not fit."""
    with httpx.Client(base_url=f"{service.url}/dicom-web", trust_env=False, verify=False) as http:
        assert (await asyncio.to_thread(http.get, path)).status_code == 401
        headers = service.tokens.header_for(NOBODY, ("dicom:write", "audit:read"))
        assert (await asyncio.to_thread(lambda: http.get(path, headers=headers))).status_code == 403
        headers = service.tokens.header_for(NOBODY, READ, lifetime=-60)
        assert (await asyncio.to_thread(lambda: http.get(path, headers=headers))).status_code == 401


@pytest.mark.parametrize("uid", MALFORMED)
async def test_malformed_uids(service: Service, uid: str) -> None:
    """What is no UID never becomes part of a key or a query."""
    with service.http(NOBODY) as http:
        for form in ("/studies/{}", "/studies/{}/series", "/studies/{}/metadata", "/studies/1.2/series/{}"):
            path = form.format(uid)
            response = await asyncio.to_thread(http.get, path)
            assert response.status_code in (400, 404), (path, response.text)
            if "%2F" not in uid:
                assert response.status_code == 400, (path, response.text)


def spooled(service: Service) -> list[dict[str, Any]]:
    return [json.loads(line) for path in service.spool.rglob("*.spool") for line in path.read_text().splitlines()]


async def records(service: Service, backing: Backing, tenant: str) -> list[dict[str, Any]]:
    """The audit records of a tenant, as Kafka has them."""
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        "audit.recorded", bootstrap_servers=backing.kafka_bootstrap, auto_offset_reset="earliest", group_id=None
    )
    await consumer.start()
    found: list[dict[str, Any]] = []
    try:
        for _ in range(40):
            for batch in (await consumer.getmany(timeout_ms=250)).values():
                events = [json.loads(message.value) for message in batch]
                found += [event["data"] for event in events if event["tenant"] == tenant]
            if not spooled(service) and found:
                break
    finally:
        await consumer.stop()
    return found


async def test_exactly_one_record_an_operation(
    service: Service, tenant: str, colliding: dict[str, Stored], backing: Backing, archive: Archive
) -> None:
    """Who looked at a patient's images must be answerable, once for each look."""
    await archive.store(tenant, [changed("CT_small.dcm", **UIDS, PatientID="P-7")])
    operations = [
        ("/studies?PatientID=P-7", "query", "success", 1),
        ("/studies?PatientID=nobody", "query", "success", 0),
        ("/studies?StudyDate=x", "query", "minor-failure", 0),
        (LEVELS[0], "retrieve", "success", 1),
        (f"{LEVELS[1]}/metadata", "retrieve", "success", 1),
        (f"{LEVELS[2]}/frames/1", "retrieve", "success", 1),
        (f"{LEVELS[2]}/frames/9", "retrieve", "minor-failure", 0),
        (f"{LEVELS[1]}/thumbnail", "retrieve", "success", 1),
        ("/studies/9.9.9", "retrieve", "minor-failure", 0),
        ("/studies/nonsense", "retrieve", "minor-failure", 0),
    ]
    with service.http(tenant) as http:
        for path, *_ in operations:
            await asyncio.to_thread(http.get, path)
        refused = service.tokens.header_for(tenant, ("dicom:write",), "client:edge-1")
        await asyncio.to_thread(lambda: http.get(LEVELS[0], headers=refused))
    found = await records(service, backing, tenant)
    expected = [*(operation[1:] for operation in operations), ("refuse", "minor-failure", 0)]
    assert [(r["action"], r["outcome"], r["instance_count"]) for r in found] == expected
    assert all(r["service"] == "dicomweb" and r["resource"].startswith("GET /dicom-web/") for r in found)
    assert found[0]["query"] == "PatientID=P-7"
    assert {r["actor"] for r in found} == {"user:anna", "client:edge-1"}
    assert found[3]["study_uid"] == "1.2.3"
    assert found[3]["patient_id"] == "P-7"
    assert (found[5]["series_uid"], found[5]["sop_instance_uid"]) == ("1.2.3.4", "1.2.3.4.5")
    assert found[9]["detail"]

"""What can't be trusted is kept where somebody can look at it, bounded, by its own tenant, and never silently away."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from libs.events import AUDIT_RECORDED
from libs.objects import ObjectStore
from services.ingest_gateway.quarantine import Entry, Quarantine, QuarantineFull, QuarantineLimits
from tests.services.ingest_gateway.events import events_of
from tests.services.ingest_gateway.gateway import Gateway, running_gateway, settings_for
from tests.services.ingest_gateway.instances import (
    FAILED,
    FAILURE_REASON,
    STORED,
    TYPE,
    UID,
    make_instance,
    multipart,
    new_uid,
    sha256,
    values,
)
from tests.support.backing import Backing
from tests.support.fault_proxy import FaultProxy
from tests.support.tokens import TokenIssuer

PATH = "/api/ingest/quarantine"
SCOPE = ("quarantine:admin",)


@pytest.fixture
def objects(backing: Backing) -> ObjectStore:
    return ObjectStore(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key, "lightbox")


@pytest.fixture
async def caretaker(gateway: Gateway, tenant: str) -> AsyncIterator[httpx.AsyncClient]:
    """Who looks after the tenant's quarantine."""
    headers = gateway.headers(tenant, "user:ada", SCOPE)
    async with httpx.AsyncClient(base_url=gateway.url, headers=headers, timeout=60) as client:
        yield client


async def listed(client: httpx.AsyncClient, **query: Any) -> dict[str, dict[str, Any]]:
    answer = await client.get(PATH, params=query)
    assert answer.status_code == 200, answer.text
    return {entry["id"]: entry for entry in answer.json()["entries"]}


async def test_each_kind_of_distrust_is_kept_with_its_reason(
    gateway: Gateway, tenant: str, caretaker: httpx.AsyncClient
) -> None:
    """A technician must be able to find out what a scanner has sent, and why it is not in the study."""
    study = new_uid()
    good, stranger = make_instance(study=study), make_instance()
    parts = {
        "no DICOM at all": b"%PDF-1.7 not an image" * 30,
        "broken": make_instance(study=study)[:400],
        "without identity": make_instance(study=study).replace(b"\x20\x00\x0d\x00UI", b"\x20\x00\x0f\x00UI"),
        "of another study": stranger,
    }
    answer = await gateway.post(tenant, multipart([good, *parts.values()]), TYPE, study=study)
    assert answer.status_code == 202
    assert len(values(answer.json(), STORED, UID)) == 1
    told = values(answer.json(), FAILED, "00091003")
    assert sorted(told) == sorted(sha256(part) for part in parts.values()), "the sender is told where it is"
    entries = await listed(caretaker)
    assert set(entries) == set(told)
    for number, (name, part) in enumerate(parts.items(), 2):
        entry = entries[sha256(part)]
        assert entry["code"] in values(answer.json(), FAILED, FAILURE_REASON), name
        assert entry["reason"], name
        assert (entry["size"], entry["part"], entry["sender"]) == (len(part), number, "client:edge-1"), name
        assert entry["door"].startswith("POST /dicom-web/studies"), name
        content = await caretaker.get(f"{PATH}/{entry['id']}/content")
        assert content.content == part, name
        assert content.headers["content-type"] == "application/octet-stream"
        assert "attachment" in content.headers["content-disposition"]
    assert entries[sha256(stranger)]["code"] == 0xA900
    assert entries[sha256(stranger)]["study_uid"] != study


async def test_the_same_bytes_are_one_entry(gateway: Gateway, tenant: str, caretaker: httpx.AsyncClient) -> None:
    """A scanner that tries again every minute must not fill the quarantine."""
    junk = b"junk" * 100
    for _ in range(3):
        assert (await gateway.post(tenant, multipart([junk, junk]), TYPE)).status_code == 409
    answer = await caretaker.get(PATH)
    assert [entry["id"] for entry in answer.json()["entries"]] == [sha256(junk)]


async def test_pages_hold_each_entry_once(gateway: Gateway, tenant: str, caretaker: httpx.AsyncClient) -> None:
    parts = [b"junk number %d" % number * 20 for number in range(7)]
    await gateway.post(tenant, multipart(parts), TYPE)
    seen: list[str] = []
    after: str | None = ""
    while after is not None:
        page = (await caretaker.get(PATH, params={"limit": 3, "after": after})).json()
        seen += [entry["id"] for entry in page["entries"]]
        after = page["next"]
    assert sorted(seen) == sorted(sha256(part) for part in parts)


async def test_release_stores_the_very_bytes(
    gateway: Gateway, tenant: str, caretaker: httpx.AsyncClient, objects: ObjectStore
) -> None:
    """What was refused by mistake comes into the archive without anybody sending it again."""
    file = make_instance()
    await gateway.post(tenant, multipart([file]), TYPE, study=new_uid())
    answer = await caretaker.post(f"{PATH}/{sha256(file)}/release")
    assert answer.status_code == 200, answer.text
    (key,) = [found.key async for found in objects.list(tenant, "packs/")]
    assert file in await objects.get(tenant, key)
    assert await listed(caretaker) == {}
    assert [found.key async for found in objects.list(tenant, "quarantine/")] == []
    assert (await caretaker.post(f"{PATH}/{sha256(file)}/release")).status_code == 404


async def test_what_is_refused_again_stays(gateway: Gateway, tenant: str, caretaker: httpx.AsyncClient) -> None:
    junk = b"junk" * 100
    await gateway.post(tenant, multipart([junk]), TYPE)
    answer = await caretaker.post(f"{PATH}/{sha256(junk)}/release", params={"as_version": True})
    assert answer.status_code == 409
    assert "stays in quarantine" in answer.json()["detail"]
    assert set(await listed(caretaker)) == {sha256(junk)}


async def test_discard_needs_a_reason_and_is_recorded(
    gateway: Gateway, backing: Backing, tenant: str, caretaker: httpx.AsyncClient
) -> None:
    """Who asks later what became of it finds who removed it, and why."""
    junk = b"junk" * 100
    await gateway.post(tenant, multipart([junk]), TYPE)
    for nothing in ({}, {"reason": ""}, {"reason": "   "}):
        assert (await caretaker.post(f"{PATH}/{sha256(junk)}/discard", params=nothing)).status_code in (400, 422)
    assert set(await listed(caretaker)) == {sha256(junk)}
    reason = "a test image of the vendor"
    assert (await caretaker.post(f"{PATH}/{sha256(junk)}/discard", params={"reason": reason})).status_code == 204
    assert await listed(caretaker) == {}
    records = [r.data for r in await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, 4, timeout=10)]
    (discarded,) = [r for r in records if r.action == "delete"]
    assert reason in discarded.detail
    assert sha256(junk) in discarded.detail
    assert discarded.actor == "user:ada"


async def test_only_its_own_tenants_caretaker_sees_it(
    gateway: Gateway, tenant_pair: tuple[str, str], token_issuer: TokenIssuer
) -> None:
    """Another clinic's quarantine answers as one that is empty, and its entries as those that were never there."""
    ours, theirs = tenant_pair
    junk = b"ours alone" * 50
    await gateway.post(ours, multipart([junk]), TYPE)
    own = gateway.headers(ours, "user:ada", SCOPE)
    stranger = gateway.headers(theirs, "user:eve", SCOPE)
    nothing = "0" * 64
    async with httpx.AsyncClient(base_url=gateway.url, timeout=60) as client:
        assert (await client.get(PATH, headers=stranger)).json()["entries"] == []
        for method, rest in (("GET", ""), ("GET", "/content"), ("POST", "/release"), ("POST", "/discard?reason=none")):
            real = await client.request(method, f"{PATH}/{sha256(junk)}{rest}", headers=stranger)
            missing = await client.request(method, f"{PATH}/{nothing}{rest}", headers=stranger)
            assert (real.status_code, real.json()["detail"]) == (404, missing.json()["detail"]), rest
            for scopes in (("dicom:read", "dicom:write", "audit:read", "users:admin"), ("tenants:admin",)):
                denied = gateway.headers(ours, "user:tom", scopes)
                refused = await client.request(method, f"{PATH}/{sha256(junk)}{rest}", headers=denied)
                assert refused.status_code == 403
        for odd in ("..", "%2e%2e%2fpacks", "a" * 200, sha256(junk).upper()):
            assert (await client.get(f"{PATH}/{odd}", headers=own)).status_code in (400, 404, 422)
        operators = gateway.headers("system", "user:op", SCOPE)
        assert (await client.get(PATH, headers=operators)).json()["total"] == 0
        assert (await client.get(f"{PATH}/{sha256(junk)}", headers=operators)).status_code == 404


async def test_a_full_quarantine_is_told_to_the_sender(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path
) -> None:
    """A refusal that says that nothing was kept leaves the sender's copy as the only one, and says so."""
    settings = settings_for(backing, token_issuer, tmp_path, quarantine_entries=2, quarantine_largest=2000)
    with running_gateway(settings, token_issuer) as gateway:
        first = await gateway.post(tenant, multipart([b"a" * 500, b"b" * 500]), TYPE)
        assert None not in values(first.json(), FAILED, "00091003")
        full = await gateway.post(tenant, multipart([b"c" * 500]), TYPE)
        assert full.status_code == 409
        assert values(full.json(), FAILED, "00091003") == [None]
        assert "not kept in quarantine" in values(full.json(), FAILED, "00091002")[0]
        known = await gateway.post(tenant, multipart([b"a" * 500]), TYPE)
        assert values(known.json(), FAILED, "00091003") == [sha256(b"a" * 500)], "what is there already is there"
        large = await gateway.post(tenant, multipart([b"d" * 3000]), TYPE)
        assert "2000 bytes" in values(large.json(), FAILED, "00091002")[0]


async def test_while_the_store_is_away_the_refusal_says_so(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path
) -> None:
    line = FaultProxy(int(backing.s3_endpoint.rsplit(":", 1)[1]))
    settings = settings_for(backing, token_issuer, tmp_path, s3_endpoint=f"http://127.0.0.1:{line.port}")
    with running_gateway(settings, token_issuer) as gateway:
        line.cut()
        answer = await gateway.post(tenant, multipart([b"junk" * 50] * 2), TYPE)
        assert answer.status_code == 409
        assert all("object store" in words for words in values(answer.json(), FAILED, "00091002"))
        line.mend()
        answer = await gateway.post(tenant, multipart([b"junk" * 50]), TYPE)
        assert values(answer.json(), FAILED, "00091003") == [sha256(b"junk" * 50)]
    line.cut()


async def test_what_is_old_is_found_also_without_its_document(
    objects: ObjectStore, tenant: str, tmp_path: Path
) -> None:
    """A crash between the two objects of an entry must not leave bytes that nobody sees for ever."""
    limits = QuarantineLimits(entries=10, size=1 << 20, largest=1 << 20, days=7, timeout=30)
    quarantine = Quarantine(objects, limits)
    now = datetime.now(UTC)
    for content in (b"one", b"two"):
        path = tmp_path / "part"
        path.write_bytes(content)
        entry = Entry(sha256(content), 3, now, 0xC000, "not DICOM", "client:x", "", "", "test", 1)
        await asyncio.gather(*(quarantine.keep(tenant, path, entry) for _ in range(2)))
        assert await quarantine.find(tenant, sha256(content)) == entry
    await objects.delete(tenant, f"quarantine/{sha256(b'two')}.json")
    assert await quarantine.expired(tenant, now) == []
    assert set(await quarantine.expired(tenant, now + timedelta(days=8))) == {sha256(b"one"), sha256(b"two")}
    assert [e.id for e in await quarantine.entries(tenant, "", 10)] == [sha256(b"one")]
    too_large = Entry("0" * 64, 2 << 20, now, 0xC000, "", "", "", "", "", 1)
    with pytest.raises(QuarantineFull):
        await quarantine.keep(tenant, path, too_large)

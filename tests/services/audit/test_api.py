"""If the record could not be read, or another clinic could read it, it would be worth nothing."""

import asyncio

from fastapi import FastAPI
from httpx import AsyncClient

from libs.events import AUDIT_RECORDED, AuditRecorded, envelope
from tests.support.tokens import TokenIssuer


async def publish(app: FastAPI, tenant: str, study: str) -> None:
    data = AuditRecorded(action="retrieve", outcome="success", actor="user:anna", service="dicomweb", study_uid=study)
    await app.state.resources.producer.publish(AUDIT_RECORDED, envelope(AUDIT_RECORDED, tenant, data), timeout=30)


async def records_of(client: AsyncClient, headers: dict[str, str], study: str) -> list[dict[str, object]]:
    for _ in range(150):
        answer = await client.get("/api/audit/records", params={"study": study}, headers=headers)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, object]] = answer.json()["records"]
        if found:
            return found
        await asyncio.sleep(0.1)
    return []


async def test_what_was_recorded_can_be_read_by_its_tenant_only(
    app: FastAPI, client: AsyncClient, token_issuer: TokenIssuer, tenant_pair: tuple[str, str]
) -> None:
    north, south = tenant_pair
    await publish(app, north, "1.2.3")
    ours = token_issuer.header_for(north, ["audit:read"], "user:adam")
    theirs = token_issuer.header_for(south, ["audit:read"], "user:eva")
    (record,) = await records_of(client, ours, "1.2.3")
    assert record["sequence"] == 1
    answer = await client.get("/api/audit/records", params={"study": "1.2.3"}, headers=theirs)
    assert answer.json()["records"] == []


async def test_reading_the_record_is_recorded(
    app: FastAPI, client: AsyncClient, token_issuer: TokenIssuer, tenant: str
) -> None:
    headers = token_issuer.header_for(tenant, ["audit:read"], "user:adam")
    await client.get("/api/audit/verify", headers=headers)
    for _ in range(150):
        answer = await client.get("/api/audit/records", params={"actor": "user:adam"}, headers=headers)
        resources = [record["record"]["resource"] for record in answer.json()["records"]]
        if "GET /api/audit/verify" in resources:
            break
        await asyncio.sleep(0.1)
    assert "GET /api/audit/verify" in resources
    assert (await client.get("/api/audit/verify", headers=headers)).json()["intact"] is True


async def test_who_may_not_read_it_is_refused(client: AsyncClient, token_issuer: TokenIssuer, tenant: str) -> None:
    assert (await client.get("/api/audit/records")).status_code == 401
    viewer = token_issuer.header_for(tenant, ["dicom:read"], "user:vera")
    assert (await client.get("/api/audit/records", headers=viewer)).status_code == 403


async def test_a_filter_that_makes_no_sense_is_refused_in_words(
    client: AsyncClient, token_issuer: TokenIssuer, tenant: str
) -> None:
    headers = token_issuer.header_for(tenant, ["audit:read"])
    for query in ("action=steal", "from=yesterday", "limit=100000", "study=%00", "before=0"):
        answer = await client.get(f"/api/audit/records?{query}", headers=headers)
        assert answer.status_code == 400, query
        assert answer.headers["content-type"] == "application/problem+json"

"""If the chain let a change through, somebody could read a patient's images and wipe out the trace."""

import asyncio
from dataclasses import replace

import asyncpg
import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.events import AUDIT_RECORDED, AuditRecorded, Envelope, envelope
from libs.tenancy import tenant_transaction
from services.audit.domain import FIRST_PREVIOUS, chain, first_broken, storable
from services.audit.handlers import append_records, search_records, verify_chain
from services.audit.store import RecordFilter
from tests.support.backing import Backing


def retrieval(tenant: str, study: str = "1.2.3") -> Envelope[AuditRecorded]:
    data = AuditRecorded(action="retrieve", outcome="success", actor="user:anna", service="dicomweb", study_uid=study)
    return envelope(AUDIT_RECORDED, tenant, data)


def test_every_kind_of_tampering_is_found() -> None:
    events = [retrieval("north", f"1.2.{n}") for n in range(6)]
    links = chain("north", [(e.id, e.time, e.data.model_dump()) for e in events], (0, FIRST_PREVIOUS))
    start = (0, FIRST_PREVIOUS)
    assert first_broken("north", links, start) is None
    changed = [*links[:3], replace(links[3], record={**links[3].record, "actor": "user:eve"}), *links[4:]]
    assert first_broken("north", changed, start) == 4
    assert first_broken("north", [*links[:2], *links[3:]], start) == 3, "a record was removed"
    assert first_broken("north", [links[1], links[0], *links[2:]], start) == 1, "two records changed places"
    assert first_broken("south", links, start) == 1, "a chain can't be passed off as another tenant's"


def test_a_nul_byte_does_not_stop_the_record() -> None:
    assert storable({"query": "PatientName=\0x", "instance_count": 2}) == {
        "query": "PatientName=x",
        "instance_count": 2,
    }


async def test_an_event_that_comes_twice_is_kept_once(engine: AsyncEngine, tenant: str) -> None:
    events = [retrieval(tenant) for _ in range(3)]
    await append_records(engine, [*events, events[0]])
    await append_records(engine, events)
    verdict = await verify_chain(engine, tenant)
    assert (verdict.records, verdict.broken_at) == (3, None)


async def test_appending_from_several_sides_leaves_no_gap(engine: AsyncEngine, tenant: str) -> None:
    batches = [[retrieval(tenant) for _ in range(5)] for _ in range(6)]
    await asyncio.gather(*(append_records(engine, batch) for batch in batches))
    verdict = await verify_chain(engine, tenant)
    assert (verdict.records, verdict.broken_at) == (30, None)


async def test_tenants_have_chains_of_their_own(engine: AsyncEngine, tenant_pair: tuple[str, str]) -> None:
    north, south = tenant_pair
    await append_records(engine, [retrieval(north), retrieval(south, "1.9"), retrieval(north)])
    assert (await verify_chain(engine, north)).records == 2
    found = await search_records(engine, south, RecordFilter(), 10)
    assert [link.record["study_uid"] for link in found] == ["1.9"]


async def test_the_service_itself_cannot_rewrite_history(engine: AsyncEngine, tenant: str) -> None:
    await append_records(engine, [retrieval(tenant)])
    for statement in ("UPDATE audit_records SET record = '{}'", "DELETE FROM audit_records", "TRUNCATE audit_records"):
        with pytest.raises(DBAPIError, match="permission denied"):
            async with tenant_transaction(engine, tenant) as connection:
                await connection.execute(text(statement))


async def test_a_change_by_the_owner_of_the_database_is_found(
    engine: AsyncEngine, backing: Backing, tenant: str
) -> None:
    await append_records(engine, [retrieval(tenant) for _ in range(4)])
    owner = await asyncpg.connect(backing.database_url("owner").replace("+asyncpg", ""))
    try:
        async with owner.transaction():
            await owner.execute("SELECT set_config('lightbox.tenant', $1, true)", tenant)
            await owner.execute(
                """UPDATE audit_records SET record = record || '{"actor": "user:eve"}'
                   WHERE tenant_id = $1 AND sequence = 2""",
                tenant,
            )
    finally:
        await owner.close()
    assert (await verify_chain(engine, tenant)).broken_at == 2

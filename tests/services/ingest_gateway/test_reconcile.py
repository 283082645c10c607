"""Bucket and catalog say the same in the end: what was stored is announced, what is lost is told, nothing deleted."""

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from sqlalchemy import text

from libs.events import AUDIT_RECORDED, INSTANCES_STORED
from libs.tenancy import create_engine, tenant_transaction
from services.indexing.consumers import handle_events
from services.indexing.resources import Resources as Indexing
from services.indexing.resources import open_resources as open_indexing
from services.indexing.settings import Settings as IndexingSettings
from services.ingest_gateway.handlers_reconcile import Reconciling
from services.ingest_gateway.reconcile import reconcile_slice, reconcile_tenant, reconciling_of
from services.ingest_gateway.resources import open_resources
from tests.services.indexing.packing import pack_of, store_pack
from tests.services.ingest_gateway.events import events_of
from tests.services.ingest_gateway.gateway import settings_for
from tests.support.backing import Backing
from tests.support.catalog import read_catalog
from tests.support.tokens import TokenIssuer


@pytest.fixture
async def reconciling(backing: Backing, token_issuer: TokenIssuer, tmp_path: Path) -> AsyncIterator[Reconciling]:
    """What reconciling works with; what was stored just now is old enough."""
    settings = settings_for(backing, token_issuer, tmp_path)
    async with open_resources(settings) as resources:
        yield replace(reconciling_of(resources, settings), grace=timedelta(seconds=-60), rate=1000)


@pytest.fixture
async def indexing(backing: Backing) -> AsyncIterator[Indexing]:
    settings = IndexingSettings(
        database_url=backing.database_url("indexing"),
        s3_endpoint=backing.s3_endpoint,
        s3_access_key=backing.s3_access_key,
        s3_secret_key=backing.s3_secret_key,
    )
    async with open_indexing(settings) as resources:
        yield resources


async def test_a_pack_that_nobody_was_told_of_is_announced_and_indexed(
    reconciling: Reconciling, indexing: Indexing, backing: Backing, tenant: str
) -> None:
    """A crash between storing and announcing must not leave images that no search finds."""
    objects = reconciling.storing.objects
    known = await store_pack(objects, tenant, pack_of("1.2", "1.2.1", ["1.2.1.1"]))
    await handle_events(indexing, [known])
    orphan = await store_pack(objects, tenant, pack_of("1.3", "1.3.1", ["1.3.1.1", "1.3.1.2"]))
    young = replace(reconciling, grace=timedelta(hours=1))
    assert (await reconcile_tenant(young, tenant, StringIO())).announced == [], "it may be on its way"
    told = StringIO()
    report = await reconcile_tenant(reconciling, tenant, told, as_json=True)
    assert (report.announced, report.missing, report.unusable) == ([orphan.data.pack_key], [], [])
    assert json.loads(told.getvalue().splitlines()[-1])["bucket"] == 2
    (event,) = await events_of(backing.kafka_bootstrap, INSTANCES_STORED, tenant, 1)
    assert event.data == orphan.data, "as it should have been announced at first"
    await handle_events(indexing, [event])
    assert len((await read_catalog(indexing.engine, tenant))["instances"]) == 3
    assert (await reconcile_tenant(reconciling, tenant, StringIO())).announced == []


async def test_a_pack_that_is_lost_is_told_loudly_and_left_in_the_catalog(
    reconciling: Reconciling, indexing: Indexing, backing: Backing, tenant: str
) -> None:
    """Lost images must be missed by the operator before a physician misses them."""
    objects = reconciling.storing.objects
    events = [
        await store_pack(objects, tenant, pack_of(f"1.{n}", f"1.{n}.1", [f"1.{n}.1.1", f"1.{n}.1.2"]))
        for n in (2, 3, 4)
    ]
    await handle_events(indexing, events)
    before = await read_catalog(indexing.engine, tenant)
    await objects.delete(tenant, events[0].data.pack_key)
    await objects.put(tenant, events[1].data.pack_key, b"cut short")
    report = await reconcile_tenant(reconciling, tenant, StringIO())
    assert set(report.missing) == {event.data.pack_key for event in events[:2]}
    records = await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, 2)
    lost = {r.data.study_uid: r.data for r in records}
    assert set(lost) == {"1.2", "1.3"}
    assert {(r.outcome, r.instance_count) for r in lost.values()} == {("serious-failure", 2)}
    assert await read_catalog(indexing.engine, tenant) == before


async def test_what_is_no_pack_is_named_and_stops_nothing(
    reconciling: Reconciling, tenant: str, backing: Backing
) -> None:
    objects = reconciling.storing.objects
    await objects.put(tenant, "packs/1.2/1.2.1/0.zip", b"no pack at all" * 100)
    event = await store_pack(objects, tenant, pack_of("1.3", "1.3.1", ["1.3.1.1"]))
    copy = event.data.pack_key.replace("/1.3.1/", "/1.3.2/")
    await objects.put(tenant, copy, await objects.get(tenant, event.data.pack_key))
    report = await reconcile_tenant(reconciling, tenant, StringIO())
    assert report.announced == [event.data.pack_key]
    assert set(report.unusable) == {"packs/1.2/1.2.1/0.zip", copy}
    assert len([found async for found in objects.list(tenant, "packs/")]) == 3


async def test_slices_go_on_where_the_last_one_ended_and_one_works_at_a_time(
    reconciling: Reconciling, indexing: Indexing, tenant: str, backing: Backing, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bucket of millions is not begun anew by each restart, nor walked by every replica at once."""
    from services.ingest_gateway import reconcile

    checks = {direction: (check, 2) for direction, (check, _) in reconcile.CHECKS.items()}
    monkeypatch.setattr(reconcile, "CHECKS", checks)
    objects = reconciling.storing.objects
    packs = [pack_of(f"1.{n}", f"1.{n}.1", [f"1.{n}.1.1"]) for n in range(2, 7)]
    events = [await store_pack(objects, tenant, pack) for pack in packs]
    await handle_events(indexing, events)
    for direction in ("bucket", "catalog"):
        more = [await reconcile_slice(reconciling, tenant, direction, 3600) for _ in range(4)]
        assert more == [True, True, False, False], direction
    engine = create_engine(backing.database_url("ingest_gateway"))
    async with tenant_transaction(engine, tenant) as connection:
        rows = (await connection.execute(text("SELECT checked, found, finished_at FROM reconciliations"))).all()
        assert [(row.checked, row.found) for row in rows] == [(5, 0), (5, 0)]
        assert all(row.finished_at for row in rows)
    assert await reconcile_slice(reconciling, tenant, "bucket", 0), "due again at once"
    async with tenant_transaction(engine, tenant) as connection:
        locked = text("SELECT pg_advisory_xact_lock(hashtext('reconcile'), hashtext(:name))")
        await connection.execute(locked, {"name": f"{tenant}/bucket"})
        assert not await reconcile_slice(reconciling, tenant, "bucket", 0), "somebody else is at it"
    assert await reconcile_slice(reconciling, tenant, "bucket", 0)
    await engine.dispose()


async def test_tidying_removes_old_quarantine_with_a_record(
    reconciling: Reconciling, tenant: str, backing: Backing
) -> None:
    """What is removed by age alone can be accounted for."""
    objects = reconciling.storing.objects
    name = "ab" * 32
    await objects.put(tenant, f"quarantine/{name}.bin", b"old")
    await asyncio.sleep(1.1)
    quarantine = reconciling.storing.quarantine
    quarantine.limits = replace(quarantine.limits, days=0)
    assert not await reconcile_slice(reconciling, tenant, "bucket", 0)
    assert [found.key async for found in objects.list(tenant, "quarantine/")] == []
    (record,) = await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, 1)
    assert (record.data.action, name in record.data.detail) == ("delete", True)

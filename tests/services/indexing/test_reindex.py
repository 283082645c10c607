"""The catalog from the buckets alone."""

import asyncio
import os
import subprocess
import sys
from io import StringIO

from sqlalchemy import text

from libs.tenancy import tenant_transaction
from services.indexing.consumers import handle_events
from services.indexing.reindex import Progress, reindex_tenant
from services.indexing.resources import Resources
from services.indexing.settings import Settings
from tests.services.indexing.conftest import Dump
from tests.services.indexing.packing import pack_of, store_pack
from tests.services.indexing.test_indexing import PACKS
from tests.support.catalog import digest


def reindex(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs the command as an operator would."""
    values = settings.model_dump()
    environment = {f"LIGHTBOX_INDEXING_{name.upper()}": str(value) for name, value in values.items()}
    return subprocess.run(
        [sys.executable, "-m", "services", "indexing", "reindex", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


async def fill(resources: Resources, tenant: str) -> None:
    """Stores packs, with duplicates and in no order, and indexes them as they come."""
    for pack in PACKS:
        await handle_events(resources, [await store_pack(resources.objects, tenant, pack)])
    many = [pack_of("1.7", f"1.7.{n}", [f"1.7.{n}.{i}" for i in range(1, 6)], 10 + n) for n in range(1, 20)]
    await handle_events(resources, [await store_pack(resources.objects, tenant, pack) for pack in many])


async def test_a_dropped_catalog_comes_back_as_it_was(
    resources: Resources, settings: Settings, tenant: str, dump: Dump
) -> None:
    """A lost database must not mean lost studies, nor other ones."""
    await fill(resources, tenant)
    before = digest(await dump(tenant))
    done = await asyncio.to_thread(reindex, settings, "--tenant", tenant, "--drop")
    assert done.returncode == 0, done.stderr
    assert f"{tenant}: 25 of 25 packs, " in done.stdout.splitlines()[-1]
    assert digest(await dump(tenant)) == before


async def test_a_rebuild_that_was_broken_off_is_finished_by_another(
    resources: Resources, tenant: str, dump: Dump
) -> None:
    """An operator may start again after a failure, and need not begin from nothing."""
    await fill(resources, tenant)
    before = digest(await dump(tenant))
    async with tenant_transaction(resources.engine, tenant) as connection:
        for table in ("instance_versions", "instances", "series", "studies", "patients", "packs"):
            await connection.execute(text(f"DELETE FROM {table}"))
    assert digest(await dump(tenant)) != before
    await handle_events(resources, [await store_pack(resources.objects, tenant, PACKS[0])])
    await reindex_tenant(resources, tenant, Progress(StringIO()), missing=True)
    assert digest(await dump(tenant)) == before
    out = StringIO()
    await reindex_tenant(resources, tenant, Progress(out))
    assert digest(await dump(tenant)) == before
    assert "25 of 25 packs" in out.getvalue()


async def test_a_damaged_pack_is_named_and_the_others_come_back(
    resources: Resources, settings: Settings, tenant: str, dump: Dump
) -> None:
    """One bad object must not keep an archive from being rebuilt, nor go unnoticed."""
    await store_pack(resources.objects, tenant, pack_of("1.2", "1.2.1", ["1.2.1.1"]))
    bad = await store_pack(resources.objects, tenant, pack_of("1.3", "1.3.1", ["1.3.1.1"]))
    await resources.objects.put(tenant, bad.data.pack_key, b"damaged" * 1000)
    await resources.objects.put(tenant, "packs/odd", b"x")
    done = await asyncio.to_thread(reindex, settings, "--tenant", tenant)
    assert done.returncode == 1
    assert bad.data.pack_key in done.stdout + done.stderr
    assert "packs/odd" in done.stdout + done.stderr
    assert [s["study_uid"] for s in (await dump(tenant))["studies"]] == ["1.2"]

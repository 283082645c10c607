"""The catalog from the buckets alone."""

import asyncio
import hashlib
import os
import subprocess
import sys
from typing import Any

import orjson
import pytest
from sqlalchemy import text

from libs.tenancy import tenant_transaction
from services.indexing.consumers import handle_events
from services.indexing.resources import Resources
from services.indexing.settings import Settings
from tests.services.indexing.conftest import Dump
from tests.services.indexing.packing import pack_of, store_pack
from tests.services.indexing.test_indexing import PACKS


def digest(catalog: dict[str, Any]) -> str:
    """A hash over all rows."""
    return hashlib.sha256(orjson.dumps(catalog, default=str, option=orjson.OPT_SORT_KEYS)).hexdigest()


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


@pytest.mark.parametrize("arguments", [("--drop",), ("--missing",), ()])
async def test_a_rebuilt_catalog_equals_the_one_before(
    resources: Resources, settings: Settings, tenant: str, dump: Dump, arguments: tuple[str, ...]
) -> None:
    """Whatever was lost, the studies come back exactly as they were."""
    await fill(resources, tenant)
    before = digest(await dump(tenant))
    if "--drop" not in arguments:
        async with tenant_transaction(resources.engine, tenant) as connection:
            for table in ("instance_versions", "instances", "series", "studies", "patients", "packs"):
                await connection.execute(text(f"DELETE FROM {table}"))
        assert digest(await dump(tenant)) != before
    done = await asyncio.to_thread(reindex, settings, "--tenant", tenant, *arguments)
    assert done.returncode == 0, done.stderr
    assert f"{tenant}: 25 of 25 packs, " in done.stdout.splitlines()[-1]
    assert digest(await dump(tenant)) == before
    again = await asyncio.to_thread(reindex, settings, "--tenant", tenant, "--missing")
    assert again.returncode == 0
    assert digest(await dump(tenant)) == before


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

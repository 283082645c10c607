"""Other bytes under a UID that is taken: each policy does what was chosen; nothing is lost, nothing written twice."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from io import StringIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import text

from libs.events import TENANTS_CHANGED, Producer, TenantsChanged, envelope
from libs.objects import ObjectStore
from libs.tenancy import create_engine, tenant_transaction
from services.indexing.reindex import Progress, reindex_tenant
from services.indexing.resources import open_resources
from services.indexing.settings import Settings as IndexingSettings
from services.ingest_gateway.rules import Pause, StoringRules
from tests.services.ingest_gateway.gateway import Gateway, running_gateway, settings_for
from tests.services.ingest_gateway.instances import (
    FAILED,
    FAILURE_REASON,
    STORED,
    TYPE,
    UID,
    WARNING_REASON,
    make_instance,
    make_series,
    multipart,
    new_uid,
    sha256,
    values,
)
from tests.support.backing import Backing
from tests.support.catalog import read_catalog
from tests.support.fault_proxy import FaultProxy
from tests.support.tokens import TokenIssuer

Index = Callable[[str], Awaitable[dict[str, list[dict[str, Any]]]]]
SetPolicy = Callable[[str, str], Awaitable[None]]


@pytest.fixture
def objects(backing: Backing) -> ObjectStore:
    return ObjectStore(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key, "lightbox")


@pytest.fixture
async def index(backing: Backing) -> AsyncIterator[Index]:
    """Brings all packs of a tenant into the catalog, as indexing does, and gives the catalog."""
    settings = IndexingSettings(
        database_url=backing.database_url("indexing"),
        s3_endpoint=backing.s3_endpoint,
        s3_access_key=backing.s3_access_key,
        s3_secret_key=backing.s3_secret_key,
    )
    async with open_resources(settings) as resources:

        async def run(tenant: str) -> dict[str, list[dict[str, Any]]]:
            await reindex_tenant(resources, tenant, Progress(StringIO()))
            return await read_catalog(resources.engine, tenant)

        yield run


@pytest.fixture
async def set_policy(backing: Backing) -> AsyncIterator[SetPolicy]:
    """Sets a tenant's policy and tells of it, as identity does."""
    engine = create_engine(backing.database_url("identity"))
    producer = Producer(backing.kafka_bootstrap, "tests")
    await producer.start()

    async def run(tenant: str, policy: str) -> None:
        async with tenant_transaction(engine, tenant) as connection:
            await connection.execute(
                text("UPDATE tenants SET duplicates = :policy WHERE id = :tenant"),
                {"policy": policy, "tenant": tenant},
            )
        await producer.publish(TENANTS_CHANGED, [envelope(TENANTS_CHANGED, tenant, TenantsChanged(state="active"))], 20)

    yield run
    await producer.stop()
    await engine.dispose()


async def packs(objects: ObjectStore, tenant: str) -> set[str]:
    return {found.key async for found in objects.list(tenant, "packs/")}


async def quarantined(objects: ObjectStore, tenant: str) -> set[str]:
    found = {found.key async for found in objects.list(tenant, "quarantine/")}
    return {key.removeprefix("quarantine/").removesuffix(".bin") for key in found if key.endswith(".bin")}


def two_versions() -> tuple[bytes, bytes, str]:
    """Two files that differ and have the same UIDs."""
    study, series, uid = new_uid(), new_uid(), new_uid()
    first, second = (make_instance(study=study, series=series, uid=uid, note=note) for note in ("first", "second"))
    return first, second, uid


async def store(gateway: Gateway, tenant: str, *files: bytes) -> httpx.Response:
    return await gateway.post(tenant, multipart(files), TYPE)


async def test_what_the_catalog_knows_is_not_written_again(
    gateway: Gateway, tenant: str, objects: ObjectStore, index: Index
) -> None:
    """A scanner that sends everything once more, in other groups, must not fill the bucket."""
    series = make_series(6)
    assert (await store(gateway, tenant, *series)).status_code == 200
    await index(tenant)
    before = await packs(objects, tenant)
    for group in ([series[0]], series[2:5], list(reversed(series))):
        answer = await store(gateway, tenant, *group)
        assert answer.status_code == 200, answer.text
        assert len(values(answer.json(), STORED, UID)) == len(group)
    assert await packs(objects, tenant) == before
    mixed = await store(gateway, tenant, series[0], make_instance(note="new"))
    assert mixed.status_code == 200
    assert len(await packs(objects, tenant)) == len(before) + 1, "what is new in such a request is stored"


async def test_what_the_catalog_knows_and_the_bucket_has_lost_is_stored_again(
    gateway: Gateway, tenant: str, objects: ObjectStore, index: Index
) -> None:
    """An acknowledgement must never rest on the catalog's word alone."""
    file = make_instance()
    await store(gateway, tenant, file)
    await index(tenant)
    (key,) = await packs(objects, tenant)
    await objects.delete(tenant, key)
    assert (await store(gateway, tenant, file)).status_code == 200
    assert await packs(objects, tenant) == {key}


async def test_keep_first_keeps_the_newcomer_beside(
    gateway: Gateway, tenant: str, index: Index, objects: ObjectStore
) -> None:
    first, second, uid = two_versions()
    await store(gateway, tenant, first)
    await index(tenant)
    answer = await store(gateway, tenant, second)
    assert (answer.status_code, values(answer.json(), STORED, WARNING_REASON)) == (202, [0xB000])
    catalog = await index(tenant)
    assert [i["sha256"] for i in catalog["instances"]] == [sha256(first)]
    assert [(v["sop_uid"], v["sha256"]) for v in catalog["versions"]] == [(uid, sha256(second))]
    before = await packs(objects, tenant)
    again = await store(gateway, tenant, second)
    assert values(again.json(), STORED, WARNING_REASON) == [0xB000], "the sender is told each time"
    assert await packs(objects, tenant) == before, "a version that is kept already is not written again"


async def test_keep_latest_shows_the_newcomer_and_keeps_the_first(
    gateway: Gateway, tenant: str, index: Index, set_policy: SetPolicy
) -> None:
    """A clinic that corrects its images sees the correction, and what was there can still be had."""
    first, second, uid = two_versions()
    await store(gateway, tenant, first)
    await index(tenant)
    await set_policy(tenant, "keep-latest-as-version")
    answer = await store(gateway, tenant, second)
    assert (answer.status_code, values(answer.json(), STORED, WARNING_REASON)) == (202, [0xB000])
    catalog = await index(tenant)
    assert [i["sha256"] for i in catalog["instances"]] == [sha256(second)]
    assert [(v["sop_uid"], v["sha256"]) for v in catalog["versions"]] == [(uid, sha256(first))]
    await store(gateway, tenant, first)
    assert (await index(tenant))["instances"][0]["sha256"] == sha256(second), "the first bytes again change nothing"


async def test_two_differing_ones_in_one_request_are_in_the_order_of_their_parts(
    gateway: Gateway, tenant: str, index: Index, set_policy: SetPolicy
) -> None:
    first, second, _ = two_versions()
    await set_policy(tenant, "keep-latest-as-version")
    answer = await store(gateway, tenant, first, second)
    assert values(answer.json(), STORED, WARNING_REASON) == [None, 0xB000]
    assert [i["sha256"] for i in (await index(tenant))["instances"]] == [sha256(second)]


async def test_refuse_refuses_one_by_one_and_loses_nothing(
    gateway: Gateway, tenant: str, index: Index, objects: ObjectStore, set_policy: SetPolicy
) -> None:
    """Who refuses duplicates must be able to see what was refused."""
    first, second, uid = two_versions()
    await store(gateway, tenant, first)
    await index(tenant)
    await set_policy(tenant, "refuse")
    other = make_instance()
    answer = await store(gateway, tenant, second, other, first)
    assert answer.status_code == 202
    assert values(answer.json(), FAILED, FAILURE_REASON) == [0x0111]
    assert values(answer.json(), FAILED, UID) == [uid]
    assert len(values(answer.json(), STORED, UID)) == 2, "the others of the request, the identical one too"
    assert values(answer.json(), FAILED, "00091003") == [sha256(second)]
    assert await quarantined(objects, tenant) == {sha256(second)}
    alone = await store(gateway, tenant, second)
    assert alone.status_code == 409
    assert await quarantined(objects, tenant) == {sha256(second)}
    catalog = await index(tenant)
    assert catalog["versions"] == []
    assert sha256(first) in {i["sha256"] for i in catalog["instances"]}


async def test_the_policy_outlives_an_outage_of_the_database(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, set_policy: SetPolicy, tmp_path: Path, index: Index
) -> None:
    """Storing goes on by the last known rules; within seconds of the return it sees what is stored again."""
    line = FaultProxy(backing.postgres_port)
    url = backing.database_url("ingest_gateway").replace(f":{backing.postgres_port}/", f":{line.port}/")
    await set_policy(tenant, "refuse")
    first, second, _ = two_versions()
    with running_gateway(settings_for(backing, token_issuer, tmp_path, database_url=url), token_issuer) as gateway:
        await store(gateway, tenant, first)
        await index(tenant)
        assert (await store(gateway, tenant, second)).status_code == 409
        line.cut()
        third = make_instance()
        answer = await store(gateway, tenant, third, third[:-2] + b"zz")
        assert answer.status_code == 202
        assert values(answer.json(), FAILED, FAILURE_REASON) == [0x0111], (
            "of what one request shows, refuse still refuses"
        )
        line.mend()
        for _ in range(60):
            refused = (await store(gateway, tenant, second)).status_code == 409
            if refused:
                break
            await asyncio.sleep(0.5)
        assert refused
    with suppress(OSError):
        line.cut()


async def test_rules_are_remembered_and_forgotten(backing: Backing, tenant: str, set_policy: SetPolicy) -> None:
    """A change that is told counts at once; without the database, or a word of it, the last known rules hold."""
    line = FaultProxy(backing.postgres_port)
    engine = create_engine(
        backing.database_url("ingest_gateway").replace(f":{backing.postgres_port}/", f":{line.port}/")
    )
    rules = StoringRules(engine, Pause(0.1), timeout=5, max_age=3600, most=2)
    assert (await rules.of(tenant)).duplicates == "keep-first"
    await set_policy(tenant, "refuse")
    assert (await rules.of(tenant)).duplicates == "keep-first"
    rules.forget(tenant)
    assert (await rules.of(tenant)).duplicates == "refuse"
    line.cut()
    rules.forget(tenant)
    assert (await rules.of(tenant)).duplicates == "refuse"
    assert (await rules.of("nobody-knows")).duplicates == "keep-first"
    line.mend()
    await asyncio.sleep(0.2)
    await set_policy(tenant, "keep-latest-as-version")
    assert (await rules.of(tenant)).duplicates == "keep-latest-as-version"
    await engine.dispose()
    line.cut()


async def test_a_change_that_is_not_heard_of_counts_all_the_same(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, set_policy: SetPolicy, tmp_path: Path, index: Index
) -> None:
    """Of several replicas one hears of the change; the others must not go on by the old rules for long."""
    with running_gateway(settings_for(backing, token_issuer, tmp_path, rules_age=1), token_issuer) as gateway:
        await store(gateway, tenant, make_instance())  # from now on the gateway knows the tenant
        await set_policy(tenant, "refuse")
        async with asyncio.timeout(60):
            while True:
                first, second, _ = two_versions()
                await store(gateway, tenant, first)
                await index(tenant)
                if (await store(gateway, tenant, second)).status_code == 409:
                    break

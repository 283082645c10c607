"""Faults: nothing is acknowledged that is not durable, the refusal comes in bounded time, and a retry is safe."""

import asyncio
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from libs.dicom import read_header
from libs.events import AUDIT_RECORDED, INSTANCES_STORED, TENANTS_CHANGED, Producer, TenantsChanged, envelope
from libs.objects import ObjectStore
from services.ingest_gateway.settings import Settings
from tests.services.ingest_gateway.events import events_of
from tests.services.ingest_gateway.gateway import (
    PUBLIC_URL,
    Gateway,
    eventually,
    running_gateway,
    settings_for,
)
from tests.services.ingest_gateway.instances import (
    SHA256,
    STORED,
    TYPE,
    make_instance,
    make_series,
    multipart,
    sha256,
    values,
)
from tests.support.backing import Backing, new_tenant_id
from tests.support.fault_proxy import FaultProxy
from tests.support.hostile.bombs import deflated_image_of_200_megabytes
from tests.support.hostile.corpus import Identity
from tests.support.tokens import TokenIssuer


async def test_the_object_store_goes_away_and_comes_back(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path
) -> None:
    line = FaultProxy(urlsplit(backing.s3_endpoint).port or 0)
    settings = settings_for(backing, token_issuer, tmp_path, s3_endpoint=f"http://127.0.0.1:{line.port}")
    files = make_series(2)
    with running_gateway(settings, token_issuer) as gateway:
        assert (await gateway.post(tenant, multipart([make_instance()]), TYPE)).status_code == 200
        line.cut()
        begun = time.monotonic()
        many = [make_instance() for _ in range(40)]
        refused = await gateway.post(tenant, multipart(files + many), TYPE)
        assert refused.status_code == 503
        assert time.monotonic() - begun < 15
        assert int(refused.headers["retry-after"]) > 0
        assert refused.headers["content-type"] == "application/problem+json"
        assert gateway.leftovers() == []
        line.mend()
        stored = await gateway.post(tenant, multipart(files), TYPE)
        assert stored.status_code == 200
    line.cut()
    events = await events_of(backing.kafka_bootstrap, INSTANCES_STORED, tenant, 3, timeout=1.5)
    assert [event.data.instance_count for event in events if event.data.instance_count == 2] == [2]
    records = await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, 43)
    study = read_header(files[0]).study_uid
    assert {(r.data.outcome, r.data.instance_count) for r in records if r.data.study_uid == study} == {
        ("serious-failure", 0),
        ("success", 2),
    }


async def test_the_event_log_is_away_and_comes_back(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path
) -> None:
    line = FaultProxy(int(backing.kafka_bootstrap.rsplit(":", 1)[1]))
    line.cut()
    settings = settings_for(
        backing, token_issuer, tmp_path, kafka_bootstrap=f"127.0.0.1:{line.port}", publish_timeout=1.5
    )
    body = multipart(make_series(2))
    with running_gateway(settings, token_issuer) as gateway:
        begun = time.monotonic()
        refused = await gateway.post(tenant, body, TYPE)
        assert refused.status_code == 503
        assert time.monotonic() - begun < 5
        async with httpx.AsyncClient(verify=False) as client:
            assert (await client.get(f"{gateway.url}/health/live")).status_code == 200
            assert (await client.get(f"{gateway.url}/health/ready")).json()["events"] == "not available"
        line.mend()
        await _stored_at_last(gateway, tenant, body)
        records = await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, 2)
        assert {record.data.outcome for record in records} == {"serious-failure", "success"}, "refusals were spooled"
    line.cut()
    (event,) = await events_of(backing.kafka_bootstrap, INSTANCES_STORED, tenant, 1)
    objects = ObjectStore(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key)
    assert [entry.key async for entry in objects.list(tenant, "")] == [event.data.pack_key]


async def test_the_catalog_is_not_needed_to_store(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path
) -> None:
    nowhere = "postgresql+asyncpg://nobody:nothing@127.0.0.1:1/nothing"
    with running_gateway(settings_for(backing, token_issuer, tmp_path, database_url=nowhere), token_issuer) as gateway:
        response = await gateway.post(tenant, multipart([make_instance()]), TYPE, subject="user:anna")
        assert response.status_code == 200


async def test_a_tenant_without_a_bucket_waits_until_it_is_made(gateway: Gateway, backing: Backing) -> None:
    tenant, body = new_tenant_id(), multipart([make_instance()])
    early = await gateway.post(tenant, body, TYPE)
    assert early.status_code == 503
    assert "not ready" in early.json()["detail"]

    producer = Producer(backing.kafka_bootstrap, "identity")
    await producer.start()
    try:
        events = [
            envelope(TENANTS_CHANGED, name, TenantsChanged(state="active")) for name in (tenant, "system", tenant)
        ]
        await producer.publish(TENANTS_CHANGED, events)
    finally:
        await producer.stop()
    await _stored_at_last(gateway, tenant, body)
    assert (await gateway.post(tenant, body, TYPE)).status_code == 200


async def test_kill_in_the_middle_leaves_no_acknowledgement_and_no_files(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path
) -> None:
    settings = settings_for(backing, token_issuer, tmp_path)
    body = multipart(make_series(4, pixels=1 << 20))
    async with service_process(settings, token_issuer) as (gateway, process):
        writer = await _send_half(gateway, tenant, body)
        await eventually(lambda: any(gateway.settings.spool_dir.glob("requests/*/part-00001.dcm")))
        process.kill()
        await process.wait()
        writer.close()
        assert len(gateway.leftovers()) == 1
    async with service_process(settings, token_issuer) as (gateway, process):
        assert gateway.leftovers() == []
        assert (await gateway.post(tenant, body, TYPE)).status_code == 200
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 20) in (0, -signal.SIGTERM)
    events = await events_of(backing.kafka_bootstrap, INSTANCES_STORED, tenant, 1)
    assert [event.data.instance_count for event in events] == [4]


async def test_a_line_that_breaks_during_the_upload_to_the_store(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path
) -> None:
    """Whatever the moment of the break, what was acknowledged is what a resend finds, once."""
    line = FaultProxy(urlsplit(backing.s3_endpoint).port or 0)
    settings = settings_for(backing, token_issuer, tmp_path, s3_endpoint=f"http://127.0.0.1:{line.port}")
    files = [file for _ in range(3) for file in make_series(2, pixels=2 << 20)]
    acknowledged: set[str] = set()
    with running_gateway(settings, token_issuer) as gateway:
        for pause in (0.02, 0.06, 0.1):
            sending = asyncio.create_task(gateway.post(tenant, multipart(files), TYPE))
            await asyncio.sleep(pause)
            line.cut()
            await asyncio.sleep(0.1)
            line.mend()
            response = await sending
            assert response.status_code in (200, 202, 503)
            if response.status_code != 503:
                acknowledged |= set(values(response.json(), STORED, SHA256))
        final = await gateway.post(tenant, multipart(files), TYPE)
        assert final.status_code == 200
    line.cut()
    objects = ObjectStore(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key)
    assert len([entry async for entry in objects.list(tenant, "")]) == 3
    assert acknowledged <= {sha256(file) for file in files}
    assert set(values(final.json(), STORED, "00081190")[0].split("/")) >= set(PUBLIC_URL.split("/"))


async def test_no_room_to_inflate_is_no_fault_of_the_instance(gateway: Gateway, tenant: str) -> None:
    """Otherwise the sender would hear that its image can't be understood, and forget it."""
    body = multipart([deflated_image_of_200_megabytes(Identity.new())])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, hard))
    try:
        refused = await gateway.post(tenant, body, TYPE)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert refused.status_code == 503
    assert int(refused.headers["retry-after"]) > 0
    assert (await gateway.post(tenant, body, TYPE)).status_code == 200


@asynccontextmanager
async def service_process(
    settings: Settings, issuer: TokenIssuer, **environment: str
) -> AsyncIterator[tuple[Gateway, asyncio.subprocess.Process]]:
    """The service in a process of its own, as it is started anywhere."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    values = {name: value for name, value in {**settings.model_dump(), "port": port}.items() if value is not None}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services",
        "ingest_gateway",
        cwd=Path(__file__).parents[3],
        env={
            **os.environ,
            **{f"LIGHTBOX_INGEST_GATEWAY_{name.upper()}": str(v) for name, v in values.items()},
            **environment,
        },
        stdout=asyncio.subprocess.DEVNULL,
    )
    gateway = Gateway(f"http://127.0.0.1:{port}", port, settings, issuer)
    try:
        await _alive(gateway)
        yield gateway, process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _stored_at_last(gateway: Gateway, tenant: str, body: bytes) -> None:
    """Sends again and again, as a sender does."""
    for _ in range(100):
        if (await gateway.post(tenant, body, TYPE)).status_code == 200:
            return
        await asyncio.sleep(0.2)
    pytest.fail("it was never stored")


async def _alive(gateway: Gateway) -> None:
    async with asyncio.timeout(30), httpx.AsyncClient(verify=False) as client:
        while True:
            try:
                if (await client.get(f"{gateway.url}/health/live")).status_code == 200:
                    return
            except httpx.TransportError:
                await asyncio.sleep(0.1)


async def _send_half(gateway: Gateway, tenant: str, body: bytes) -> asyncio.StreamWriter:
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    token = gateway.headers(tenant)["Authorization"]
    writer.write(
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: test\r\nAuthorization: {token}\r\nContent-Type: {TYPE}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n".encode()
        + body[: len(body) // 2]
    )
    await writer.drain()
    return writer

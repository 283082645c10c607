"""Refusals: typed, in words, recorded, bounded; afterwards nothing is left and the next good store works."""

import asyncio
import json
import shutil
import time
import zlib
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
import pytest
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian

from libs.dicom import read_header
from libs.events import AUDIT_RECORDED, INSTANCES_STORED
from tests.services.ingest_gateway.events import events_of
from tests.services.ingest_gateway.gateway import Gateway, eventually, running_gateway, settings_for
from tests.services.ingest_gateway.instances import (
    BOUNDARY,
    FAILED,
    FAILURE_REASON,
    STORED,
    TYPE,
    UID,
    make_instance,
    make_series,
    multipart,
    values,
)
from tests.support.backing import Backing
from tests.support.tokens import TokenIssuer


@pytest.mark.parametrize(
    ("content_type", "status", "words"),
    [
        ("multipart/related; type=application/dicom", 400, "boundary"),
        (f'multipart/related; type="application/dicom"; boundary="{"x" * 129}"', 400, "128 characters"),
        (f'multipart/related; type="application/dicom+json"; boundary={BOUNDARY}', 400, "no metadata"),
        (f'multipart/related; type="application/dicom+xml"; boundary={BOUNDARY}', 415, "application/dicom+xml"),
        (f'multipart/related; type="image/jpeg"; boundary={BOUNDARY}', 415, "image/jpeg"),
        (f"multipart/form-data; boundary={BOUNDARY}", 415, "multipart/form-data"),
        ("application/zip", 415, "application/zip"),
        ("", 415, "no type"),
        ('multipart/related; type="application/dicom"; boundary=another', 400, "boundary"),
    ],
)
async def test_bodies_of_another_kind(
    gateway: Gateway, tenant: str, content_type: str, status: int, words: str
) -> None:
    response = await gateway.post(tenant, multipart([make_instance()]), content_type)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert words in response.json()["detail"]
    assert gateway.leftovers() == []


@pytest.mark.parametrize(
    ("content_type", "part_type", "status"),
    [
        (f"multipart/related; type=application/dicom; boundary={BOUNDARY}", "application/dicom", 200),
        (f"multipart/related; type=application/dicom; boundary={BOUNDARY}", "", 200),
        (f"multipart/related; boundary={BOUNDARY}", "application/dicom", 200),
        (f"multipart/related; boundary={BOUNDARY}", "image/jpeg", 415),
        (f"multipart/related; boundary={BOUNDARY}", "", 415),
        (TYPE, "application/dicom; transfer-syntax=1.2.840.10008.1.2.1", 200),
        (TYPE, "text/plain", 409),
    ],
)
async def test_the_type_may_stand_at_the_request_or_at_the_parts(
    gateway: Gateway, tenant: str, content_type: str, part_type: str, status: int
) -> None:
    response = await gateway.post(tenant, multipart([make_instance()], part_type=part_type), content_type)
    assert response.status_code == status


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("application/dicom+json", 200),
        ("*/*", 200),
        ("application/dicom+xml, application/dicom+json;q=0.5", 200),
        ("application/dicom+xml", 406),
        ("application/dicom+json;q=0, text/html", 406),
    ],
)
async def test_what_the_answer_may_be(gateway: Gateway, tenant: str, accept: str, status: int) -> None:
    response = await gateway.post(tenant, multipart([make_instance()]), TYPE, headers={"Accept": accept})
    assert response.status_code == status


async def test_who_may_not_store_is_refused_and_recorded(gateway: Gateway, backing: Backing, tenant: str) -> None:
    body = multipart([make_instance()])
    async with httpx.AsyncClient(verify=False) as client:
        anonymous = await client.post(f"{gateway.url}/dicom-web/studies", content=body, headers={"Content-Type": TYPE})
        reader = {**gateway.headers(tenant, "user:vera", ("dicom:read",)), "Content-Type": TYPE}
        reading = await client.post(f"{gateway.url}/dicom-web/studies", content=body, headers=reader)
        operators = {**gateway.headers("system"), "Content-Type": TYPE}
        system = await client.post(f"{gateway.url}/dicom-web/studies", content=body, headers=operators)
    assert (anonymous.status_code, reading.status_code, system.status_code) == (401, 403, 403)
    (record,) = await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, 1)
    assert (record.data.action, record.data.actor) == ("refuse", "user:vera")
    assert record.data.detail.startswith("403")
    assert "/dicom-web/studies" in record.data.resource


@pytest.mark.parametrize(
    ("study", "status"), [("1.2/3", 404), ("..%2f..", 404), ("abc", 400), ("1.2;3", 400), ("1" * 65, 400)]
)
async def test_an_address_that_names_no_study(gateway: Gateway, tenant: str, study: str, status: int) -> None:
    response = await gateway.post(tenant, multipart([make_instance()]), TYPE, study=study)
    assert response.status_code == status


async def test_empty_bodies(gateway: Gateway, tenant: str) -> None:
    none = await gateway.post(tenant, f"--{BOUNDARY}--\r\n".encode(), TYPE)
    assert none.status_code == 400
    assert (await gateway.post(tenant, b"", TYPE)).status_code == 400
    assert (await gateway.post(tenant, b"", "application/dicom")).status_code == 409


async def test_ten_thousand_and_one_parts(gateway: Gateway, tenant: str) -> None:
    response = await gateway.post(tenant, multipart([b"x"] * 10_001), TYPE)
    assert response.status_code == 413
    assert "10000 parts" in response.json()["detail"]
    assert gateway.leftovers() == []
    assert (await gateway.post(tenant, multipart([make_instance()]), TYPE)).status_code == 200


async def test_a_part_with_a_huge_header(gateway: Gateway, tenant: str) -> None:
    part_type = "application/dicom\r\nX-Long: " + "x" * 9000
    response = await gateway.post(tenant, multipart([make_instance()], part_type=part_type), TYPE)
    assert response.status_code == 400
    assert "8192" in response.json()["detail"]


async def raw_request(
    gateway: Gateway, tenant: str, length: int, body: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Sends the head of a request, and as much of its body as is given."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    token = gateway.headers(tenant)["Authorization"]
    writer.write(
        f"POST /dicom-web/studies HTTP/1.1\r\nHost: test\r\nAuthorization: {token}\r\nContent-Type: {TYPE}\r\n"
        f"Content-Length: {length}\r\n\r\n".encode()
        + body
    )
    await writer.drain()
    return reader, writer


async def test_a_body_that_is_cut_short_leaves_nothing(gateway: Gateway, backing: Backing, tenant: str) -> None:
    body = multipart(make_series(3, pixels=1 << 20))
    _, writer = await raw_request(gateway, tenant, len(body), body[: len(body) - 1000])
    await eventually(lambda: list((gateway.settings.spool_dir / "requests").glob("*/part-00001.dcm")) != [])
    writer.close()
    await eventually(lambda: gateway.leftovers() == [])
    assert await events_of(backing.kafka_bootstrap, INSTANCES_STORED, tenant, 1, timeout=1) == []
    (record,) = await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, 1)
    assert "connection ended" in record.data.detail

    whole = await gateway.post(tenant, body[: len(body) - 1000], TYPE)
    assert whole.status_code == 400
    assert "cut short" in whole.json()["detail"]


async def test_limits_of_size(backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path) -> None:
    settings = settings_for(backing, token_issuer, tmp_path, max_request=1 << 20, max_part=100_000)
    with running_gateway(settings, token_issuer) as gateway:
        reader, writer = await raw_request(gateway, tenant, 10 * 10**9, b"x" * 1000)
        async with asyncio.timeout(10):
            assert b" 413 " in await reader.readline()
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"connection: close" in head.lower(), "nobody reads ten gigabytes to keep a connection"
        writer.close()
        (record,) = await events_of(backing.kafka_bootstrap, AUDIT_RECORDED, tenant, 1)
        assert (record.data.action, record.data.actor) == ("refuse", "client:edge-1")
        assert record.data.detail.startswith("413"), "who sends too much is on record"

        async def undeclared() -> AsyncIterator[bytes]:
            for _ in range(1000):
                yield b"x" * 60_000

        response = await gateway.post(tenant, undeclared(), "application/dicom")
        assert response.status_code == 413

        large, small = make_instance(pixels=200_000), make_instance()
        mixed = await gateway.post(tenant, multipart([large, small]), TYPE)
        assert mixed.status_code == 202
        assert values(mixed.json(), FAILED, FAILURE_REASON) == [0xA700]
        assert len(values(mixed.json(), STORED, UID)) == 1
        assert gateway.leftovers() == []


async def test_no_room_on_the_disk(backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path) -> None:
    with running_gateway(settings_for(backing, token_issuer, tmp_path, min_free=1 << 60), token_issuer) as gateway:
        response = await gateway.post(tenant, multipart([make_instance()]), TYPE)
        assert response.status_code == 503
        assert int(response.headers["retry-after"]) > 0
        assert "disk space" in response.json()["detail"]
        async with httpx.AsyncClient(verify=False) as client:
            ready = await client.get(f"{gateway.url}/health/ready")
            assert ready.status_code == 503
            assert ready.json()["spool"] == "not available"
            assert (await client.get(f"{gateway.url}/health/live")).status_code == 200
    free = shutil.disk_usage(tmp_path).free
    settings = settings_for(backing, token_issuer, tmp_path, min_free=free - (2 << 30))
    with running_gateway(settings, token_issuer) as gateway:
        reader, writer = await raw_request(gateway, tenant, 10 * 10**9, b"x" * 1000)
        assert b" 503 " in await asyncio.wait_for(reader.readline(), 5), "it is refused before it is sent"
        writer.close()
        assert (await gateway.post(tenant, multipart([make_instance()]), TYPE)).status_code == 200


async def test_senders_that_fall_silent_are_let_go(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path
) -> None:
    settings = settings_for(backing, token_issuer, tmp_path, idle_timeout=0.5, min_progress=1000)
    with running_gateway(settings, token_issuer) as gateway:
        silent, silent_writer = await raw_request(gateway, tenant, 100_000, b"--")
        slow, slow_writer = await raw_request(gateway, tenant, 100_000, b"--")

        async def drip() -> None:
            while True:
                slow_writer.write(b"x")
                await asyncio.sleep(0.1)

        dripping = asyncio.create_task(drip())
        for reader in (silent, slow):
            assert b" 408 " in await asyncio.wait_for(reader.readline(), 8)
        dripping.cancel()
        silent_writer.close()
        slow_writer.close()
        assert gateway.leftovers() == []
        assert (await gateway.post(tenant, multipart([make_instance()]), TYPE)).status_code == 200


async def test_one_tenant_does_not_starve_the_others(
    backing: Backing, token_issuer: TokenIssuer, tenant_pair: tuple[str, str], tmp_path: Path
) -> None:
    greedy, modest = tenant_pair
    settings = settings_for(
        backing, token_issuer, tmp_path, requests_per_tenant=2, requests_waiting=1, queue_timeout=0.3
    )
    with running_gateway(settings, token_issuer) as gateway:
        held = [await raw_request(gateway, greedy, 100_000, b"--") for _ in range(2)]
        await eventually(lambda: len(gateway.leftovers()) == 2)
        refused = await gateway.post(greedy, multipart([make_instance()]), TYPE)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert (await gateway.post(modest, multipart([make_instance()]), TYPE)).status_code == 200
        for _, writer in held:
            writer.close()
        await eventually(lambda: gateway.leftovers() == [])
        assert (await gateway.post(greedy, multipart([make_instance()]), TYPE)).status_code == 200


async def test_hostile_instances_cost_nobody_else(gateway: Gateway, tenant: str) -> None:
    good = make_instance()
    bomb = deflated(bytes(400 << 20))
    deep = bytearray(make_instance())
    deep += (b"\x08\x00\x40\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff") * 5000
    lying = make_instance().replace(b"\xe0\x7f\x10\x00OW\x00\x00", b"\xe0\x7f\x10\x00UN\x00\x00")
    lying = lying.replace(b"UN\x00\x00\x00\x02\x00\x00", b"UN\x00\x00\xf0\xff\xff\xff")
    path = make_instance(uid="1.2.3.4.5").replace(b"1.2.3.4.5\x00", b"../../../x")
    begun = time.monotonic()
    response = await gateway.post(tenant, multipart([bomb, bytes(deep), lying, path, good]), TYPE)
    assert time.monotonic() - begun < 20
    assert response.status_code == 202
    assert values(response.json(), STORED, UID)[-1] == read_header(good).sop_instance_uid
    assert len(values(response.json(), FAILED, FAILURE_REASON)) >= 3
    assert "../" not in response.text
    assert gateway.leftovers() == []


def deflated(content: bytes) -> bytes:
    """A small file that inflates to a large one (PS3.5 section A.5)."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    meta = pydicom.dcmread(BytesIO(make_instance())).file_meta
    meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    head = DicomBytesIO()
    write_file_meta_info(head, meta)
    return bytes(128) + b"DICM" + head.getvalue() + packer.compress(content) + packer.flush()


async def test_problems_say_nothing_of_the_body(gateway: Gateway, tenant: str) -> None:
    secret = b"Doe^Jane-4711"
    body = multipart([b"\x00" * 128 + b"DICM" + secret], part_type="application/dicom")
    response = await gateway.post(tenant, body, TYPE)
    assert response.status_code == 409
    assert secret.decode() not in json.dumps(response.json())

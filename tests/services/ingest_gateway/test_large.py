"""A body of more than a gigabyte: stored whole, by an upload in parts, in memory that does not grow with it."""

import asyncio
import hashlib
import http.client
import struct
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import orjson
import pytest

from libs.dicom import read_header
from libs.objects import ObjectStore
from libs.packs import locate_index, read_index
from tests.services.ingest_gateway.door import free_port
from tests.services.ingest_gateway.gateway import settings_for
from tests.services.ingest_gateway.gateway_process import GatewayProcess
from tests.services.ingest_gateway.instances import BOUNDARY, SHA256, STORED, TYPE, make_instance, values
from tests.support.backing import Backing
from tests.support.metering import MIB, metered
from tests.support.tokens import TokenIssuer

PIXELS = (1 << 30) + (64 << 20)
"""Bytes of pixel data: more than one PUT carries."""
STEP = 1 << 20


def head_of_large_image() -> bytes:
    """A CT image up to its pixel data, which is said to have ``PIXELS`` bytes."""
    small = make_instance()
    at = small.rindex(b"\xe0\x7f\x10\x00OW")
    return small[: at + 8] + struct.pack("<I", PIXELS)


def pieces(head: bytes) -> Iterator[bytes]:
    """The body of the request."""
    yield f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + head
    zeros = bytes(STEP)
    for _ in range(PIXELS // STEP):
        yield zeros
    yield f"\r\n--{BOUNDARY}--\r\n".encode()


@pytest.mark.timeout(600)
def test_memory_does_not_grow_with_the_body(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path: Path
) -> None:
    settings = settings_for(backing, token_issuer, tmp_path / "spool", port=free_port())
    process = GatewayProcess(settings, tmp_path)
    head = head_of_large_image()
    headers = {
        **token_issuer.header_for(tenant, ("dicom:write",)),
        "Content-Type": TYPE,
        "Content-Length": str(sum(map(len, pieces(head)))),
    }
    place = urlsplit(process.url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=500)
    try:
        small = make_instance()
        single = {"Content-Type": "application/dicom", "Content-Length": str(len(small))}
        connection.request("POST", "/dicom-web/studies", small, {**headers, **single})
        assert connection.getresponse().read()
        with metered(process.pid) as taken:
            connection.request("POST", "/dicom-web/studies", pieces(head), headers)
            response = connection.getresponse()
            answer = orjson.loads(response.read())
        assert response.status == 200, process.log()[-2000:]
        assert taken.memory <= 64 * MIB, f"{taken.memory / MIB:.0f} MiB"
        assert list((tmp_path / "spool" / "requests").glob("*")) == []
    finally:
        connection.close()
        process.stop()
    digest = hashlib.sha256(head)
    for _ in range(PIXELS // STEP):
        digest.update(bytes(STEP))
    assert values(answer, STORED, SHA256) == [digest.hexdigest()]
    asyncio.run(check_pack(backing, tenant, read_header(make_instance()).modality, digest.hexdigest()))


async def check_pack(backing: Backing, tenant: str, modality: str, digest: str) -> None:
    """The pack is one object, explains itself, and holds what was sent."""
    store = ObjectStore(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key, "lightbox")
    large = [entry async for entry in store.list(tenant, "packs/") if entry.size > PIXELS]
    assert len(large) == 1
    tail, size = await store.get_tail(tenant, large[0].key, 1 << 20)
    offset, length = locate_index(tail, size)
    (instance,) = read_index(await store.get_range(tenant, large[0].key, offset, length)).instances
    assert (instance.sha256, instance.dicom["00080060"]["Value"]) == (digest, [modality])
    assert await store.get_range(tenant, large[0].key, instance.offset + 128, 4) == b"DICM"
    await store.close()

"""Bodies that are compressed with gzip: stored as if they were not, and no bomb goes off."""

import gzip
import zlib
from collections.abc import AsyncIterator

import pytest

from tests.services.ingest_gateway.gateway import Gateway, running_gateway, settings_for
from tests.services.ingest_gateway.instances import SHA256, STORED, TYPE, make_series, multipart, sha256, values
from tests.support.backing import Backing
from tests.support.tokens import TokenIssuer


@pytest.mark.parametrize("coding", ["gzip", "x-gzip", "GZIP"])
async def test_a_compressed_body_is_stored_as_what_it_holds(gateway: Gateway, tenant: str, coding: str) -> None:
    files = make_series(3, pixels=100_000)
    packed = gzip.compress(multipart(files))
    response = await gateway.post(tenant, packed, TYPE, headers={"Content-Encoding": coding})
    assert response.status_code == 200
    assert values(response.json(), STORED, SHA256) == [sha256(file) for file in files]


async def test_several_members_and_small_chunks(gateway: Gateway, tenant: str) -> None:
    files = make_series(2, pixels=100_000)
    content = multipart(files)
    packed = b"".join(gzip.compress(content[at : at + 5000]) for at in range(0, len(content), 5000))

    async def chunks() -> AsyncIterator[bytes]:
        for at in range(0, len(packed), 997):
            yield packed[at : at + 997]

    response = await gateway.post(tenant, chunks(), TYPE, headers={"Content-Encoding": "gzip"})
    assert values(response.json(), STORED, SHA256) == [sha256(file) for file in files]


@pytest.mark.parametrize("coding", ["br", "zstd", "deflate", "gzip, gzip"])
async def test_other_codings_are_refused_with_what_is_taken(gateway: Gateway, tenant: str, coding: str) -> None:
    response = await gateway.post(tenant, b"x", TYPE, headers={"Content-Encoding": coding})
    assert response.status_code == 415
    assert "gzip" in response.headers["accept-encoding"]


@pytest.mark.parametrize("damage", ["noise", "cut", "changed"])
async def test_a_damaged_body_stores_nothing(gateway: Gateway, tenant: str, damage: str) -> None:
    packed = gzip.compress(multipart(make_series(1, pixels=50_000)))
    sent = {"noise": b"\x00" * 100, "cut": packed[:-9], "changed": packed[:-8] + bytes(8)}[damage]
    response = await gateway.post(tenant, sent, TYPE, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 400
    assert gateway.leftovers() == []


def bomb(megabytes: int) -> bytes:
    """Zeros, a thousand times smaller than they are."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 16 + zlib.MAX_WBITS)
    block = bytes(1 << 20)
    return b"".join([*(packer.compress(block) for _ in range(megabytes)), packer.flush()])


async def test_a_bomb_is_refused_by_its_ratio(gateway: Gateway, tenant: str) -> None:
    response = await gateway.post(tenant, bomb(200), "application/dicom", headers={"Content-Encoding": "gzip"})
    assert response.status_code == 413
    assert "times its size" in response.json()["detail"]
    assert gateway.leftovers() == []


async def test_a_bomb_is_refused_by_its_size(
    backing: Backing, token_issuer: TokenIssuer, tenant: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    settings = settings_for(backing, token_issuer, tmp_path_factory.mktemp("spool"), max_request=10 << 20)
    with running_gateway(settings, token_issuer) as small:
        response = await small.post(tenant, bomb(30), "application/dicom", headers={"Content-Encoding": "gzip"})
        assert response.status_code == 413
        assert "inflates to more than" in response.json()["detail"]
        assert small.leftovers() == []

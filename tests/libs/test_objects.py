"""The object store on the real SeaweedFS: acknowledged objects are there, whole, unchanged, in the right tenant."""

import hashlib
import os
import socket
import time
import zlib
from collections.abc import AsyncIterator
from datetime import timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from libs.objects import (
    AlreadyExists,
    BucketMissing,
    ObjectError,
    ObjectNotFound,
    ObjectStore,
    ObjectsUnavailable,
    upload,
)
from libs.objects import store as store_module
from libs.objects.administration import administration_client
from libs.tenancy import bucket_name
from tests.support.backing import BUCKET_PREFIX, Backing

KEY = "packs/1.2.3/4.5.6/0123456789abcdef.zip"


def _store(backing: Backing, endpoint: str | None = None) -> ObjectStore:
    return ObjectStore(
        endpoint or backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key, "lightbox"
    )


@pytest.fixture
async def objects(backing: Backing) -> AsyncIterator[ObjectStore]:
    store = _store(backing)
    yield store
    await store.close()


async def test_what_was_put_comes_back_whole_and_in_ranges(objects: ObjectStore, tenant: str) -> None:
    data = os.urandom(300_000)
    await objects.put_new(tenant, KEY, data, hashlib.sha256(data).hexdigest())

    assert await objects.get(tenant, KEY) == data
    assert await objects.head(tenant, KEY) == len(data)
    assert await objects.get_range(tenant, KEY, 1000, 2000) == data[1000:3000]
    assert await objects.get_range(tenant, KEY, 1000, 0) == b""
    assert await objects.get_ranges(tenant, KEY, [(5, 10), (0, 0), (299_990, 10), (0, 3)]) == [
        data[5:15],
        b"",
        data[-10:],
        data[:3],
    ]
    assert await objects.get_tail(tenant, KEY, 500) == (data[-500:], len(data))
    assert await objects.get_tail(tenant, KEY, 10**6) == (data, len(data))
    assert b"".join([piece async for piece in objects.stream(tenant, KEY)]) == data
    assert b"".join([piece async for piece in objects.stream(tenant, KEY, 7, 250_000)]) == data[7:250_007]
    assert b"".join([piece async for piece in objects.stream(tenant, KEY, 7, 0)]) == b""


async def test_the_second_put_new_is_refused_and_the_first_object_stays(objects: ObjectStore, tenant: str) -> None:
    await objects.put_new(tenant, KEY, b"first")
    with pytest.raises(AlreadyExists):
        await objects.put_new(tenant, KEY, b"second")
    assert await objects.get(tenant, KEY) == b"first"
    await objects.put(tenant, KEY, b"third")
    assert await objects.get(tenant, KEY) == b"third"


async def test_a_large_file_is_streamed_with_the_same_guarantees(
    objects: ObjectStore, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "LARGEST_IN_MEMORY", 1024 * 1024)
    data = os.urandom(3 * 1024 * 1024)
    path = tmp_path / "pack"
    path.write_bytes(data)
    with pytest.raises(ObjectError, match="SHA-256"):
        await objects.put_new(tenant, KEY, path, "0" * 64)
    await objects.put_new(tenant, KEY, path, hashlib.sha256(data).hexdigest())
    with pytest.raises(AlreadyExists):
        await objects.put_new(tenant, KEY, path)
    assert await objects.get(tenant, KEY) == data
    await objects.put(tenant, KEY, path)
    with pytest.raises(BucketMissing):
        await objects.put_new("no-such-tenant", KEY, path)


async def test_data_that_changed_on_the_way_is_not_stored(objects: ObjectStore, tenant: str, tmp_path: Path) -> None:
    path = tmp_path / "pack"
    path.write_bytes(b"bytes")
    for data in (b"bytes", path):
        with pytest.raises(ObjectError, match="SHA-256"):
            await objects.put_new(tenant, KEY, data, hashlib.sha256(b"other bytes").hexdigest())
    with pytest.raises(ObjectNotFound):
        await objects.head(tenant, KEY)


async def test_the_store_itself_checks_a_checksum(objects: ObjectStore, tenant: str) -> None:
    """The SHA-256 that is sent is not decoration: SeaweedFS refuses a body that does not have it."""
    from botocore.exceptions import ClientError

    client = objects._client()
    with pytest.raises(ClientError, match=r"hecksum|Digest"):
        client.put_object(Bucket=f"lightbox-{tenant}", Key=KEY, Body=b"bytes", ChecksumSHA256="A" * 43 + "=")
    await objects.put_new(tenant, KEY, b"bytes")
    answer = client.head_object(Bucket=f"lightbox-{tenant}", Key=KEY, ChecksumMode="ENABLED")
    assert answer.get("ChecksumSHA256"), "obstore did not send the checksum"


async def test_missing_objects_and_ranges_outside_are_told_apart(objects: ObjectStore, tenant: str) -> None:
    await objects.put_new(tenant, KEY, b"0123456789")
    for ask in (
        objects.get(tenant, "no"),
        objects.head(tenant, "no"),
        objects.get_range(tenant, "no", 0, 5),
        objects.get_ranges(tenant, "no", [(0, 5), (6, 2)]),
        objects.get_tail(tenant, "no", 5),
    ):
        with pytest.raises(ObjectNotFound):
            await ask
    for offset, length in ((5, 6), (10, 1), (100, 5), (-1, 3), (0, 2**40)):
        with pytest.raises(ObjectError):
            await objects.get_range(tenant, KEY, offset, length)
    with pytest.raises(ObjectError):
        await objects.get_ranges(tenant, KEY, [(0, 2), (8, 10)])
    with pytest.raises(ObjectError):
        _ = [piece async for piece in objects.stream(tenant, KEY, 5, 50)]
    with pytest.raises(ObjectNotFound):
        _ = [piece async for piece in objects.stream(tenant, "no")]
    await objects.delete(tenant, KEY)
    await objects.delete(tenant, KEY)
    with pytest.raises(ObjectNotFound):
        await objects.get(tenant, KEY)


async def test_tenants_without_a_bucket_get_a_typed_refusal(objects: ObjectStore) -> None:
    for stranger in ("nobody-here", "system", "../lightbox", "A", ""):
        for ask in (
            objects.get(stranger, KEY),
            objects.head(stranger, KEY),
            objects.get_range(stranger, KEY, 0, 5),
            objects.get_tail(stranger, KEY, 5),
            objects.put_new(stranger, KEY, b"x"),
            objects.put(stranger, KEY, b"x"),
        ):
            with pytest.raises(BucketMissing):
                await ask
        with pytest.raises(BucketMissing):
            _ = [entry async for entry in objects.list(stranger, "")]


async def test_a_tenant_never_sees_the_objects_of_another(objects: ObjectStore, tenant_pair: tuple[str, str]) -> None:
    first, second = tenant_pair
    await objects.put_new(first, KEY, b"of the first")
    await objects.put_new(second, KEY, b"of the second")
    await objects.put_new(first, "packs/only", b"first")
    assert await objects.get(second, KEY) == b"of the second"
    with pytest.raises(ObjectNotFound):
        await objects.get(second, "packs/only")
    assert [entry.key async for entry in objects.list(second, "")] == [KEY]


async def test_a_listing_has_every_object_under_the_prefix(objects: ObjectStore, tenant: str) -> None:
    keys = sorted(f"packs/1/{number}.zip" for number in range(25))
    for key in [*keys, "metadata/1/2/1.json.gz"]:
        await objects.put_new(tenant, key, key.encode())
    found = [entry async for entry in objects.list(tenant, "packs/")]
    assert [entry.key for entry in found] == keys
    assert {entry.size for entry in found} == {len(key) for key in keys}
    assert [entry.key async for entry in objects.list(tenant, "nothing/")] == []


async def test_a_bucket_is_made_once(objects: ObjectStore) -> None:
    tenant = f"t-{os.urandom(5).hex()}"
    await objects.create_bucket(tenant)
    await objects.create_bucket(tenant)
    await objects.put_new(tenant, KEY, b"x")


async def test_a_store_that_is_away_is_said_so_within_ten_seconds(backing: Backing, tenant: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        free = silent.getsockname()[1]
    away = _store(backing, f"http://127.0.0.1:{free}")
    began = time.monotonic()
    misleading = "packs/416/InvalidRange-NoSuchBucket.zip"  # a key is no answer of the store
    for ask in (
        away.get(tenant, misleading),
        away.put_new(tenant, KEY, b"x"),
        away.ready(),
        away.create_bucket(tenant),
    ):
        step = time.monotonic()
        with pytest.raises(ObjectsUnavailable):
            await ask
        assert time.monotonic() - step < 10
    await away.close()
    assert time.monotonic() - began < 30


async def test_a_store_that_accepts_and_never_answers_is_given_up(backing: Backing, tenant: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(8)
        mute = _store(backing, f"http://127.0.0.1:{silent.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(ObjectsUnavailable):
            await mute.get(tenant, KEY)
        assert time.monotonic() - began < 10.5
        await mute.close()


def _in_pieces(folder: Path, content: bytes) -> list[bytes | Path]:
    """The content as bytes and files in turn, some of them empty."""
    cuts = sorted({0, 1, 100, len(content) // 3, 2 * len(content) // 3, len(content)})
    pieces: list[bytes | Path] = [b""]
    for number, (start, end) in enumerate(pairwise(cuts)):
        if number % 2:
            pieces.append(folder / f"piece-{number}")
            (folder / f"piece-{number}").write_bytes(content[start:end])
        else:
            pieces.append(content[start:end])
    return pieces


@pytest.mark.parametrize("parts", [False, True], ids=["one PUT", "in parts"])
async def test_pieces_become_one_object_under_the_same_rule(
    objects: ObjectStore, backing: Backing, tenant: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parts: bool
) -> None:
    """Objects of gigabytes go in parts: they must be as whole, as unique and as checked as others."""
    if parts:
        monkeypatch.setattr(upload, "LARGEST_SINGLE_PUT", 1 << 20)
        monkeypatch.setattr(upload, "_PART", 5 << 20)
    content = os.urandom(12 << 20)
    pieces = _in_pieces(tmp_path, content)
    await objects.put_new_pieces(tenant, "packs/a.zip", pieces, zlib.crc32(content))
    assert await objects.get(tenant, "packs/a.zip") == content
    with pytest.raises(AlreadyExists):
        await objects.put_new_pieces(tenant, "packs/a.zip", [b"other" * (2 << 18)], zlib.crc32(b"other" * (2 << 18)))
    assert await objects.get(tenant, "packs/a.zip") == content

    (tmp_path / "piece-1").write_bytes(b"x" * (tmp_path / "piece-1").stat().st_size)
    with pytest.raises(ObjectError):
        await objects.put_new_pieces(tenant, "packs/b.zip", pieces, zlib.crc32(content))
    with pytest.raises(ObjectNotFound):
        await objects.head(tenant, "packs/b.zip")
    (tmp_path / "piece-1").unlink()
    with pytest.raises(OSError, match="piece-1"):
        await objects.put_new_pieces(tenant, "packs/c.zip", pieces, zlib.crc32(content))
    client = administration_client(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key)
    left = client.list_multipart_uploads(Bucket=bucket_name(BUCKET_PREFIX, tenant)).get("Uploads", [])
    client.close()
    assert left == [], "what was begun and not ended costs space that nobody sees"
    with pytest.raises(BucketMissing):
        await objects.put_new_pieces("nobody", "packs/a.zip", pieces[:2], 0)


async def test_uploads_that_a_crash_left_are_given_up(objects: ObjectStore, backing: Backing, tenant: str) -> None:
    bucket = bucket_name(BUCKET_PREFIX, tenant)
    client = administration_client(backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key)
    begun = client.create_multipart_upload(Bucket=bucket, Key="packs/x.zip")
    client.upload_part(Bucket=bucket, Key="packs/x.zip", UploadId=begun["UploadId"], PartNumber=1, Body=b"x" * 1000)
    assert await objects.abort_uploads(tenant, timedelta(hours=1)) == 0, "this one may still be under way"
    assert await objects.abort_uploads(tenant, timedelta(seconds=-5)) == 1
    assert client.list_multipart_uploads(Bucket=bucket).get("Uploads", []) == []
    client.close()

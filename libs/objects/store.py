"""The object store, over any S3: obstore carries the data, boto3 administers and sends what is too big for memory."""

import asyncio
import hashlib
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar

import obstore
from botocore.exceptions import BotoCoreError, ClientError
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import S3Store

from libs.objects.administration import (
    administration_client,
    bucket_exists,
    from_boto,
    list_buckets,
    make_bucket,
)
from libs.objects.errors import (
    AlreadyExists,
    BucketMissing,
    ObjectError,
    ObjectNotFound,
    ObjectsUnavailable,
)
from libs.objects.upload import Before, Piece, abort_uploads, put_pieces
from libs.tenancy import InvalidTenant, bucket_name

T = TypeVar("T")

LARGEST_IN_MEMORY: Final = 64 * 1024 * 1024
"""Bytes of a file that is read into memory to be stored; a larger one is streamed from disk."""
LARGEST_OBJECT: Final = 5 * 1024**3
"""Bytes that one PUT may carry (a limit of S3)."""
LARGEST_READ: Final = 1024**3
"""Bytes that one call returns in memory; more is what ``stream`` is for."""
_CONNECT_TIMEOUT: Final = timedelta(seconds=2)
_READ_TIMEOUT: Final = timedelta(seconds=8)
_RETRY_FOR: Final = timedelta(seconds=4)
_PATIENCE: Final = 9.0
"""Seconds after which a read or a small write is given up."""
_STREAM_PIECE: Final = 1024 * 1024
_MOST_RANGES: Final = 10_000
_MOST_UPLOADS: Final = 8


@dataclass(frozen=True)
class StoredObject:
    """One entry of a listing: its key, its size in bytes, when it was written."""

    key: str
    size: int
    modified: datetime


class ObjectStore:
    """Reads and writes objects in the tenants' buckets.

    All methods raise ``BucketMissing`` when the tenant has no bucket (or is not a tenant), and ``ObjectsUnavailable``
    within ten seconds when the store is away; further errors are named at each.

    Arguments:
        endpoint: ``http://`` or ``https://`` address of the S3 service.
        region: its region.
        access_key: access key id.
        secret_key: secret access key.
        bucket_prefix: what all buckets of this installation begin with.
    """

    def __init__(
        self, endpoint: str, region: str, access_key: str, secret_key: str, bucket_prefix: str = "lightbox"
    ) -> None:
        self._endpoint = endpoint
        self._region = region
        self._access_key = access_key
        self._secret_key = secret_key
        self._bucket_prefix = bucket_prefix
        self._stores: dict[str, S3Store] = {}
        self._administration: Any = None
        # Threads that wait for the object store must not keep those waiting that read files.
        self._uploads = ThreadPoolExecutor(_MOST_UPLOADS, thread_name_prefix="upload")

    async def put_new(self, tenant: str, key: str, data: bytes | Path, sha256: str | None = None) -> None:
        """Stores an object under a key that is not taken: one conditional PUT, whole or not at all.

        The store checks a SHA-256 of what arrives. A failure after which the object may yet be there is
        ``ObjectsUnavailable``; trying again is then safe.

        Arguments:
            tenant: whose bucket.
            key: of the object.
            data: its bytes, or the file that holds them; over 64 MiB it is streamed from disk.
            sha256: of the data in hexadecimal, if known; other data is refused.

        Raises:
            AlreadyExists: the key is taken; that object was left as it is.
            ObjectError: the data has another SHA-256, or is larger than 5 GiB.
        """
        if isinstance(data, Path) and (await asyncio.to_thread(data.stat)).st_size > LARGEST_IN_MEMORY:
            await asyncio.to_thread(self._put_file, tenant, key, data, sha256, new=True)
            return
        await self._put(tenant, key, await _content(data, sha256), new=True)

    async def put_new_pieces(
        self, tenant: str, key: str, pieces: Sequence[Piece], crc32: int, *, before: Before | None = None
    ) -> None:
        """Stores an object that lies in pieces under a key that is not taken: whole or not at all.

        Nothing is put together in memory; the store checks the CRC-32 of what arrives. Over 1 GiB it goes in parts. A
        failure after which the object may yet be there is ``ObjectsUnavailable``; trying again is then safe.

        Arguments:
            tenant: whose bucket.
            key: of the object.
            pieces: bytes and whole files, one after another.
            crc32: of all of them.
            before: called in another thread with the size of each block before it is sent, and with 0 after the last;
                it may make them wait.

        Raises:
            AlreadyExists: the key is taken; that object was left as it is.
            ObjectError: the data has another CRC-32.
            OSError: a file can't be read.
        """
        bucket = self._bucket(tenant)
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._uploads, put_pieces, self._client(), bucket, key, pieces, crc32, before)

    async def abort_uploads(self, tenant: str, older_than: timedelta) -> int:
        """Gives up uploads in parts that were begun longer ago than this and never ended; returns how many."""
        return await asyncio.to_thread(abort_uploads, self._client(), self._bucket(tenant), older_than)

    async def put(self, tenant: str, key: str, data: bytes | Path) -> None:
        """Stores an object, over the one that may be there.

        Raises:
            ObjectError: it is larger than 5 GiB.
        """
        if isinstance(data, Path) and (await asyncio.to_thread(data.stat)).st_size > LARGEST_IN_MEMORY:
            await asyncio.to_thread(self._put_file, tenant, key, data, None, new=False)
            return
        await self._put(tenant, key, await _content(data, None), new=False)

    async def get(self, tenant: str, key: str) -> bytes:
        """The whole object.

        Raises:
            ObjectNotFound: there is none.
            ObjectError: it is larger than 1 GiB.
        """

        async def read() -> bytes:
            result = await obstore.get_async(self._store(tenant), key)
            size = int(result.meta["size"])
            if size > LARGEST_READ:
                raise ObjectError("The object is too large to be read at once.")
            return _complete((await result.bytes_async()).to_bytes(), size)

        return await self._bounded(read(), tenant)

    async def get_range(self, tenant: str, key: str, offset: int, length: int) -> bytes:
        """Exactly these bytes of an object.

        Raises:
            ObjectNotFound: there is none.
            ObjectError: the range is not inside the object, or larger than 1 GiB.
        """
        if offset < 0 or not 0 <= length <= LARGEST_READ:
            raise ObjectError("The byte range is not valid.")
        if length == 0:
            return b""
        result = await self._bounded(
            obstore.get_range_async(self._store(tenant), key, start=offset, length=length), tenant
        )
        data = result.to_bytes()
        if len(data) != length:
            raise ObjectError("The byte range reaches beyond the object.")
        return data

    async def get_ranges(self, tenant: str, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of several ranges (offset, length); neighbours are fetched together.

        Raises:
            As ``get_range``.
        """
        if len(ranges) > _MOST_RANGES or sum(length for _, length in ranges) > LARGEST_READ:
            raise ObjectError("The byte ranges are too many or too large.")
        if len(ranges) == 1:
            return [await self.get_range(tenant, key, *ranges[0])]
        wanted = [(offset, length) for offset, length in ranges if length]
        if any(offset < 0 or length < 0 for offset, length in ranges):
            raise ObjectError("A byte range is not valid.")
        if not wanted:
            return [b""] * len(ranges)
        found = await self._bounded(
            obstore.get_ranges_async(
                self._store(tenant), key, starts=[o for o, _ in wanted], lengths=[n for _, n in wanted]
            ),
            tenant,
        )
        parts = iter(part.to_bytes() for part in found)
        results = [next(parts) if length else b"" for _, length in ranges]
        if any(len(part) != length for part, (_, length) in zip(results, ranges, strict=True)):
            raise ObjectError("A byte range reaches beyond the object.")
        return results

    async def get_tail(self, tenant: str, key: str, length: int) -> tuple[bytes, int]:
        """The last bytes of an object (all of it, if it is shorter), and the size of the object.

        Raises:
            ObjectNotFound: there is none.
        """

        async def read() -> tuple[bytes, int]:
            options: Any = {"range": {"suffix": length}}
            result = await obstore.get_async(self._store(tenant), key, options=options)
            first, end = result.range
            return _complete((await result.bytes_async()).to_bytes(), end - first), int(result.meta["size"])

        if not 0 < length <= LARGEST_READ:
            raise ObjectError("The length of the tail is not valid.")
        return await self._bounded(read(), tenant)

    async def head(self, tenant: str, key: str) -> int:
        """Bytes of the object.

        Raises:
            ObjectNotFound: there is none.
        """
        try:
            meta = await self._bounded(obstore.head_async(self._store(tenant), key), tenant)
        except ObjectNotFound:
            # The answer to HEAD has no body that would say what is missing.
            await self._require_bucket(tenant)
            raise
        return int(meta["size"])

    async def stream(self, tenant: str, key: str, offset: int = 0, length: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of a range, in pieces of about 1 MiB; to the end of the object where no length is given.

        Each piece has to come within ten seconds.

        Raises:
            ObjectNotFound: there is none.
            ObjectError: the range is not inside the object.
        """
        if length == 0:
            return
        options: Any = {"range": {"offset": offset} if length is None else (offset, offset + length)}
        result = await self._bounded(obstore.get_async(self._store(tenant), key, options=options), tenant)
        first, end = result.range
        if first != offset or (length is not None and end - first != length):
            raise ObjectError("The byte range reaches beyond the object.")
        pieces = result.stream(_STREAM_PIECE).__aiter__()
        left = end - first
        while left > 0:
            piece = await self._bounded(_next_piece(pieces), tenant)
            left -= len(piece)
            if not piece or left < 0:
                raise ObjectsUnavailable("The object store sent another number of bytes than it announced.")
            yield piece

    async def list(self, tenant: str, prefix: str, *, after: str = "") -> AsyncIterator[StoredObject]:
        """The objects whose key begins with the prefix, by key.

        Arguments:
            tenant: whose bucket.
            prefix: ends at a ``/`` or is empty.
            after: the key behind which the list begins.
        """
        pages = obstore.list(self._store(tenant), prefix or None, offset=after or None, chunk_size=1000)
        while True:
            try:
                page = await self._bounded(pages.__anext__(), tenant)
            except StopAsyncIteration:
                return
            for entry in page:
                yield StoredObject(entry["path"], int(entry["size"]), entry["last_modified"])

    async def delete(self, tenant: str, key: str) -> None:
        """Deletes an object; that it is not there is no error."""
        try:
            await self._bounded(obstore.delete_async(self._store(tenant), key), tenant)
        except ObjectNotFound:
            return

    async def create_bucket(self, tenant: str) -> None:
        """Makes the tenant's bucket; that it is there is no error."""
        await asyncio.to_thread(make_bucket, self._client(), self._bucket(tenant), self._region)

    async def tenants(self) -> Sequence[str]:
        """The tenants that have a bucket here, sorted."""
        prefix = f"{self._bucket_prefix}-"
        found = await asyncio.to_thread(list_buckets, self._client(), prefix)
        return [name for name in (bucket.removeprefix(prefix) for bucket in found) if self._may_have_bucket(name)]

    async def ready(self) -> None:
        """Returns when the store answers.

        Raises:
            ObjectsUnavailable: it does not.
        """
        await asyncio.to_thread(bucket_exists, self._client(), f"{self._bucket_prefix}-system")

    async def close(self) -> None:
        """Closes what is open; the store can't be used any more."""
        self._stores.clear()
        self._uploads.shutdown(wait=False, cancel_futures=True)
        client, self._administration = self._administration, None
        if client is not None:
            await asyncio.to_thread(client.close)

    async def _put(self, tenant: str, key: str, content: bytes, *, new: bool) -> None:
        write = obstore.put_async(
            self._store(tenant), key, content, mode="create" if new else "overwrite", use_multipart=False
        )
        try:
            await self._bounded(write, tenant, patience=_PATIENCE + len(content) / 4e6)
        except ObjectNotFound:
            raise BucketMissing("The tenant has no bucket.") from None

    def _put_file(self, tenant: str, key: str, path: Path, sha256: str | None, *, new: bool) -> None:
        """One PUT that streams the file; boto3 reads it twice, once for the signature."""
        bucket = self._bucket(tenant)
        size = path.stat().st_size
        if size > LARGEST_OBJECT:
            raise ObjectError("The object is larger than 5 GiB.")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")
            if sha256 is not None and digest.hexdigest() != sha256.lower():
                raise ObjectError("The data does not have the SHA-256 that was given.")
            file.seek(0)
            condition = {"IfNoneMatch": "*"} if new else {}
            try:
                self._client().put_object(
                    Bucket=bucket,
                    Key=key,
                    Body=file,
                    ContentLength=size,
                    ChecksumSHA256=b64encode(digest.digest()).decode(),
                    **condition,
                )
            except ClientError as error:
                raise from_boto(error) from error
            except BotoCoreError as error:
                raise ObjectsUnavailable("The object store does not answer.") from error

    async def _require_bucket(self, tenant: str) -> None:
        if not await asyncio.to_thread(bucket_exists, self._client(), self._bucket(tenant)):
            raise BucketMissing("The tenant has no bucket.")

    def _bucket(self, tenant: str) -> str:
        try:
            return bucket_name(self._bucket_prefix, tenant)
        except InvalidTenant:
            raise BucketMissing("This tenant can't have a bucket.") from None

    def _may_have_bucket(self, tenant: str) -> bool:
        try:
            return bool(bucket_name(self._bucket_prefix, tenant))
        except InvalidTenant:
            return False

    def _client(self) -> Any:  # boto3's clients are made at run time
        if self._administration is None:
            self._administration = administration_client(
                self._endpoint, self._region, self._access_key, self._secret_key
            )
        return self._administration

    def _store(self, tenant: str) -> S3Store:
        store = self._stores.get(tenant)
        if store is None:
            store = S3Store(
                self._bucket(tenant),
                endpoint=self._endpoint,
                region=self._region,
                access_key_id=self._access_key,
                secret_access_key=self._secret_key,
                virtual_hosted_style_request=False,
                checksum_algorithm="SHA256",
                conditional_put="etag",
                client_options={
                    "allow_http": self._endpoint.startswith("http://"),
                    "connect_timeout": _CONNECT_TIMEOUT,
                    "read_timeout": _READ_TIMEOUT,
                    "timeout": timedelta(hours=1),
                },
                retry_config={
                    "max_retries": 3,
                    "retry_timeout": _RETRY_FOR,
                    "backoff": {
                        "init_backoff": timedelta(milliseconds=100),
                        "max_backoff": timedelta(seconds=1),
                        "base": 2,
                    },
                },
            )
            self._stores[tenant] = store
        return store

    async def _bounded(self, work: Awaitable[T], tenant: str, *, patience: float = _PATIENCE) -> T:
        """Waits for obstore within a bounded time and turns its errors into ours."""
        try:
            async with asyncio.timeout(patience):
                return await work
        except TimeoutError:
            raise ObjectsUnavailable("The object store does not answer in time.") from None
        except (AlreadyExistsError, PreconditionError) as error:
            raise AlreadyExists("There is an object under this key.") from error
        except FileNotFoundError as error:
            if "<Code>NoSuchBucket<" in str(error):
                raise BucketMissing("The tenant has no bucket.") from error
            raise ObjectNotFound("There is no such object.") from error
        except BaseError as error:
            if "<Code>NoSuchBucket<" in str(error):
                raise BucketMissing("The tenant has no bucket.") from error
            if "status code: 416 " in str(error):
                raise ObjectError("The byte range is not inside the object.") from error
            raise ObjectsUnavailable("The object store does not answer properly.") from error


async def _next_piece(pieces: AsyncIterator[Any]) -> bytes:
    try:
        return bytes(await pieces.__anext__())
    except StopAsyncIteration:
        return b""


async def _content(data: bytes | Path, sha256: str | None) -> bytes:
    content = data if isinstance(data, bytes) else await asyncio.to_thread(data.read_bytes)
    if len(content) > LARGEST_OBJECT:
        raise ObjectError("The object is larger than 5 GiB.")
    if sha256 is not None and (await asyncio.to_thread(_digest, content)) != sha256.lower():
        raise ObjectError("The data does not have the SHA-256 that was given.")
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _complete(data: bytes, size: int) -> bytes:
    if len(data) != size:
        raise ObjectsUnavailable("The object store sent another number of bytes than it announced.")
    return data

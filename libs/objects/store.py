"""The object store, over any S3."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class StoredObject:
    """One entry of a listing: its key and its size in bytes."""

    key: str
    size: int


class ObjectStore:
    """Reads and writes objects in the tenants' buckets.

    Arguments:
        endpoint: ``http://`` or ``https://`` address of the S3 service.
        region: its region.
        access_key: access key id.
        secret_key: secret access key.
        bucket_prefix: what all buckets of this installation begin with.

    All methods raise ``BucketMissing`` and ``ObjectsUnavailable``; further errors are named at each.
    """

    def __init__(
        self, endpoint: str, region: str, access_key: str, secret_key: str, bucket_prefix: str
    ) -> None:
        raise NotImplementedError

    async def put_new(self, tenant: str, key: str, data: bytes | Path, sha256: str | None = None) -> None:
        """Stores an object under a key that is not taken. Raises AlreadyExists."""
        raise NotImplementedError

    async def put(self, tenant: str, key: str, data: bytes | Path) -> None:
        """Stores an object, over the one that may be there."""
        raise NotImplementedError

    async def get(self, tenant: str, key: str) -> bytes:
        """The whole object. Raises ObjectNotFound."""
        raise NotImplementedError

    async def get_range(self, tenant: str, key: str, offset: int, length: int) -> bytes:
        """Exactly these bytes of an object. Raises ObjectNotFound, ObjectsUnavailable (short answer)."""
        raise NotImplementedError

    async def get_ranges(self, tenant: str, key: str, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes of several ranges (offset, length)."""
        raise NotImplementedError

    async def get_tail(self, tenant: str, key: str, length: int) -> tuple[bytes, int]:
        """The last bytes of an object (all, if it is shorter) and its size."""
        raise NotImplementedError

    async def head(self, tenant: str, key: str) -> int:
        """Bytes of the object. Raises ObjectNotFound."""
        raise NotImplementedError

    def stream(
        self, tenant: str, key: str, offset: int = 0, length: int | None = None
    ) -> AsyncIterator[bytes]:
        """The bytes of a range, piece by piece."""
        raise NotImplementedError

    def list(self, tenant: str, prefix: str) -> AsyncIterator[StoredObject]:
        """The objects whose key begins with the prefix, by key."""
        raise NotImplementedError

    async def delete(self, tenant: str, key: str) -> None:
        """Deletes an object; that it is not there is no error."""
        raise NotImplementedError

    async def create_bucket(self, tenant: str) -> None:
        """Makes the tenant's bucket; that it is there is no error."""
        raise NotImplementedError

    async def close(self) -> None:
        """Closes what is open."""
        raise NotImplementedError

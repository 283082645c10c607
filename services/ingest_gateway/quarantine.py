"""The quarantine: what was refused and can't be trusted, kept in the tenant's bucket until somebody decides about it.

Each entry is two objects under ``quarantine/``: the bytes as they were received, and beside them a JSON document that
says why they were refused, who sent them, when and by which door. Both are named by the SHA-256 of the bytes, so that
the same bytes are kept once. The bytes are written first: an entry that can be seen is whole.
"""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, Self
from weakref import WeakValueDictionary

import orjson
import structlog

from libs.objects import AlreadyExists, ObjectNotFound, ObjectStore, StoredObject

PREFIX: Final = "quarantine/"
_ID: Final = re.compile(r"[0-9a-f]{64}")
_BYTES: Final = ".bin"
_ENTRY: Final = ".json"
_SLOWEST: Final = 2 << 20
"""Bytes a second at which an upload still counts as one that makes progress."""
_USAGE_AGE: Final = 30.0
"""Seconds for which a count of what is there is believed."""
_MOST_TENANTS: Final = 1000
_READS_AT_ONCE: Final = 16
_log = structlog.get_logger(__name__)


class QuarantineFull(Exception):
    """There is no room for this; the text says which bound it would break."""


@dataclass(frozen=True)
class QuarantineLimits:
    """Bounds of one tenant's quarantine.

    Attributes:
        entries: the most entries.
        size: the most bytes of all entries.
        largest: the most bytes of one entry.
        days: the age at which an entry is removed.
        timeout: seconds for storing a small entry; a large one gets more.
    """

    entries: int
    size: int
    largest: int
    days: int
    timeout: float


@dataclass(frozen=True)
class Entry:
    """What is known of something in quarantine.

    Attributes:
        id: the SHA-256 of its bytes, in hexadecimal.
        size: bytes.
        received: when it came first.
        code: the Failure Reason (0008,1197) that its sender was given.
        reason: the same in words.
        sender: subject of the sender's token, or the calling node.
        sender_name: what people call the sender.
        address: network address of the sender.
        door: how it came: method and path, or the DIMSE operation.
        part: which part of the request it was, from 1.
        sop_instance_uid: empty where it can't be read; likewise the next three.
        sop_class_uid: its class.
        study_uid: its study.
        series_uid: its series.
    """

    id: str
    size: int
    received: datetime
    code: int
    reason: str
    sender: str
    sender_name: str
    address: str
    door: str
    part: int
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    study_uid: str = ""
    series_uid: str = ""

    def to_json(self) -> bytes:
        """The entry's document."""
        return orjson.dumps(asdict(self), option=orjson.OPT_INDENT_2)

    @classmethod
    def from_json(cls, content: bytes) -> Self:
        """The entry out of its document.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        value: dict[str, Any] = orjson.loads(content)
        names = cls.__dataclass_fields__.keys()
        entry = cls(**{name: value[name] for name in names if name in value})
        return replace(entry, received=datetime.fromisoformat(str(entry.received)))


@dataclass
class _Usage:
    entries: int
    size: int
    counted: float


class Quarantine:
    """The tenants' quarantines. All methods raise ``ObjectError`` where the object store is away or refuses.

    Arguments:
        objects: the object store.
        limits: bounds of each tenant's.
    """

    def __init__(self, objects: ObjectStore, limits: QuarantineLimits) -> None:
        self.limits = limits
        self._objects = objects
        self._usage: OrderedDict[str, _Usage] = OrderedDict()
        self._counting: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def keep(self, tenant: str, path: Path, entry: Entry) -> None:
        """Takes bytes in; that they are there already is no error.

        Arguments:
            tenant: whose.
            path: the file that holds the bytes.
            entry: what is known of them.

        Raises:
            QuarantineFull: there is no room.
            TimeoutError: the object store took too long.
        """
        async with asyncio.timeout(self.limits.timeout + entry.size / _SLOWEST):
            usage = await self._usage_of(tenant)
            if why := self._no_room(usage, entry.size):
                if await self._has(tenant, entry.id):
                    return
                raise QuarantineFull(why)
            usage.entries, usage.size = usage.entries + 1, usage.size + entry.size
            try:
                await self._objects.put_new(tenant, f"{PREFIX}{entry.id}{_BYTES}", path)
            except AlreadyExists:
                usage.size -= entry.size
            try:
                await self._objects.put_new(tenant, f"{PREFIX}{entry.id}{_ENTRY}", entry.to_json())
            except AlreadyExists:
                usage.entries -= 1

    async def entries(self, tenant: str, after: str, limit: int) -> list[Entry]:
        """Entries in the order of their identifiers, from behind ``after``."""
        ids: list[str] = []
        start = f"{PREFIX}{after}{_ENTRY}" if after else ""
        async for found in self._objects.list(tenant, PREFIX, after=start):
            if found.key.endswith(_ENTRY):
                ids.append(found.key.removeprefix(PREFIX).removesuffix(_ENTRY))
            if len(ids) == limit:
                break
        gate = asyncio.Semaphore(_READS_AT_ONCE)

        async def read(entry_id: str) -> Entry | None:
            async with gate:
                try:
                    return await self.find(tenant, entry_id)
                except ObjectNotFound:
                    return None  # somebody decided about it meanwhile

        return [entry for entry in await asyncio.gather(*(read(one) for one in ids)) if entry is not None]

    async def find(self, tenant: str, entry_id: str) -> Entry:
        """One entry.

        Raises:
            ObjectNotFound: there is none of this identifier.
        """
        content = await self._objects.get(tenant, self._key(entry_id, _ENTRY))
        try:
            return Entry.from_json(content)
        except (ValueError, TypeError, KeyError) as error:
            _log.error("an entry of the quarantine can't be read", tenant=tenant, entry=entry_id, error=repr(error))
            raise ObjectNotFound("The entry can't be read.") from error

    def stream(self, tenant: str, entry_id: str) -> AsyncIterator[bytes]:
        """The bytes of an entry, in pieces.

        Raises:
            ObjectNotFound: there are none.
        """
        return self._objects.stream(tenant, self._key(entry_id, _BYTES))

    async def remove(self, tenant: str, entry_id: str) -> None:
        """Removes an entry; that it is not there is no error."""
        await self._objects.delete(tenant, self._key(entry_id, _BYTES))
        await self._objects.delete(tenant, self._key(entry_id, _ENTRY))
        self._usage.pop(tenant, None)

    async def expired(self, tenant: str, now: datetime) -> list[str]:
        """Identifiers of what is older than the limit, also of bytes whose entry was never written."""
        oldest = now - timedelta(days=self.limits.days)
        ids: dict[str, None] = {}
        async for found in self._objects.list(tenant, PREFIX):
            if found.modified < oldest and (name := _id_of(found)):
                ids[name] = None
        return list(ids)

    async def usage(self, tenant: str) -> tuple[int, int]:
        """How many entries and bytes there are, as counted within the last half minute."""
        usage = await self._usage_of(tenant)
        return usage.entries, usage.size

    async def _usage_of(self, tenant: str) -> _Usage:
        """What is there; one count of a tenant at a time, so that nobody's addition is lost by another's count."""
        async with self._counting.setdefault(tenant, asyncio.Lock()):
            usage = self._usage.get(tenant)
            if usage is not None and time.monotonic() - usage.counted < _USAGE_AGE:
                return usage
            usage = _Usage(0, 0, time.monotonic())
            async for found in self._objects.list(tenant, PREFIX):
                usage.entries += found.key.endswith(_ENTRY)
                usage.size += found.size if found.key.endswith(_BYTES) else 0
            self._usage[tenant] = usage
            self._usage.move_to_end(tenant)
            while len(self._usage) > _MOST_TENANTS:
                self._usage.popitem(last=False)
            return usage

    def _no_room(self, usage: _Usage, size: int) -> str:
        limits = self.limits
        if size > limits.largest:
            return f"it has more than {limits.largest} bytes"
        if usage.entries >= limits.entries:
            return f"{limits.entries} entries wait there already"
        return f"{limits.size} bytes wait there already" if usage.size + size > limits.size else ""

    async def _has(self, tenant: str, entry_id: str) -> bool:
        try:
            await self._objects.head(tenant, self._key(entry_id, _ENTRY))
        except ObjectNotFound:
            return False
        return True

    def _key(self, entry_id: str, suffix: str) -> str:
        if not _ID.fullmatch(entry_id):
            raise ObjectNotFound("There is no entry of this identifier.")
        return f"{PREFIX}{entry_id}{suffix}"


def _id_of(found: StoredObject) -> str:
    name = found.key.removeprefix(PREFIX).rpartition(".")[0]
    return name if _ID.fullmatch(name) else ""

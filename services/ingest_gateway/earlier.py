"""What was stored before: what the catalog has under the UIDs of a request, and whether the packs are really there."""

import asyncio
from collections.abc import Collection
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.objects import ObjectError, ObjectStore
from libs.tenancy import DATABASE_ERRORS
from services.ingest_gateway import store
from services.ingest_gateway.duplicates import Earlier
from services.ingest_gateway.rules import Pause

_HEADS_AT_ONCE: Final = 8
_log = structlog.get_logger(__name__)


class EarlierInstances:
    """Looks up what was stored before. Storing does not depend on it: while a server is away, nothing is found.

    Arguments:
        engine: the catalog.
        objects: the object store.
        pause: shared with whoever asks the same database.
        timeout: seconds that each of the two looks may take.
    """

    def __init__(self, engine: AsyncEngine, objects: ObjectStore, pause: Pause, *, timeout: float) -> None:
        self._engine = engine
        self._objects = objects
        self._pause = pause
        self._timeout = timeout

    async def find(self, tenant: str, uids: Collection[str]) -> dict[str, Earlier]:
        """What the catalog has under these SOP Instance UIDs."""
        if not uids or self._pause.lasts:
            return {}
        try:
            async with asyncio.timeout(self._timeout):
                return await store.find_earlier(self._engine, tenant, uids)
        except DATABASE_ERRORS as error:
            self._pause.begin()
            _log.warning("earlier instances were not looked up", error=repr(error))
            return {}

    async def packs_there(self, tenant: str, keys: Collection[str]) -> frozenset[str]:
        """Those of the packs that the object store has, by one HEAD each."""
        gate = asyncio.Semaphore(_HEADS_AT_ONCE)

        async def there(key: str) -> bool:
            async with gate:
                try:
                    await self._objects.head(tenant, key)
                except ObjectError as error:
                    _log.warning("a pack of the catalog is not seen", tenant=tenant, pack=key, error=repr(error))
                    return False
                return True

        ordered = sorted(keys)
        try:
            async with asyncio.timeout(self._timeout):
                found = await asyncio.gather(*(there(key) for key in ordered))
        except TimeoutError:
            return frozenset()  # then the instances are stored again, which is harmless
        return frozenset(key for key, seen in zip(ordered, found, strict=True) if seen)

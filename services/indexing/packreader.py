"""Reading what packs say of themselves: one ranged GET each, the compressed bytes kept for a while."""

import asyncio
from collections import OrderedDict

from libs.objects import BucketMissing, ObjectError, ObjectNotFound, ObjectStore, ObjectsUnavailable
from libs.packs import InvalidPack, PackIndex, locate_index, pack_key, read_index
from libs.packs.reader import TAIL
from services.indexing.domain import PackPlace
from services.indexing.errors import UnusablePack

_TAIL_GUESS = 64 * 1024
_IN_THREAD = 64 * 1024


class PackReader:
    """Reads pack indexes.

    Arguments:
        objects: the object store.
        cache_bytes: compressed indexes that are kept.
        at_once: reads under way at one time.
    """

    def __init__(self, objects: ObjectStore, *, cache_bytes: int, at_once: int) -> None:
        self._objects = objects
        self._cache: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._cached = 0
        self._cache_bytes = cache_bytes
        self._slots = asyncio.Semaphore(at_once)

    async def read(self, tenant: str, place: PackPlace) -> PackIndex:
        """The index of a pack whose place is known.

        Raises:
            UnusablePack: it is not there, damaged, or another pack than its key says.
            ObjectsUnavailable: the object store is away.
        """
        async with self._slots:
            content = self._cached_content(tenant, place.key)
            if content is None:
                content = await self._content(tenant, place)
                self._keep(tenant, place.key, content)
            return await _parse(place.key, content)

    async def find(self, tenant: str, key: str) -> tuple[PackPlace, PackIndex]:
        """The index of a pack of which only the key is known: the pack's tail says where it is.

        Raises:
            As ``read``.
        """
        async with self._slots:
            try:
                tail, size = await self._objects.get_tail(tenant, key, _TAIL_GUESS)
                offset, length = locate_index(tail[-min(len(tail), TAIL) :], size)
                place = PackPlace(key, size, offset, length)
                start = offset - (size - len(tail))
                content = tail[start : start + length] if start >= 0 else await self._content(tenant, place)
            except InvalidPack as error:
                raise UnusablePack(str(error)) from error
            except ObjectsUnavailable:
                raise
            except ObjectError as error:
                raise UnusablePack(str(error)) from error
            self._keep(tenant, key, content)
            return place, await _parse(key, content)

    async def _content(self, tenant: str, place: PackPlace) -> bytes:
        try:
            return await self._objects.get_range(tenant, place.key, place.index_offset, place.index_length)
        except ObjectsUnavailable:
            raise
        except (ObjectNotFound, BucketMissing) as error:
            raise UnusablePack("there is no such pack in the tenant's bucket") from error
        except ObjectError as error:
            raise UnusablePack(str(error)) from error

    def _cached_content(self, tenant: str, key: str) -> bytes | None:
        content = self._cache.get((tenant, key))
        if content is not None:
            self._cache.move_to_end((tenant, key))
        return content

    def _keep(self, tenant: str, key: str, content: bytes) -> None:
        if len(content) > self._cache_bytes or (tenant, key) in self._cache:
            return
        self._cache[tenant, key] = content
        self._cached += len(content)
        while self._cached > self._cache_bytes:
            _, dropped = self._cache.popitem(last=False)
            self._cached -= len(dropped)


async def _parse(key: str, content: bytes) -> PackIndex:
    """The index, which must be that of the pack: the key is a hash over what the pack holds."""
    try:
        index = await asyncio.to_thread(read_index, content) if len(content) > _IN_THREAD else read_index(content)
    except InvalidPack as error:
        raise UnusablePack(str(error)) from error
    held = [(instance.sop_instance_uid, instance.sha256) for instance in index.instances]
    if pack_key(index.study, index.series, held) != key:
        raise UnusablePack("the pack holds something else than its key says")
    return index

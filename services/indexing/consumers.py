"""``instances.stored``: from events to packs to the catalog."""

import asyncio
from collections import defaultdict

from sqlalchemy.exc import DBAPIError

from libs.events import INSTANCES_STORED, Envelope, InstancesStored, InvalidEvent, consume
from services.indexing.domain import IndexedPack, PackPlace
from services.indexing.errors import UnusablePack
from services.indexing.handlers import in_chunks, index_packs, read_pack
from services.indexing.resources import SERVICE, Resources

Event = Envelope[InstancesStored]
_DATA_EXCEPTION = "22"
"""The class of SQLSTATE for values that no column takes (PostgreSQL, appendix A)."""


async def consume_instances(resources: Resources, bootstrap: str, *, max_batch: int, stop: asyncio.Event) -> None:
    """Indexes what is stored, until ``stop`` is set."""

    async def handle(events: list[Event]) -> None:
        await handle_events(resources, events)

    await consume(
        INSTANCES_STORED,
        SERVICE,
        handle,
        bootstrap=bootstrap,
        producer=resources.producer,
        max_batch=max_batch,
        stop=stop,
    )


async def handle_events(resources: Resources, events: list[Event]) -> None:
    """Indexes the packs of a batch of events, tenant by tenant, those with the fewest instances first.

    So a tenant's few images are seen before another one's archive is dealt with, not after it.

    Raises:
        InvalidEvent: a pack can't be indexed, now or ever.
        ObjectsUnavailable, SQLAlchemyError: a server is away; to be tried again.
    """
    by_tenant: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        by_tenant[event.tenant].append(event)
    for tenant, theirs in sorted(by_tenant.items(), key=lambda one: sum(event.data.instance_count for event in one[1])):
        packs = await _read(resources, theirs)
        for chunk in in_chunks(packs, resources.max_instances):
            try:
                await index_packs(resources, tenant, chunk)
            except UnusablePack as error:
                raise InvalidEvent(f"an earlier pack can't be read: {error}") from error
            except DBAPIError as error:
                state = getattr(error.orig, "sqlstate", None) or ""
                if state.startswith(_DATA_EXCEPTION):
                    raise InvalidEvent(f"a value does not fit the catalog (SQLSTATE {state})") from error
                raise


async def _read(resources: Resources, events: list[Event]) -> list[IndexedPack]:
    results = await asyncio.gather(*(_read_one(resources, event) for event in events), return_exceptions=True)
    packs: list[IndexedPack] = []
    unusable: dict[str, list[Event]] = defaultdict(list)
    for event, result in zip(events, results, strict=True):
        if isinstance(result, UnusablePack):
            unusable[str(result)].append(event)
        elif isinstance(result, BaseException):
            raise result
        else:
            packs.append(result)
    for reason, those in unusable.items():
        raise InvalidEvent(reason, [event.id for event in those])
    return packs


async def _read_one(resources: Resources, event: Event) -> IndexedPack:
    data = event.data
    place = PackPlace(data.pack_key, data.pack_size, data.index_offset, data.index_length)
    pack = await read_pack(resources, event.tenant, place)
    if (pack.study_uid, pack.series_uid) != (data.study_uid, data.series_uid):
        raise UnusablePack("the pack is of another study or series than the event says")
    return pack

"""Comparing the bucket with the catalog, both ways, slice by slice. Nothing is ever deleted.

A pack that the catalog does not have was stored without being announced (a crash, a lost event): it is announced again.
A pack of the catalog that is not in the bucket is lost data: it is reported in the log, a metric and the audit record.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from prometheus_client import Counter
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.catalog.packs import PackRow, count_in_pack, known_packs, list_packs
from libs.events import INSTANCES_STORED, AuditRecorded, InstancesStored, envelope
from libs.objects import ObjectError, ObjectNotFound, ObjectsUnavailable, StoredObject
from libs.packs import InvalidPack, locate_index, pack_key, read_index
from libs.tenancy import tenant_transaction
from services.ingest_gateway.handlers import SERVICE, Storing

PACKS: Final = "packs/"
_TAIL: Final = 256 << 10
"""How many last bytes of a pack are read at first; they hold its index, unless it is a large one."""
_AT_ONCE: Final = 8
_ANNOUNCED = Counter("lightbox_reconcile_announced_total", "Packs that were announced again", ["tenant"])
_MISSING = Counter("lightbox_reconcile_missing_total", "Packs of the catalog that were not in the bucket", ["tenant"])
_UNUSABLE = Counter("lightbox_reconcile_unusable_total", "Packs in the bucket that can't be read", ["tenant"])
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Reconciling:
    """What reconciling works with.

    Attributes:
        storing: the object store, the event log, the audit record.
        engine: the catalog.
        grace: the age from which a pack should have been indexed.
        rate: packs a second that are looked at one by one, at most.
    """

    storing: Storing
    engine: AsyncEngine
    grace: timedelta
    rate: float


@dataclass
class Slice:
    """What one slice has found.

    Attributes:
        checked: packs that were looked at.
        position: where the next slice begins.
        finished: whether there is nothing behind it.
        announced: keys of packs that were announced again.
        missing: keys of packs of the catalog that are not in the bucket, or have another size there.
        unusable: keys of packs in the bucket that can't be read.
    """

    checked: int = 0
    position: str = ""
    finished: bool = False
    announced: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)

    @property
    def found(self) -> int:
        """How many were not as they should be."""
        return len(self.announced) + len(self.missing) + len(self.unusable)


async def check_bucket(reconciling: Reconciling, tenant: str, position: str, most: int) -> Slice:
    """Looks at packs in the bucket, and announces again those that the catalog should have and does not.

    Arguments:
        reconciling: what it works with.
        tenant: whose bucket.
        position: the key behind which it begins.
        most: packs at most.

    Raises:
        ObjectError, EventsUnavailable, SQLAlchemyError: a server is away; nothing is lost by doing it again.
    """
    found: list[StoredObject] = []
    async for entry in reconciling.storing.objects.list(tenant, PACKS, after=position):
        found.append(entry)
        if len(found) == most:
            break
    done = Slice(checked=len(found), finished=len(found) < most, position=found[-1].key if found else position)
    old = [entry for entry in found if entry.modified < datetime.now(UTC) - reconciling.grace]
    async with tenant_transaction(reconciling.engine, tenant) as connection:
        known = await known_packs(connection, [entry.key for entry in old])
    events: list[InstancesStored] = []
    for entry in old:
        if entry.key in known:
            continue
        try:
            events.append(await _describe(reconciling, tenant, entry.key))
            done.announced.append(entry.key)
        except ObjectNotFound:
            continue
        except InvalidPack as error:
            done.unusable.append(entry.key)
            _log.error("a pack in the bucket can't be read", tenant=tenant, pack=entry.key, reason=str(error))
        await asyncio.sleep(1 / reconciling.rate)
    if events:
        await reconciling.storing.producer.publish(
            INSTANCES_STORED, [envelope(INSTANCES_STORED, tenant, event) for event in events]
        )
        _log.warning("packs were announced again", tenant=tenant, packs=len(events))
    _ANNOUNCED.labels(tenant).inc(len(events))
    _UNUSABLE.labels(tenant).inc(len(done.unusable))
    return done


async def check_catalog(reconciling: Reconciling, tenant: str, position: str, most: int) -> Slice:
    """Looks whether packs of the catalog are in the bucket, and reports those that are not.

    Arguments:
        reconciling: what it works with.
        tenant: whose catalog.
        position: the pack's ``id`` behind which it begins, as text.
        most: packs at most.

    Raises:
        ObjectError, SQLAlchemyError, AuditUnavailable: a server is away; do it again.
    """
    async with tenant_transaction(reconciling.engine, tenant) as connection:
        rows = await list_packs(connection, int(position or 0), most)
    done = Slice(checked=len(rows), finished=len(rows) < most, position=str(rows[-1].id) if rows else position)
    for start in range(0, len(rows), _AT_ONCE):
        together = rows[start : start + _AT_ONCE]
        began = asyncio.get_running_loop().time()
        wrong = await asyncio.gather(*(_is_wrong(reconciling, tenant, row) for row in together))
        await _report(reconciling, tenant, [(row, why) for row, why in zip(together, wrong, strict=True) if why], done)
        passed = asyncio.get_running_loop().time() - began
        await asyncio.sleep(max(0.0, len(together) / reconciling.rate - passed))
    return done


async def _describe(reconciling: Reconciling, tenant: str, key: str) -> InstancesStored:
    """The event that tells of a pack, from the pack itself."""
    objects = reconciling.storing.objects
    tail, size = await objects.get_tail(tenant, key, _TAIL)
    offset, length = locate_index(tail, size)
    start = offset - (size - len(tail))
    try:
        entry = tail[start : start + length] if start >= 0 else await objects.get_range(tenant, key, offset, length)
    except ObjectsUnavailable:
        raise
    except ObjectError as error:
        raise InvalidPack(str(error)) from error
    index = await asyncio.to_thread(read_index, entry)
    held = [(instance.sop_instance_uid, instance.sha256) for instance in index.instances]
    if pack_key(index.study, index.series, held) != key:
        raise InvalidPack("It holds something else than its key says.")
    return InstancesStored(
        study_uid=index.study,
        series_uid=index.series,
        pack_key=key,
        pack_size=size,
        index_offset=offset,
        index_length=length,
        instance_count=len(index.instances),
        source=index.source,
    )


async def _is_wrong(reconciling: Reconciling, tenant: str, row: PackRow) -> str:
    """What is wrong with a pack of the catalog; nothing when it is there."""
    try:
        size = await reconciling.storing.objects.head(tenant, row.key)
    except ObjectNotFound:
        return "it is not in the bucket"
    return "" if size == row.size else f"it has {size} bytes in the bucket and {row.size} in the catalog"


async def _report(reconciling: Reconciling, tenant: str, wrong: Sequence[tuple[PackRow, str]], done: Slice) -> None:
    for row, why in wrong:
        async with tenant_transaction(reconciling.engine, tenant) as connection:
            count = await count_in_pack(connection, row)
        if not count:
            _log.info("a pack is gone of which nothing is needed", tenant=tenant, pack=row.key)
            continue
        done.missing.append(row.key)
        _MISSING.labels(tenant).inc()
        _log.critical("a pack of the catalog is lost", tenant=tenant, pack=row.key, instances=count, reason=why)
        await reconciling.storing.audit.record(
            tenant,
            AuditRecorded(
                action="retrieve",
                outcome="serious-failure",
                actor=f"service:{SERVICE}",
                service=SERVICE,
                study_uid=row.key.split("/")[1] if row.key.count("/") == 3 else "",
                resource="reconcile",
                instance_count=count,
                detail=f"the pack {row.key} of the catalog is lost: {why}",
            ),
        )

"""What this service keeps and looks up: packs in the tenant's bucket, instances in the catalog."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Collection
from typing import Final

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.crash import crash_point
from libs.dicom import read_header
from libs.events.models import InstancesStored
from libs.objects import AlreadyExists, ObjectStore
from libs.packs import InvalidPack, MeasuredInput, PackLayout, lay_out_pack, locate_index, pack_key, read_index
from libs.tenancy import DATABASE_ERRORS, tenant_transaction
from services.ingest_gateway.domain import Instance, PlannedPack
from services.ingest_gateway.duplicates import Earlier, TenantRules
from services.ingest_gateway.fairness import ThreadTurns, Turns
from services.ingest_gateway.spool import RequestSpool

_SLOWEST: Final = 2 << 20
"""Bytes a second at which an upload to the object store still counts as one that makes progress."""
_TAIL: Final = 256 << 10
"""How many last bytes of an earlier pack are read at first; they hold its index, unless it is a large one."""
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.25
_RULES = text("SELECT duplicates, requests_at_once FROM tenants WHERE id = :tenant")
_EARLIER = text("""
SELECT i.sop_uid, encode(i.sha256, 'hex') AS sha256, p.key, true AS shown
FROM instances i JOIN packs p ON p.tenant_id = i.tenant_id AND p.id = i.pack_key
WHERE i.sop_uid = ANY(CAST(:uids AS text[]))
UNION ALL
SELECT v.sop_uid, encode(v.sha256, 'hex'), p.key, false
FROM instance_versions v JOIN packs p ON p.tenant_id = v.tenant_id AND p.id = v.pack_key
WHERE v.sop_uid = ANY(CAST(:uids AS text[]))
""")
_log = structlog.get_logger(__name__)


async def put_pack(
    objects: ObjectStore,
    spool: RequestSpool,
    tenant: str,
    pack: PlannedPack,
    *,
    blocks: Turns,
    source: str,
    timeout: float,
) -> InstancesStored:
    """Stores a pack under its key, its instances sent from where they lie. When this returns it is durable.

    Arguments:
        objects: the object store.
        spool: where the instances are; their files are removed afterwards.
        tenant: whose bucket.
        pack: what to put in.
        blocks: turns at sending a block of it.
        source: who sent it.
        timeout: seconds for a small pack; a large one gets more.

    Returns:
        the event that tells of it.

    Raises:
        ObjectError: the object store did not take it.
        TimeoutError: it took too long.
        StorageFull: the spool's disk is full.
        InvalidPack: another object is stored under the key.
    """
    key = pack_key(pack.study_uid, pack.series_uid, (instance.content for instance in pack.instances))
    turns = ThreadTurns(blocks, tenant)
    try:
        layout = await spool.run(_lay_out, pack, source)
        built = layout.info
        crash_point("ingest.pack_built")
        async with asyncio.timeout(timeout + built.size / _SLOWEST):
            try:
                await objects.put_new_pieces(tenant, key, layout.pieces, layout.crc32, before=turns)
                crash_point("ingest.pack_stored")
                size, offset, length = built.size, built.index_offset, built.index_length
            except AlreadyExists:
                # A retry: the earlier pack holds the same instances and differs in the time of its writing only.
                size, offset, length = await _locate_earlier(objects, tenant, key, pack)
    finally:
        turns.close()
        await asyncio.shield(spool.run(_remove_files, pack.instances))
    return InstancesStored(
        study_uid=pack.study_uid,
        series_uid=pack.series_uid,
        pack_key=key,
        pack_size=size,
        index_offset=offset,
        index_length=length,
        instance_count=len(pack.instances),
        source=source,
    )


async def _locate_earlier(objects: ObjectStore, tenant: str, key: str, pack: PlannedPack) -> tuple[int, int, int]:
    """Size and place of the index of a pack that is stored already, after checking that it holds the instances."""
    tail, size = await objects.get_tail(tenant, key, _TAIL)
    offset, length = locate_index(tail, size)
    start = size - len(tail)
    if offset >= start:
        entry = tail[offset - start : offset - start + length]
    else:
        entry = await objects.get_range(tenant, key, offset, length)
    listed = {(i.sop_instance_uid, i.sha256) for i in read_index(entry).instances}
    if listed != {instance.content for instance in pack.instances}:
        _log.error("a stored pack does not hold what its key says", tenant=tenant, key=key)
        raise InvalidPack("another object is stored under the key of this pack")
    return size, offset, length


def _lay_out(pack: PlannedPack, source: str) -> PackLayout:
    inputs = (MeasuredInput(i.header or read_header(i.path), i.path, i.size, i.sha256, i.crc32) for i in pack.instances)
    return lay_out_pack(
        inputs, study=pack.study_uid, series=pack.series_uid, stored=pack.stored, source=source, rule=pack.rule
    )


def _remove_files(instances: Collection[Instance]) -> None:
    for instance in instances:
        instance.path.unlink(missing_ok=True)


async def read_rules(engine: AsyncEngine, tenant: str) -> TenantRules:
    """How the tenant's instances are stored; the defaults for a tenant that is not known."""
    async with tenant_transaction(engine, tenant) as connection:
        row = (await connection.execute(_RULES, {"tenant": tenant})).one_or_none()
    return TenantRules(row.duplicates, row.requests_at_once) if row is not None else TenantRules()


async def find_earlier(engine: AsyncEngine, tenant: str, uids: Collection[str]) -> dict[str, Earlier]:
    """What the catalog has under these SOP Instance UIDs, shown or kept as a version.

    Raises:
        SQLAlchemyError, OSError: the catalog is away.
    """
    shown: dict[str, str] = {}
    packs: dict[str, dict[str, str]] = defaultdict(dict)
    async with tenant_transaction(engine, tenant) as connection:
        for row in await connection.execute(_EARLIER, {"uids": list(uids)}):
            packs[row.sop_uid][row.sha256] = row.key
            if row.shown:
                shown[row.sop_uid] = row.sha256
    return {uid: Earlier(shown.get(uid, ""), found) for uid, found in packs.items()}


async def wait_until_visible(engine: AsyncEngine, tenant: str, uids: Collection[str], *, timeout: float) -> bool:
    """Waits until the catalog has all of these SOP Instance UIDs.

    Returns:
        whether they came within ``timeout`` seconds.
    """
    wanted = set(uids)
    pause = _FIRST_PAUSE
    deadline = time.monotonic() + timeout
    while wanted and (left := deadline - time.monotonic()) > 0:
        try:
            async with asyncio.timeout(left):
                wanted -= (await find_earlier(engine, tenant, wanted)).keys()
        except DATABASE_ERRORS as error:
            _log.warning("the catalog was not asked", error=repr(error))
        if wanted:
            await asyncio.sleep(min(pause, max(0.0, deadline - time.monotonic())))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
    return not wanted

"""``python -m services indexing reindex``: the catalog, built anew from the buckets alone."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TextIO

import structlog

from libs.catalog.packs import known_packs
from libs.objects import StoredObject
from libs.tenancy import tenant_transaction
from services.indexing import store, store_derived
from services.indexing.domain import IndexedPack
from services.indexing.errors import UnusablePack
from services.indexing.handlers import find_pack, in_chunks, index_packs, renew_document
from services.indexing.resources import Resources, open_resources
from services.indexing.settings import Settings

_TOGETHER = 200
_log = structlog.get_logger(__name__)


@dataclass
class Progress:
    """How far it is, told once a second: on one line of a terminal, else on lines of their own.

    Attributes:
        out: where it is told.
        as_json: lines of JSON, for whoever draws it.
        tenant: whose bucket it is.
        total: packs in the bucket.
        packs: packs that are done.
        instances: instances in them.
        unusable: packs that can't be indexed.
    """

    out: TextIO
    as_json: bool = False
    tenant: str = ""
    total: int = 0
    packs: int = 0
    instances: int = 0
    unusable: int = 0
    started: float = 0.0
    told: float = 0.0

    def begin(self, tenant: str, total: int) -> None:
        """Starts with a bucket."""
        self.tenant, self.total, self.packs, self.instances = tenant, total, 0, 0
        self.started = self.told = time.monotonic()
        if self.as_json:
            self.tell(last=True)

    def tell(self, *, last: bool = False) -> None:
        """Says how far it is, unless it was said just now."""
        now = time.monotonic()
        if not last and now - self.told < 1:
            return
        self.told = now
        if self.as_json:
            told = {name: getattr(self, name) for name in ("tenant", "total", "packs", "instances", "unusable")}
            self.out.write(json.dumps(told) + "\n")
            self.out.flush()
            return
        passed = max(now - self.started, 1e-6)
        rate = self.packs / passed
        left = f", {(self.total - self.packs) / rate:.0f} s left" if rate and not last else ""
        line = (
            f"{self.tenant}: {self.packs} of {self.total} packs, {self.instances} instances, "
            f"{self.instances / passed:.0f} instances/s{left}"
        )
        if self.out.isatty():
            self.out.write(f"\r\x1b[K{line}" + ("\n" if last else ""))
        else:
            self.out.write(line + "\n")
        self.out.flush()


def reindex_command(settings: Settings, arguments: list[str]) -> int:
    """Runs the command; the exit code is 1 when a pack could not be indexed.

    Arguments:
        settings: as the service's.
        arguments: those after ``reindex``.
    """
    parser = argparse.ArgumentParser(prog="python -m services indexing reindex", description=__doc__)
    parser.add_argument("--tenant", action="append", default=[], help="only this tenant; may be repeated")
    parser.add_argument("--drop", action="store_true", help="empty the tenant's catalog first")
    parser.add_argument("--missing", action="store_true", help="only packs that the catalog does not have")
    parser.add_argument("--json", action="store_true", help="tell the progress in lines of JSON")
    options = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    progress = Progress(sys.stdout, options.json)
    asyncio.run(_run(settings, progress, tenants=options.tenant, drop=options.drop, missing=options.missing))
    return 1 if progress.unusable else 0


async def _run(settings: Settings, progress: Progress, *, tenants: list[str], drop: bool, missing: bool) -> None:
    async with open_resources(settings) as resources:
        for tenant in tenants or list(await resources.objects.tenants()):
            await reindex_tenant(resources, tenant, progress, drop=drop, missing=missing)


async def reindex_tenant(
    resources: Resources, tenant: str, progress: Progress, *, drop: bool = False, missing: bool = False
) -> None:
    """Brings every pack of the tenant's bucket into the catalog. It may be broken off and started again.

    Arguments:
        resources: what the service works with.
        tenant: whose bucket.
        progress: told how far it is.
        drop: empty the tenant's catalog first, and remove the documents that belong to it.
        missing: leave out packs that the catalog has.

    Raises:
        BucketMissing: the tenant has no bucket.
        ObjectsUnavailable, SQLAlchemyError: a server is away; what was done stays done.
    """
    total = 0
    async for _ in resources.objects.list(tenant, "packs/"):
        total += 1
    if drop:
        await _drop(resources, tenant)
    progress.begin(tenant, total)
    async for objects in _together(resources.objects.list(tenant, "packs/")):
        keys = [found.key for found in objects]
        if missing:
            async with tenant_transaction(resources.engine, tenant) as connection:
                known = await known_packs(connection, keys)
            keys = [key for key in keys if key not in known]
        packs = await _read(resources, tenant, keys, progress)
        for chunk in in_chunks(packs, resources.max_instances):
            await index_packs(resources, tenant, chunk)
            progress.instances += sum(len(pack.copies) for pack in chunk)
        progress.packs += len(objects)
        progress.tell()
    await _renew_stale(resources, tenant)
    progress.tell(last=True)


async def _drop(resources: Resources, tenant: str) -> None:
    async with tenant_transaction(resources.engine, tenant) as connection:
        await store.lock_tenant(connection)
        await store_derived.empty_catalog(connection)
    async for document in resources.objects.list(tenant, "metadata/"):
        await resources.objects.delete(tenant, document.key)


async def _read(resources: Resources, tenant: str, keys: list[str], progress: Progress) -> list[IndexedPack]:
    results = await asyncio.gather(*(find_pack(resources, tenant, key) for key in keys), return_exceptions=True)
    packs: list[IndexedPack] = []
    for key, result in zip(keys, results, strict=True):
        if isinstance(result, UnusablePack):
            progress.unusable += 1
            _log.error("a pack can't be indexed", tenant=tenant, pack=key, reason=str(result))
        elif isinstance(result, BaseException):
            raise result
        else:
            packs.append(result)
    return packs


async def _renew_stale(resources: Resources, tenant: str) -> None:
    """Writes documents that an earlier run did not come to."""
    async with tenant_transaction(resources.engine, tenant) as connection:
        stale = await store_derived.all_stale_series(connection, limit=100_000)
    for key in stale:
        await renew_document(resources, tenant, key)


async def _together(objects: AsyncIterator[StoredObject]) -> AsyncIterator[list[StoredObject]]:
    some: list[StoredObject] = []
    async for found in objects:
        some.append(found)
        if len(some) == _TOGETHER:
            yield some
            some = []
    if some:
        yield some

"""Reconciling, in the background of the service and as ``python -m services ingest_gateway reconcile``."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import uniform
from typing import Any, Final, TextIO

import structlog
from sqlalchemy.exc import SQLAlchemyError

from libs.events import AuditUnavailable, EventsUnavailable
from libs.objects import ObjectError
from libs.tenancy import tenant_transaction
from services.ingest_gateway import store_reconciling as store
from services.ingest_gateway.handlers_decisions import remove_expired
from services.ingest_gateway.handlers_reconcile import Reconciling, Slice, check_bucket, check_catalog
from services.ingest_gateway.resources import Resources, open_resources
from services.ingest_gateway.settings import Settings

_Check = Callable[[Reconciling, str, str, int], Awaitable[Slice]]
CHECKS: Final[Mapping[store.Direction, tuple[_Check, int]]] = {
    "bucket": (check_bucket, 1000),
    "catalog": (check_catalog, 200),
}
"""For each direction what looks at a slice, and how many packs a slice has."""
_STALE_UPLOAD: Final = timedelta(days=1)
_IDLE: Final = 30.0
"""Seconds between two looks for something to do."""
_FAULTS: Final = (ObjectError, EventsUnavailable, AuditUnavailable, SQLAlchemyError, OSError, TimeoutError)
_log = structlog.get_logger(__name__)


def reconciling_of(resources: Resources, settings: Settings) -> Reconciling:
    """What reconciling works with, as it is set."""
    grace = timedelta(seconds=settings.reconcile_grace)
    return Reconciling(resources.storing, resources.engine, grace, settings.reconcile_rate)


async def reconcile_in_background(resources: Resources, settings: Settings, stop: asyncio.Event) -> None:
    """Compares all buckets with the catalog again and again, until told to stop.

    Of several replicas one works on a tenant at a time. How far it is is kept in the database, so that a restart goes
    on where the last process was.
    """
    reconciling = reconciling_of(resources, settings)
    pauses: dict[store.Direction, float] = {
        "bucket": settings.reconcile_bucket_pause,
        "catalog": settings.reconcile_catalog_pause,
    }
    while not await _stopped(stop, _IDLE * uniform(0.7, 1.3)):
        try:
            tenants = await resources.objects.tenants()
        except _FAULTS as error:
            _log.warning("reconciling waits: the buckets can't be listed", error=repr(error))
            continue
        for tenant in tenants:
            for direction, pause in pauses.items():
                if stop.is_set():
                    return
                try:
                    await _go_on(reconciling, tenant, direction, pause, stop)
                except _FAULTS as error:
                    _log.warning("reconciling waits", tenant=tenant, direction=direction, error=repr(error))


async def _go_on(
    reconciling: Reconciling, tenant: str, direction: store.Direction, pause: float, stop: asyncio.Event
) -> None:
    """Slice after slice of one pass, until it ends."""
    more = True
    while more and not stop.is_set():
        more = await reconcile_slice(reconciling, tenant, direction, pause)


async def reconcile_slice(reconciling: Reconciling, tenant: str, direction: store.Direction, pause: float) -> bool:
    """Does one slice of the tenant's pass in a direction, unless somebody else does or it is not yet due.

    Arguments:
        reconciling: what it works with.
        tenant: whose.
        direction: which way.
        pause: seconds between the end of a pass and the beginning of the next.

    Returns:
        whether there is more of this pass to do.

    Raises:
        ObjectError, EventsUnavailable, AuditUnavailable, SQLAlchemyError: a server is away; the slice is done again.
    """
    check, most = CHECKS[direction]
    async with tenant_transaction(reconciling.engine, tenant) as connection:
        if not await store.try_lock(connection, direction):
            return False
        current = await store.current_pass(connection, direction, pause)
        if current is None:
            return False
        done = await check(reconciling, tenant, current.position, most)
        current = replace(
            current,
            position=done.position,
            checked=current.checked + done.checked,
            found=current.found + done.found,
        )
        if done.finished and direction == "bucket":
            await tidy(reconciling, tenant)
        await store.keep_pass(connection, direction, current, finished=done.finished)
    if done.finished and current.found:
        _log.warning("reconciled", tenant=tenant, direction=direction, checked=current.checked, found=current.found)
    return not done.finished


async def tidy(reconciling: Reconciling, tenant: str) -> None:
    """Removes what is too old: entries of the quarantine, and uploads in parts that were never completed."""
    removed = await remove_expired(reconciling.storing, tenant)
    given_up = await reconciling.storing.objects.abort_uploads(tenant, _STALE_UPLOAD)
    if removed or given_up:
        _log.info("tidied", tenant=tenant, quarantine=removed, uploads=given_up)


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    """Waits; whether it was told to stop meanwhile."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True


@dataclass
class Report:
    """What the command has found in one tenant, told once a second.

    Attributes:
        tenant: whose bucket and catalog.
        direction: which way it is looking.
        bucket: packs of the bucket that were looked at.
        catalog: packs of the catalog that were looked at.
        announced: packs that were announced again.
        missing: packs of the catalog that are lost.
        unusable: packs of the bucket that can't be read.
    """

    tenant: str
    direction: store.Direction = "bucket"
    bucket: int = 0
    catalog: int = 0
    announced: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unusable: list[str] = field(default_factory=list)
    done: bool = False

    def add(self, part: Slice) -> None:
        """Takes in a slice."""
        if self.direction == "bucket":
            self.bucket += part.checked
        else:
            self.catalog += part.checked
        self.announced += part.announced
        self.missing += part.missing
        self.unusable += part.unusable

    def in_words(self) -> str:
        """One line for people."""
        return (
            f"{self.tenant}: {self.bucket} packs in the bucket, {self.catalog} in the catalog, "
            f"{len(self.announced)} announced again, {len(self.missing)} lost, {len(self.unusable)} unreadable"
        )


def reconcile_command(settings: Settings, arguments: list[str]) -> int:
    """Runs the command; the exit code is 1 when a pack is lost or can't be read.

    Arguments:
        settings: as the service's.
        arguments: those after ``reconcile``.
    """
    parser = argparse.ArgumentParser(prog="python -m services ingest_gateway reconcile", description=__doc__)
    parser.add_argument("--tenant", action="append", default=[], help="only this tenant; may be repeated")
    parser.add_argument("--rate", type=float, default=200, help="packs a second that are looked at one by one")
    parser.add_argument("--grace", type=float, default=settings.reconcile_grace, help="seconds that indexing may take")
    parser.add_argument("--json", action="store_true", help="tell the progress in lines of JSON")
    options = parser.parse_args(arguments)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    if options.rate <= 0 or options.grace < 0:
        parser.error("the rate must be above 0, the grace not below it")
    reports = asyncio.run(_run(settings, options, sys.stdout))
    return 1 if any(report.missing or report.unusable for report in reports) else 0


async def _run(settings: Settings, options: Any, out: TextIO) -> list[Report]:
    # A command beside a running service: it must not take over what lies in the service's spool.
    beside = settings.model_copy(update={"spool_dir": settings.spool_dir / "reconcile"})
    async with open_resources(beside) as resources:
        grace = timedelta(seconds=options.grace)
        reconciling = Reconciling(resources.storing, resources.engine, grace, options.rate)
        tenants = options.tenant or list(await resources.objects.tenants())
        return [await reconcile_tenant(reconciling, tenant, out, as_json=options.json) for tenant in tenants]


async def reconcile_tenant(reconciling: Reconciling, tenant: str, out: TextIO, *, as_json: bool = False) -> Report:
    """One whole pass over a tenant in both directions, told as it goes.

    Raises:
        BucketMissing: the tenant has no bucket.
        ObjectError, EventsUnavailable, AuditUnavailable, SQLAlchemyError: a server is away; run it again.
    """
    report = Report(tenant)
    told = time.monotonic()
    for direction, (check, most) in CHECKS.items():
        report.direction = direction
        position, finished = "", False
        while not finished:
            part = await check(reconciling, tenant, position, most)
            position, finished = part.position, part.finished
            report.add(part)
            if time.monotonic() - told > 1:
                told = time.monotonic()
                _tell(report, out, as_json=as_json)
    report.done = True
    _tell(report, out, as_json=as_json)
    return report


def _tell(report: Report, out: TextIO, *, as_json: bool) -> None:
    if as_json:
        out.write(json.dumps(report.__dict__) + "\n")
    elif out.isatty():
        out.write(f"\r\x1b[K{report.in_words()}" + ("\n" if report.done else ""))
    else:
        out.write(report.in_words() + "\n")
    out.flush()

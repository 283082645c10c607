"""The use cases: store instances, make a tenant's bucket."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import orjson
import structlog
from prometheus_client import Counter, Histogram
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.crash import crash_point
from libs.dicom import DicomError, Header, read_header
from libs.events import (
    INSTANCES_STORED,
    AuditRecorded,
    AuditTrail,
    EventsUnavailable,
    InstancesStored,
    Producer,
    envelope,
)
from libs.objects import BucketMissing, ObjectError, ObjectStore
from libs.packs import InvalidPack, Rule
from libs.tenancy import SYSTEM_TENANT
from libs.web.problems import Problem
from services.ingest_gateway import store
from services.ingest_gateway.domain import (
    CANNOT_UNDERSTAND,
    NO_RESOURCES,
    PROCESSING_FAILURE,
    Instance,
    Outcome,
    PackLimits,
    PlannedPack,
    Reason,
    Sender,
    SpooledPart,
    not_announced,
    outcome_of,
    plan_packs,
    study_records,
    wrong_study,
)
from services.ingest_gateway.duplicates import (
    Policy,
    Sorted,
    packs_to_check,
    refusal,
    sort_duplicates,
    warn_of_differing,
)
from services.ingest_gateway.earlier import EarlierInstances
from services.ingest_gateway.errors import NotDurable, StorageFull
from services.ingest_gateway.fairness import TURN_BYTES, Turns
from services.ingest_gateway.handlers_quarantine import quarantine_refused
from services.ingest_gateway.quarantine import Quarantine
from services.ingest_gateway.rules import StoringRules
from services.ingest_gateway.spool import RequestSpool

SERVICE: Final = "ingest_gateway"
_KEPT_HEADERS: Final = 8 << 20
"""Bytes of DICOM JSON kept in memory for one request; beyond that a header is read again when its pack is built."""

_INSTANCES = Counter("lightbox_instances_received_total", "Instances received", ["tenant", "outcome"])
_BYTES = Counter("lightbox_instances_stored_bytes_total", "Bytes of instances stored", ["tenant"])
_PACK_SECONDS = Histogram("lightbox_pack_store_seconds", "Time to build and store one pack")
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class StoreLimits:
    """Bounds of storing; times in seconds.

    Attributes:
        pack: when a pack is full.
        uploads: packs of one request that are stored at once.
        store_timeout: for storing one small pack.
        publish_timeout: for Kafka to acknowledge.
        visible_timeout: how long a person waits for the catalog.
    """

    pack: PackLimits
    uploads: int
    store_timeout: float
    publish_timeout: float
    visible_timeout: float


@dataclass(frozen=True)
class Storing:
    """What storing works with.

    Attributes:
        objects: the object store.
        producer: publishes ``instances.stored``.
        audit: keeps one record a study.
        uploads: turns at building and uploading a pack, of all requests.
        blocks: turns at sending a block of a pack to the object store.
        limits: bounds of one request.
        rules: how each tenant's instances are stored.
        earlier: looks up what was stored before.
        quarantine: takes what is refused and can't be trusted.
    """

    objects: ObjectStore
    producer: Producer
    audit: AuditTrail
    uploads: Turns
    blocks: Turns
    limits: StoreLimits
    rules: StoringRules
    earlier: EarlierInstances
    quarantine: Quarantine


async def store_instances(
    spool: RequestSpool, sender: Sender, study_uid: str | None, storing: Storing, *, policy: Policy | None = None
) -> list[Outcome]:
    """Stores what is in the spool: packs into the bucket, then the events, and only then an outcome of success.

    What the catalog knows with the same bytes, and whose pack is there, is a success that writes nothing. What can't be
    trusted is kept in quarantine.

    Arguments:
        spool: the parts of the request, all of them whole.
        sender: who stores, and for which tenant.
        study_uid: the study named by the address, if any; instances of another one are refused.
        storing: what storing works with.
        policy: what is done with duplicates, where it is not what the tenant has chosen.

    Returns:
        one outcome a part, in the order of their arrival.

    Raises:
        NotDurable: there was something to store, and nothing of it could be made durable. A retry finds the packs that
            were stored without being announced.
        AuditUnavailable: what was done can't be recorded.
    """
    read = await read_instances(spool, study_uid)
    instances = [item for item in read if isinstance(item, Instance)]
    tenant = sender.tenant
    rules, earlier = await asyncio.gather(
        storing.rules.of(tenant), storing.earlier.find(tenant, {i.sop_instance_uid for i in instances})
    )
    rules = replace(rules, duplicates=policy or rules.duplicates)
    there = await storing.earlier.packs_there(tenant, packs_to_check(instances, earlier))
    duplicates = sort_duplicates(instances, earlier, there, rules.duplicates)
    read = [_refuse_duplicate(item, duplicates) if isinstance(item, Instance) else item for item in read]
    (read, failures) = await asyncio.gather(
        quarantine_refused(storing.quarantine, spool.parts, read, sender),
        _make_durable(spool, sender, duplicates.new, storing, rules.pack_rule),
    )
    outcomes = [
        outcome_of(item, failure=failures.get(item.content)) if isinstance(item, Instance) else item for item in read
    ]
    outcomes = warn_of_differing(outcomes, earlier, rules.duplicates)
    await _record_outcomes(storing.audit, sender, outcomes)
    _count(tenant, outcomes, duplicates.new)
    storable = {i.content for i in instances} - duplicates.refused
    if storable and len(failures) == len(storable):
        raise NotDurable(f"Nothing could be stored: {next(iter(failures.values())).words}. Send it again.")
    return outcomes


async def await_catalog(
    sender: Sender, outcomes: Sequence[Outcome], *, engine: AsyncEngine, limits: StoreLimits
) -> None:
    """Waits a bounded time until a person's next query will find what was stored; a machine does not wait."""
    if sender.is_person:
        stored = {outcome.sop_instance_uid for outcome in outcomes if outcome.stored}
        await store.wait_until_visible(engine, sender.tenant, stored, timeout=limits.visible_timeout)


async def read_instances(spool: RequestSpool, study_uid: str | None) -> list[Instance | Outcome]:
    """Reads the header of each part.

    Returns:
        an instance for each part that may be stored, an outcome of failure for each other one.
    """
    await spool.settle()
    budget = _HeaderBudget(_KEPT_HEADERS)
    return await asyncio.gather(*(_read_instance(spool, part, study_uid, budget) for part in spool.parts))


async def refuse_request(audit: AuditTrail, sender: Sender, study_uid: str | None, problem: Problem) -> None:
    """Records that a request was refused as a whole."""
    await audit.record(
        sender.tenant,
        AuditRecorded(
            action="refuse",
            outcome="serious-failure" if problem.status >= 500 else "minor-failure",
            actor=sender.subject,
            actor_name=sender.name,
            service=SERVICE,
            address=sender.address,
            study_uid=study_uid or "",
            resource=sender.resource,
            detail=f"{int(problem.status)} {problem.title}: {problem.detail}",
        ),
    )


async def refuse_association(audit: AuditTrail, sender: Sender, words: str) -> None:
    """Records that somebody was not let in through the DICOM door, or not any more."""
    await audit.record(
        sender.tenant,
        AuditRecorded(
            action="refuse",
            outcome="minor-failure",
            actor=sender.subject,
            actor_name=sender.name,
            service=SERVICE,
            address=sender.address,
            resource=sender.resource,
            detail=words,
        ),
    )


async def provision_tenant(objects: ObjectStore, tenant: str) -> None:
    """Makes the tenant's bucket; that it exists is no error. The operators' tenant has none."""
    if tenant != SYSTEM_TENANT:
        await objects.create_bucket(tenant)


class _HeaderBudget:
    """How much of what was read may stay in memory until the packs are built."""

    def __init__(self, size: int) -> None:
        self._left = size

    def keep(self, header: Header, weight: int) -> Header | None:
        """The header, or nothing when it is to be read again later."""
        self._left -= weight
        return header if self._left >= 0 else None


async def _read_instance(
    spool: RequestSpool, part: SpooledPart, study_uid: str | None, budget: _HeaderBudget
) -> Instance | Outcome:
    if part.refusal is not None:
        return Outcome(part.note.sop_instance_uid, part.note.sop_class_uid, failure=part.refusal)
    try:
        header, weight = await spool.run(_read, part)
    except DicomError as error:
        return Outcome(failure=Reason(error.failure_reason, error.reason))
    except StorageFull:
        raise  # what a deflated instance inflates to has no room: that says nothing of the instance
    except Exception as error:
        # Whatever a hostile file does to the reader, the other instances of the request go on.
        _log.error("a header could not be read", sha256=part.sha256, exc_info=error)
        return Outcome(failure=Reason(CANNOT_UNDERSTAND, "the instance can't be read"))
    instance = Instance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        study_uid=header.study_uid,
        series_uid=header.series_uid,
        path=part.path,
        size=part.size,
        sha256=part.sha256,
        crc32=part.crc32,
        weight=weight,
        header=budget.keep(header, weight),
        coercion=part.note.coercion,
    )
    if study_uid is not None and instance.study_uid != study_uid:
        return outcome_of(instance, failure=wrong_study())
    if part.announced not in (None, (instance.sop_class_uid, instance.sop_instance_uid)):
        return outcome_of(instance, failure=not_announced())
    return instance


def _read(part: SpooledPart) -> tuple[Header, int]:
    header = read_header(part.path)
    return header, len(orjson.dumps(header.dicom))


def _refuse_duplicate(instance: Instance, duplicates: Sorted) -> Instance | Outcome:
    return outcome_of(instance, failure=refusal()) if instance.content in duplicates.refused else instance


async def _make_durable(
    spool: RequestSpool, sender: Sender, instances: Sequence[Instance], storing: Storing, rule: Rule
) -> dict[tuple[str, str], Reason]:
    """Stores the packs and publishes their events.

    Returns:
        why instances are not durable: (SOP Instance UID, SHA-256) → reason; the others are.
    """
    limits = storing.limits
    packs = plan_packs(instances, limits.pack, datetime.now(UTC), rule)
    gate = asyncio.Semaphore(limits.uploads)
    away: Reason | None = None

    async def put(pack: PlannedPack) -> InstancesStored | Reason:
        nonlocal away
        async with gate:
            if away is not None:
                return away  # a sender of many series must not wait for the store's time-out once for each
            result = await _put_pack(spool, sender, pack, storing)
            if isinstance(result, Reason) and result.code == NO_RESOURCES:
                away = result
            return result

    results = await asyncio.gather(*(put(pack) for pack in packs))
    events = [result for result in results if isinstance(result, InstancesStored)]
    unpublished: Reason | None = None
    if events:
        try:
            envelopes = [envelope(INSTANCES_STORED, sender.tenant, event) for event in events]
            await storing.producer.publish(INSTANCES_STORED, envelopes, limits.publish_timeout)
            crash_point("ingest.announced")
        except EventsUnavailable as error:
            _log.warning("packs were stored and not announced", packs=len(events), error=repr(error))
            unpublished = Reason(NO_RESOURCES, "the event log did not acknowledge in time")
    failures: dict[tuple[str, str], Reason] = {}
    for pack, result in zip(packs, results, strict=True):
        reason = result if isinstance(result, Reason) else unpublished
        if reason is not None:
            failures.update({instance.content: reason for instance in pack.instances})
    return failures


async def _put_pack(
    spool: RequestSpool, sender: Sender, pack: PlannedPack, storing: Storing
) -> InstancesStored | Reason:
    """Stores one pack when its turn comes, or says why not."""
    cost = 1 + sum(instance.size for instance in pack.instances) / TURN_BYTES
    try:
        async with storing.uploads.turn(sender.tenant, cost, timeout=storing.limits.store_timeout):
            return await _put_in_turn(spool, sender, pack, storing)
    except TimeoutError:
        return Reason(NO_RESOURCES, "too many packs wait for the object store")


async def _put_in_turn(
    spool: RequestSpool, sender: Sender, pack: PlannedPack, storing: Storing
) -> InstancesStored | Reason:
    """Stores one pack, or says why not: what fails here must not fail the other packs of the request."""
    try:
        with _PACK_SECONDS.time():
            return await store.put_pack(
                storing.objects,
                spool,
                sender.tenant,
                pack,
                blocks=storing.blocks,
                source=sender.subject,
                timeout=storing.limits.store_timeout,
            )
    except BucketMissing:
        return Reason(NO_RESOURCES, "the storage of this tenant is not ready yet")
    except StorageFull as error:
        return Reason(NO_RESOURCES, error.detail)
    except (ObjectError, TimeoutError) as error:
        _log.warning("a pack was not stored", study=pack.study_uid, error=repr(error))
        return Reason(NO_RESOURCES, "the object store did not take it in time")
    except InvalidPack as error:
        return Reason(PROCESSING_FAILURE, str(error))
    except Exception as error:
        _log.error("a pack could not be built or stored", study=pack.study_uid, exc_info=error)
        return Reason(PROCESSING_FAILURE, "the instances could not be packed")


async def _record_outcomes(audit: AuditTrail, sender: Sender, outcomes: Sequence[Outcome]) -> None:
    """Keeps one audit record for each study of the request, and one for what could not be read."""
    for record in study_records(outcomes):
        await audit.record(
            sender.tenant,
            AuditRecorded(
                action="store" if record.study_uid else "refuse",
                outcome="success" if not record.failed else "minor-failure" if record.stored else "serious-failure",
                actor=sender.subject,
                actor_name=sender.name,
                service=SERVICE,
                address=sender.address,
                study_uid=record.study_uid,
                resource=sender.resource,
                instance_count=record.stored,
                detail=record.detail,
            ),
        )


def _count(tenant: str, outcomes: Sequence[Outcome], instances: Sequence[Instance]) -> None:
    stored = {(o.sop_instance_uid, o.sha256) for o in outcomes if o.stored}
    _INSTANCES.labels(tenant, "stored").inc(sum(outcome.stored for outcome in outcomes))
    _INSTANCES.labels(tenant, "failed").inc(sum(not outcome.stored for outcome in outcomes))
    _BYTES.labels(tenant).inc(sum({i.content: i.size for i in instances if i.content in stored}.values()))

"""The use cases of who looks after a quarantine: list, show, download, release, discard; and what age removes."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from libs.events import AuditRecorded, AuditTrail
from libs.events.models import Action
from libs.objects import BucketMissing, ObjectError, ObjectNotFound
from libs.tenancy import SYSTEM_TENANT
from libs.web.problems import Conflict, NotFound, Unavailable
from services.ingest_gateway.domain import Outcome, Sender
from services.ingest_gateway.duplicates import Policy
from services.ingest_gateway.handlers import SERVICE, Storing, store_instances
from services.ingest_gateway.quarantine import Entry
from services.ingest_gateway.spool import Spool


class StillRefused(Conflict):
    """What was released is refused by the present rules too, and stays in quarantine."""

    status = HTTPStatus.CONFLICT
    title = "It is refused again"


@dataclass(frozen=True)
class Usage:
    """How full a quarantine is.

    Attributes:
        entries: how many there are.
        size: bytes of all of them.
    """

    entries: int
    size: int


async def list_entries(storing: Storing, caller: Sender, after: str, limit: int) -> tuple[list[Entry], Usage]:
    """Entries in the order of their identifiers, and how full the quarantine is.

    Raises:
        Unavailable: the object store is away.
    """
    if caller.tenant == SYSTEM_TENANT:
        return [], Usage(0, 0)
    try:
        entries = await storing.quarantine.entries(caller.tenant, after, limit)
        usage = Usage(*await storing.quarantine.usage(caller.tenant))
    except BucketMissing:
        entries, usage = [], Usage(0, 0)
    except ObjectError as error:
        raise Unavailable(str(error)) from error
    await _record(storing.audit, caller, "query", "quarantine", count=len(entries))
    return entries, usage


async def show_entry(storing: Storing, caller: Sender, entry_id: str) -> Entry:
    """One entry.

    Raises:
        NotFound: the tenant has none of this identifier.
        Unavailable: the object store is away.
    """
    entry = await _find(storing, caller, entry_id)
    await _record(storing.audit, caller, "view", _named(entry), entry=entry)
    return entry


async def download_entry(storing: Storing, caller: Sender, entry_id: str) -> tuple[Entry, AsyncIterator[bytes]]:
    """One entry, and its bytes as they were received.

    Raises:
        NotFound: the tenant has none of this identifier.
        Unavailable: the object store is away.
    """
    entry = await _find(storing, caller, entry_id)
    pieces = storing.quarantine.stream(caller.tenant, entry_id)
    try:
        first = await anext(pieces, b"")
    except ObjectNotFound:
        raise _missing() from None
    except ObjectError as error:
        raise Unavailable(str(error)) from error
    await _record(storing.audit, caller, "retrieve", _named(entry), entry=entry)

    async def content() -> AsyncIterator[bytes]:
        yield first
        async for piece in pieces:
            yield piece

    return entry, content()


async def release_entry(storing: Storing, spool: Spool, caller: Sender, entry_id: str, *, as_version: bool) -> Outcome:
    """Stores what is in quarantine: the bytes as they are, on the way that everything takes, by the present rules.

    Arguments:
        storing: what storing works with.
        spool: takes the bytes for the time being.
        caller: who releases it.
        entry_id: which.
        as_version: where the UID is taken by other bytes, keep it as a version, whatever the tenant's policy.

    Returns:
        the outcome of success.

    Raises:
        NotFound: the tenant has none of this identifier.
        StillRefused: it is refused again; it stays.
        NotDurable, Unavailable, StorageFull: it could not be stored at the moment; it stays.
    """
    entry = await _find(storing, caller, entry_id)
    async with spool.request(entry.size, caller.tenant) as request:
        await request.begin_part()
        try:
            async for piece in storing.quarantine.stream(caller.tenant, entry_id):
                await request.write(piece)
        except ObjectNotFound:
            raise _missing() from None
        except ObjectError as error:
            raise Unavailable(str(error)) from error
        await request.end_part()
        await request.settle()
        if [part.sha256 for part in request.parts] != [entry.id]:
            raise StillRefused("The bytes in quarantine are not those that were received. They stay where they are.")
        policy: Policy | None = "keep-first" if as_version else None
        (outcome,) = await store_instances(request, caller, None, storing, policy=policy)
    if outcome.failure is not None:
        await _record(storing.audit, caller, "change", f"release refused: {_named(entry)}", entry=entry, success=False)
        raise StillRefused(f"It stays in quarantine: {outcome.failure.words}.")
    await _record(storing.audit, caller, "change", f"released: {_named(entry)}", entry=entry)
    await _remove(storing, caller.tenant, entry_id)
    return outcome


async def discard_entry(storing: Storing, caller: Sender, entry_id: str, reason: str) -> None:
    """Removes an entry for good. The record of it is written first.

    Raises:
        NotFound: the tenant has none of this identifier.
        Unavailable: the object store is away.
    """
    entry = await _find(storing, caller, entry_id)
    await _record(storing.audit, caller, "delete", f"discarded, because: {reason}. {_named(entry)}", entry=entry)
    await _remove(storing, caller.tenant, entry_id)


async def remove_expired(storing: Storing, tenant: str) -> int:
    """Removes what is older than the quarantine's limit, each with a record; how many there were.

    Raises:
        ObjectError: the object store is away.
    """
    service = Sender(tenant, f"service:{SERVICE}", "", is_person=False, address="", resource="quarantine expiry")
    removed = await storing.quarantine.expired(tenant, datetime.now(UTC))
    for entry_id in removed:
        try:
            entry = await storing.quarantine.find(tenant, entry_id)
        except ObjectNotFound:
            entry = None
        days = storing.quarantine.limits.days
        named = _named(entry) if entry else f"quarantine {entry_id}"
        await _record(storing.audit, service, "delete", f"older than {days} days: {named}", entry=entry)
        await storing.quarantine.remove(tenant, entry_id)
    return len(removed)


async def _find(storing: Storing, caller: Sender, entry_id: str) -> Entry:
    try:
        return await storing.quarantine.find(caller.tenant, entry_id)
    except (ObjectNotFound, BucketMissing):
        await _record(storing.audit, caller, "refuse", "there is no such entry in quarantine", success=False)
        raise _missing() from None
    except ObjectError as error:
        raise Unavailable(str(error)) from error


async def _remove(storing: Storing, tenant: str, entry_id: str) -> None:
    try:
        await storing.quarantine.remove(tenant, entry_id)
    except ObjectError as error:
        raise Unavailable(f"It is done but for the removal from quarantine: {error}") from error


def _missing() -> NotFound:
    return NotFound("There is no such entry in quarantine.")


def _named(entry: Entry) -> str:
    return f"quarantine {entry.id}, refused as {entry.code:04X} ({entry.reason}), sent by {entry.sender}"


async def _record(
    audit: AuditTrail,
    caller: Sender,
    action: Action,
    detail: str,
    *,
    entry: Entry | None = None,
    count: int = 0,
    success: bool = True,
) -> None:
    of_entry: dict[str, Any] = {}
    if entry is not None:
        of_entry = {
            "study_uid": entry.study_uid,
            "series_uid": entry.series_uid,
            "sop_instance_uid": entry.sop_instance_uid,
        }
    await audit.record(
        caller.tenant,
        AuditRecorded(
            action=action,
            outcome="success" if success else "minor-failure",
            actor=caller.subject,
            actor_name=caller.name,
            service=SERVICE,
            address=caller.address,
            resource=caller.resource,
            instance_count=count,
            detail=detail,
            **of_entry,
        ),
    )

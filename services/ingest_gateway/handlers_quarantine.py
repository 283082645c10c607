"""The use cases of the quarantine: keep what was refused."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import structlog
from prometheus_client import Counter

from libs.objects import ObjectError
from services.ingest_gateway.domain import Instance, Outcome, Reason, Sender, SpooledPart
from services.ingest_gateway.quarantine import Entry, Quarantine, QuarantineFull

_AT_ONCE: Final = 4
"""Uploads of one request that are under way at once."""
_QUARANTINED = Counter("lightbox_quarantined_total", "Refused parts, by what became of their bytes", ["tenant", "kept"])
_log = structlog.get_logger(__name__)


async def quarantine_refused(
    quarantine: Quarantine, parts: Sequence[SpooledPart], read: Sequence[Instance | Outcome], sender: Sender
) -> list[Instance | Outcome]:
    """Keeps the bytes of every part that was read and refused.

    What was refused by its headers or its size alone is not kept: nobody has read it, and its sender has it.

    Arguments:
        quarantine: takes them.
        parts: of the request.
        read: for each of them, what was read or why it is refused.
        sender: who sent it.

    Returns:
        the same as ``read``; the refusals say where the bytes are, or why they are not kept.
    """
    gate = asyncio.Semaphore(_AT_ONCE)
    away = False

    async def keep(number: int, part: SpooledPart, item: Instance | Outcome) -> Instance | Outcome:
        nonlocal away
        if isinstance(item, Instance) or item.failure is None or part.refusal is not None:
            return item
        async with gate:
            why = (
                "the object store is away"
                if away
                else await _keep(quarantine, part, number, item, item.failure, sender)
            )
        away = away or "object store" in why
        _QUARANTINED.labels(sender.tenant, "no" if why else "yes").inc()
        if not why:
            return replace(item, quarantine=part.sha256)
        words = f"{item.failure.words}; it is not kept in quarantine either: {why}"
        return replace(item, failure=replace(item.failure, words=words))

    return list(
        await asyncio.gather(*(keep(n, p, item) for n, (p, item) in enumerate(zip(parts, read, strict=True), 1)))
    )


async def _keep(
    quarantine: Quarantine, part: SpooledPart, number: int, outcome: Outcome, failure: Reason, sender: Sender
) -> str:
    """Keeps one; what is returned says why it could not be, and is empty when it could."""
    entry = Entry(
        id=part.sha256,
        size=part.size,
        received=datetime.now(UTC),
        code=failure.code,
        reason=failure.words,
        sender=sender.subject,
        sender_name=sender.name,
        address=sender.address,
        door=sender.resource,
        part=number,
        sop_instance_uid=outcome.sop_instance_uid,
        sop_class_uid=outcome.sop_class_uid,
        study_uid=outcome.study_uid,
        series_uid=outcome.series_uid,
    )
    try:
        await quarantine.keep(sender.tenant, part.path, entry)
    except QuarantineFull as error:
        _log.warning("the quarantine is full", tenant=sender.tenant, reason=str(error))
        return str(error)
    except (ObjectError, TimeoutError) as error:
        _log.warning("what was refused is not in quarantine", tenant=sender.tenant, error=repr(error))
        return "the object store did not take it"
    except OSError as error:
        _log.error("what was refused can't be read", tenant=sender.tenant, error=repr(error))
        return "it could not be read again"
    return ""

"""The hash chain: pure rules.

A record's hash is the SHA-256 of the hash before it and of the record's canonical JSON. Whoever changes, removes or
reorders a record changes every hash after it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

import orjson

FIRST_PREVIOUS: Final = bytes(32)
"""What stands for the hash before a tenant's first record."""


@dataclass(frozen=True)
class Link:
    """One record in its place in the chain.

    Attributes:
        sequence: its number in the tenant's chain, from 1, without gaps.
        event_id: the id of the event that brought it.
        time: when it happened, by the clock of the service that saw it.
        record: the fields of ``AuditRecorded``.
        previous: hash of the record before it, 32 bytes.
        hash: its own, 32 bytes.
    """

    sequence: int
    event_id: UUID
    time: datetime
    record: dict[str, Any]
    previous: bytes
    hash: bytes


def hash_of(
    tenant: str, sequence: int, event_id: UUID, time: datetime, record: dict[str, Any], previous: bytes
) -> bytes:
    """The hash of a record, 32 bytes; an outside verifier can compute it from what the API gives out."""
    content = {
        "tenant": tenant,
        "sequence": sequence,
        "event_id": str(event_id),
        "time": canonical_time(time),
        "record": record,
    }
    return sha256(previous + orjson.dumps(content, option=orjson.OPT_SORT_KEYS)).digest()


def canonical_time(time: datetime) -> str:
    """The instant in UTC with microseconds, as it is hashed."""
    return time.astimezone(UTC).isoformat(timespec="microseconds")


def chain(tenant: str, records: Iterable[tuple[UUID, datetime, dict[str, Any]]], last: tuple[int, bytes]) -> list[Link]:
    """Appends records to a chain.

    Arguments:
        tenant: whose chain it is.
        records: event id, time and fields of each, in order.
        last: sequence and hash of the chain's end; ``(0, FIRST_PREVIOUS)`` for an empty one.
    """
    sequence, previous = last
    links = []
    for event_id, time, record in records:
        sequence += 1
        own = hash_of(tenant, sequence, event_id, time, record, previous)
        links.append(Link(sequence, event_id, time, record, previous, own))
        previous = own
    return links


def first_broken(tenant: str, links: Sequence[Link], last: tuple[int, bytes]) -> int | None:
    """The sequence at which the chain stops being whole, or ``None``.

    Arguments:
        tenant: whose chain it is.
        links: the next part of it.
        last: sequence and hash of what came before.
    """
    sequence, previous = last
    for link in links:
        sequence += 1
        own = hash_of(tenant, link.sequence, link.event_id, link.time, link.record, link.previous)
        if link.sequence != sequence or link.previous != previous or link.hash != own:
            return sequence
        previous = link.hash
    return None


def storable(record: dict[str, Any]) -> dict[str, Any]:
    """The record without U+0000, which PostgreSQL can't keep in JSON."""
    return {name: value.replace("\0", "") if isinstance(value, str) else value for name, value in record.items()}

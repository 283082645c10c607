"""The signing keys. They belong to no tenant; transactions here are those of the operators' tenant."""

import json
from datetime import datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.signing import SealedKey


async def lock_keys(connection: AsyncConnection) -> datetime:
    """Keeps other replicas from making keys until the transaction ends; returns the database's time."""
    await connection.execute(text("SELECT pg_advisory_xact_lock(hashtext('lightbox signing keys'))"))
    now: datetime = (await connection.execute(text("SELECT clock_timestamp()"))).scalar_one()
    return now


async def list_keys(connection: AsyncConnection) -> list[SealedKey]:
    """The keys that have not retired, oldest first."""
    rows = await connection.execute(
        text(
            "SELECT id, public_jwk, sealed_key, signs_from, retires_at FROM signing_keys "
            "WHERE retires_at IS NULL OR retires_at > now() ORDER BY signs_from, id"
        )
    )
    return [SealedKey(row.id, row.public_jwk, bytes(row.sealed_key), row.signs_from, row.retires_at) for row in rows]


async def insert_key(connection: AsyncConnection, key: SealedKey) -> None:
    """Keeps a new key."""
    await connection.execute(
        text(
            "INSERT INTO signing_keys (id, public_jwk, sealed_key, signs_from) "
            "VALUES (:id, CAST(:jwk AS jsonb), :sealed, :signs_from)"
        ),
        {"id": key.id, "jwk": json.dumps(key.public_jwk), "sealed": key.sealed, "signs_from": key.signs_from},
    )


async def retire_keys(connection: AsyncConnection, successor: str, retires_at: datetime) -> None:
    """Sets when the keys before the successor are published no longer, and removes those that long have retired."""
    await connection.execute(
        text("UPDATE signing_keys SET retires_at = :at WHERE retires_at IS NULL AND id <> :successor"),
        {"at": retires_at, "successor": successor},
    )
    await connection.execute(text("DELETE FROM signing_keys WHERE retires_at <= now() - interval '1 day'"))

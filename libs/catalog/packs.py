"""Read queries about packs, for those who compare the catalog with the bucket."""

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_KNOWN = text("SELECT key FROM packs WHERE key = ANY(CAST(:keys AS text[]))")
_LIST = text("SELECT id, key, size FROM packs WHERE id > :after ORDER BY id LIMIT :limit")
_HELD = text("""
SELECT (SELECT count(*) FROM instances i WHERE i.tenant_id = p.tenant_id AND i.pack_key = p.id)
    + (SELECT count(*) FROM instance_versions v WHERE v.tenant_id = p.tenant_id AND v.pack_key = p.id)
FROM packs p WHERE p.id = :id
""")


@dataclass(frozen=True)
class PackRow:
    """A pack that the catalog has.

    Attributes:
        id: its surrogate key, which grows with each pack that becomes known.
        key: its object key.
        size: its bytes.
    """

    id: int
    key: str
    size: int


async def known_packs(connection: AsyncConnection, keys: Collection[str]) -> set[str]:
    """Those of the object keys whose packs are in the catalog.

    Arguments:
        connection: of a tenant's transaction.
        keys: object keys.
    """
    return set((await connection.execute(_KNOWN, {"keys": list(keys)})).scalars())


async def list_packs(connection: AsyncConnection, after: int, limit: int) -> list[PackRow]:
    """Packs in the order in which they became known.

    Arguments:
        connection: of a tenant's transaction.
        after: the ``id`` of the last row of the page before; 0 for the first page.
        limit: rows at most.
    """
    rows = await connection.execute(_LIST, {"after": after, "limit": limit})
    return [PackRow(row.id, row.key, row.size) for row in rows]


async def count_in_pack(connection: AsyncConnection, pack: PackRow) -> int:
    """How many instances and versions of the catalog lie in a pack."""
    return int((await connection.execute(_HELD, {"id": pack.id})).scalar() or 0)

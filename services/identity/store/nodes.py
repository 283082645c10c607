"""Nodes, their certificates, and which tenant holds which called AE title."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.domain_nodes import Node, NodeCertificate


async def holder_of(connection: AsyncConnection, title: str) -> str | None:
    """The tenant that holds a called AE title, or None."""
    found = await connection.execute(
        text("SELECT holder FROM called_ae_titles WHERE title = :title FOR UPDATE"), {"title": title}
    )
    holder: str | None = found.scalar_one_or_none()
    return holder


async def titles_of(connection: AsyncConnection, tenant: str) -> list[str]:
    """The called AE titles that the tenant holds."""
    found = await connection.execute(
        text("SELECT title FROM called_ae_titles WHERE holder = :tenant ORDER BY title FOR UPDATE"), {"tenant": tenant}
    )
    return list(found.scalars())


async def hold_title(connection: AsyncConnection, tenant: str, title: str) -> bool:
    """Hands a called AE title out to the tenant; False when somebody holds it already."""
    made = await connection.execute(
        text("INSERT INTO called_ae_titles (title, holder) VALUES (:title, :tenant) ON CONFLICT DO NOTHING"),
        {"title": title, "tenant": tenant},
    )
    return made.rowcount > 0


async def release_title(connection: AsyncConnection, tenant: str, title: str) -> None:
    """Takes a called AE title back when no node of the tenant uses it any more."""
    await holder_of(connection, title)  # the lock: whoever is about to use it has done so, or waits
    await connection.execute(
        text(
            "DELETE FROM called_ae_titles WHERE title = :title AND holder = :tenant AND NOT EXISTS "
            "(SELECT 1 FROM nodes WHERE tenant_id = :tenant AND called_ae_title = :title)"
        ),
        {"title": title, "tenant": tenant},
    )


async def list_nodes(connection: AsyncConnection, tenant: str, after: str, limit: int) -> list[Node]:
    """Nodes in the order of their names."""
    rows = (
        await connection.execute(
            text(
                "SELECT name, called_ae_title, calling_ae_titles, networks, enabled, created_at FROM nodes "
                "WHERE tenant_id = :tenant AND name > :after ORDER BY name LIMIT :limit"
            ),
            {"tenant": tenant, "after": after, "limit": limit},
        )
    ).all()
    certificates = await _certificates(connection, tenant, [row.name for row in rows])
    return [
        Node(
            row.name,
            row.called_ae_title,
            tuple(row.calling_ae_titles),
            tuple(row.networks),
            row.enabled,
            tuple(certificates[row.name]),
            row.created_at,
        )
        for row in rows
    ]


async def find_node(connection: AsyncConnection, tenant: str, name: str) -> Node | None:
    """The node, kept as it is until the transaction ends; or None."""
    row = (
        await connection.execute(
            text(
                "SELECT name, called_ae_title, calling_ae_titles, networks, enabled, created_at FROM nodes "
                "WHERE tenant_id = :tenant AND name = :name FOR UPDATE"
            ),
            {"tenant": tenant, "name": name},
        )
    ).one_or_none()
    if row is None:
        return None
    certificates = await _certificates(connection, tenant, [name])
    return Node(
        row.name,
        row.called_ae_title,
        tuple(row.calling_ae_titles),
        tuple(row.networks),
        row.enabled,
        tuple(certificates[name]),
        row.created_at,
    )


async def _certificates(
    connection: AsyncConnection, tenant: str, names: Sequence[str]
) -> dict[str, list[NodeCertificate]]:
    rows = await connection.execute(
        text(
            "SELECT node, fingerprint, subject, not_after FROM node_certificates "
            "WHERE tenant_id = :tenant AND node = ANY(CAST(:names AS text[])) ORDER BY not_after, fingerprint"
        ),
        {"tenant": tenant, "names": list(names)},
    )
    found: dict[str, list[NodeCertificate]] = defaultdict(list)
    for row in rows:
        found[row.node].append(NodeCertificate(bytes(row.fingerprint), row.subject, row.not_after))
    return found


async def insert_node(
    connection: AsyncConnection,
    tenant: str,
    name: str,
    *,
    called: str,
    calling: Sequence[str],
    networks: Sequence[str],
    enabled: bool,
) -> bool:
    """Whether the node was made; False when the name is taken."""
    made = await connection.execute(
        text(
            "INSERT INTO nodes (tenant_id, name, called_ae_title, calling_ae_titles, networks, enabled) VALUES "
            "(:tenant, :name, :called, CAST(:calling AS text[]), CAST(:networks AS text[]), :enabled) "
            "ON CONFLICT DO NOTHING"
        ),
        {
            "tenant": tenant,
            "name": name,
            "called": called,
            "calling": list(calling),
            "networks": list(networks),
            "enabled": enabled,
        },
    )
    return made.rowcount > 0


async def update_node(
    connection: AsyncConnection,
    tenant: str,
    name: str,
    *,
    calling: Sequence[str] | None,
    networks: Sequence[str] | None,
    enabled: bool | None,
) -> None:
    """Changes a node; what is None stays."""
    await connection.execute(
        text(
            "UPDATE nodes SET calling_ae_titles = coalesce(CAST(:calling AS text[]), calling_ae_titles), "
            "networks = coalesce(CAST(:networks AS text[]), networks), enabled = coalesce(:enabled, enabled) "
            "WHERE tenant_id = :tenant AND name = :name"
        ),
        {
            "tenant": tenant,
            "name": name,
            "calling": None if calling is None else list(calling),
            "networks": None if networks is None else list(networks),
            "enabled": enabled,
        },
    )


async def add_certificate(
    connection: AsyncConnection, tenant: str, node: str, called: str, certificate: NodeCertificate
) -> str:
    """Adds a certificate.

    Returns:
        the node that has it under this called AE title: this one, or another of the tenant that had it before.
    """
    made = await connection.execute(
        text(
            "INSERT INTO node_certificates (tenant_id, called_ae_title, fingerprint, node, subject, not_after) "
            "VALUES (:tenant, :called, :fingerprint, :node, :subject, :not_after) ON CONFLICT DO NOTHING"
        ),
        {
            "tenant": tenant,
            "called": called,
            "fingerprint": certificate.fingerprint,
            "node": node,
            "subject": certificate.subject,
            "not_after": certificate.not_after,
        },
    )
    if made.rowcount:
        return node
    found = await connection.execute(
        text(
            "SELECT node FROM node_certificates "
            "WHERE tenant_id = :tenant AND called_ae_title = :called AND fingerprint = :fingerprint"
        ),
        {"tenant": tenant, "called": called, "fingerprint": certificate.fingerprint},
    )
    return str(found.scalar_one())


async def keep_certificates(connection: AsyncConnection, tenant: str, node: str, fingerprints: Iterable[bytes]) -> None:
    """Removes the certificates of a node that are not among these."""
    await connection.execute(
        text(
            "DELETE FROM node_certificates WHERE tenant_id = :tenant AND node = :node "
            "AND fingerprint <> ALL(CAST(:kept AS bytea[]))"
        ),
        {"tenant": tenant, "node": node, "kept": list(fingerprints)},
    )


async def delete_node(connection: AsyncConnection, tenant: str, name: str) -> str | None:
    """The called AE title of the node that was removed, or None when there was none."""
    gone = await connection.execute(
        text("DELETE FROM nodes WHERE tenant_id = :tenant AND name = :name RETURNING called_ae_title"),
        {"tenant": tenant, "name": name},
    )
    called: str | None = gone.scalar_one_or_none()
    return called

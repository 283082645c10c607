"""The one question that is asked before a tenant is known: whose node is this?"""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.tenancy import SYSTEM_TENANT, tenant_transaction
from services.ingest_gateway.domain_nodes import Node

_FIND = text(
    "SELECT tenant, state, node, enabled, calling_ae_titles, networks FROM find_node(:fingerprint, :called_ae_title)"
)


async def find_node(engine: AsyncEngine, fingerprint: bytes, called_ae_title: str) -> Node | None:
    """The node that has this certificate and this called AE title, or None.

    The function runs with a sight of its own and answers for this one pair; the caller sees no tenant's rows.
    """
    async with tenant_transaction(engine, SYSTEM_TENANT) as connection:
        row = (
            await connection.execute(_FIND, {"fingerprint": fingerprint, "called_ae_title": called_ae_title})
        ).one_or_none()
    if row is None:
        return None
    return Node(
        tenant=row.tenant,
        name=row.node,
        active=row.state == "active",
        enabled=row.enabled,
        calling_ae_titles=tuple(row.calling_ae_titles),
        networks=tuple(row.networks),
    )

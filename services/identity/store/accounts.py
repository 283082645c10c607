"""Tenants, users and clients. Each function works within a transaction that sees one tenant."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.identity.domain import Client, Tenant, TenantChange, User

_TENANT = "id, name, state, created_at, duplicates, requests_at_once"


async def find_tenant(connection: AsyncConnection, tenant: str) -> Tenant | None:
    """The tenant, or None."""
    found = (
        await connection.execute(text(f"SELECT {_TENANT} FROM tenants WHERE id = :tenant"), {"tenant": tenant})
    ).one_or_none()
    return Tenant(*found) if found else None


async def list_tenants(connection: AsyncConnection, after: str, limit: int) -> list[Tenant]:
    """Tenants in the order of their identifiers."""
    rows = await connection.execute(
        text(f"SELECT {_TENANT} FROM tenants WHERE id > :after ORDER BY id LIMIT :limit"),
        {"after": after, "limit": limit},
    )
    return [Tenant(*row) for row in rows]


async def insert_tenant(connection: AsyncConnection, tenant: str, name: str) -> Tenant | None:
    """The new tenant, or None when the identifier is taken."""
    made = (
        await connection.execute(
            text(f"INSERT INTO tenants (id, name) VALUES (:tenant, :name) ON CONFLICT DO NOTHING RETURNING {_TENANT}"),
            {"tenant": tenant, "name": name},
        )
    ).one_or_none()
    return Tenant(*made) if made else None


async def update_tenant(connection: AsyncConnection, tenant: str, change: TenantChange) -> Tenant | None:
    """The tenant after the change, or None when there is none."""
    changed = (
        await connection.execute(
            text(
                "UPDATE tenants SET name = coalesce(:name, name), state = coalesce(:state, state), "
                "duplicates = coalesce(:duplicates, duplicates), "
                "requests_at_once = nullif(coalesce(CAST(:requests_at_once AS integer), requests_at_once), 0) "
                f"WHERE id = :tenant RETURNING {_TENANT}"
            ),
            {
                "tenant": tenant,
                "name": change.name,
                "state": change.state,
                "duplicates": change.duplicates,
                "requests_at_once": change.requests_at_once,
            },
        )
    ).one_or_none()
    return Tenant(*changed) if changed else None


_FIND_USER = text(
    "SELECT name, display_name, roles, active, created_at, password_hash FROM users "
    "WHERE tenant_id = :tenant AND name = :name"
)
_FIND_AND_LOCK_USER = text(f"{_FIND_USER.text} FOR UPDATE")


def _user(row: Row[Any]) -> User:
    return User(row.name, row.display_name, tuple(row.roles), row.active, row.created_at)


async def find_user(
    connection: AsyncConnection, tenant: str, name: str, *, lock: bool = False
) -> tuple[User, str] | None:
    """The user and the password's hash, or None; ``lock`` keeps the row as it is until the transaction ends."""
    found = (
        await connection.execute(
            _FIND_AND_LOCK_USER if lock else _FIND_USER,
            {"tenant": tenant, "name": name},
        )
    ).one_or_none()
    return (_user(found), found.password_hash) if found else None


async def list_users(connection: AsyncConnection, tenant: str, after: str, limit: int) -> list[User]:
    """Users in the order of their names."""
    rows = await connection.execute(
        text(
            "SELECT name, display_name, roles, active, created_at FROM users "
            "WHERE tenant_id = :tenant AND name > :after ORDER BY name LIMIT :limit"
        ),
        {"tenant": tenant, "after": after, "limit": limit},
    )
    return [_user(row) for row in rows]


async def insert_user(
    connection: AsyncConnection, tenant: str, name: str, *, display_name: str, password_hash: str, roles: Sequence[str]
) -> User | None:
    """The new user, or None when the name is taken."""
    made = (
        await connection.execute(
            text(
                "INSERT INTO users (tenant_id, name, display_name, password_hash, roles) "
                "VALUES (:tenant, :name, :display_name, :password_hash, CAST(:roles AS text[])) "
                "ON CONFLICT DO NOTHING RETURNING name, display_name, roles, active, created_at"
            ),
            {
                "tenant": tenant,
                "name": name,
                "display_name": display_name,
                "password_hash": password_hash,
                "roles": list(roles),
            },
        )
    ).one_or_none()
    return _user(made) if made else None


async def update_user(
    connection: AsyncConnection,
    tenant: str,
    name: str,
    *,
    display_name: str | None = None,
    password_hash: str | None = None,
    roles: Sequence[str] | None = None,
    active: bool | None = None,
) -> User | None:
    """The user after the change, or None when there is none; what is None stays."""
    changed = (
        await connection.execute(
            text(
                "UPDATE users SET display_name = coalesce(:display_name, display_name), "
                "password_hash = coalesce(:password_hash, password_hash), "
                "roles = coalesce(CAST(:roles AS text[]), roles), active = coalesce(:active, active) "
                "WHERE tenant_id = :tenant AND name = :name RETURNING name, display_name, roles, active, created_at"
            ),
            {
                "tenant": tenant,
                "name": name,
                "display_name": display_name,
                "password_hash": password_hash,
                "roles": None if roles is None else list(roles),
                "active": active,
            },
        )
    ).one_or_none()
    return _user(changed) if changed else None


def _client(row: Row[Any]) -> Client:
    return Client(row.name, tuple(row.scopes), row.active, row.created_at)


async def find_client(connection: AsyncConnection, tenant: str, name: str) -> tuple[Client, bytes] | None:
    """The client and its secret's hash, or None."""
    found = (
        await connection.execute(
            text(
                "SELECT name, scopes, active, created_at, secret_hash FROM clients "
                "WHERE tenant_id = :tenant AND name = :name"
            ),
            {"tenant": tenant, "name": name},
        )
    ).one_or_none()
    return (_client(found), bytes(found.secret_hash)) if found else None


async def list_clients(connection: AsyncConnection, tenant: str, after: str, limit: int) -> list[Client]:
    """Clients in the order of their names."""
    rows = await connection.execute(
        text(
            "SELECT name, scopes, active, created_at FROM clients WHERE tenant_id = :tenant AND name > :after "
            "ORDER BY name LIMIT :limit"
        ),
        {"tenant": tenant, "after": after, "limit": limit},
    )
    return [_client(row) for row in rows]


async def insert_client(
    connection: AsyncConnection, tenant: str, name: str, secret_hash: bytes, scopes: Sequence[str]
) -> Client | None:
    """The new client, or None when the name is taken."""
    made = (
        await connection.execute(
            text(
                "INSERT INTO clients (tenant_id, name, secret_hash, scopes) "
                "VALUES (:tenant, :name, :secret, CAST(:scopes AS text[])) ON CONFLICT DO NOTHING "
                "RETURNING name, scopes, active, created_at"
            ),
            {"tenant": tenant, "name": name, "secret": secret_hash, "scopes": list(scopes)},
        )
    ).one_or_none()
    return _client(made) if made else None


async def set_client_secret(connection: AsyncConnection, tenant: str, name: str, secret_hash: bytes) -> Client | None:
    """The client with its new secret, or None when there is none."""
    changed = (
        await connection.execute(
            text(
                "UPDATE clients SET secret_hash = :secret WHERE tenant_id = :tenant AND name = :name "
                "RETURNING name, scopes, active, created_at"
            ),
            {"tenant": tenant, "name": name, "secret": secret_hash},
        )
    ).one_or_none()
    return _client(changed) if changed else None


async def delete_client(connection: AsyncConnection, tenant: str, name: str) -> bool:
    """Whether there was such a client."""
    gone = await connection.execute(
        text("DELETE FROM clients WHERE tenant_id = :tenant AND name = :name"), {"tenant": tenant, "name": name}
    )
    return gone.rowcount > 0

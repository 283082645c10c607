"""The one way to the database: a transaction that sees a single tenant."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

_SET_TENANT = text("SELECT set_config('lightbox.tenant', :tenant, true)")


def create_engine(url: str, *, pool_size: int = 5, application_name: str = "lightbox") -> AsyncEngine:
    """An engine whose connections are checked before use, so that a restart of PostgreSQL is survived.

    Arguments:
        url: ``postgresql+asyncpg://user:password@host:port/database``.
        pool_size: connections kept; as many again may be opened under load.
        application_name: what ``pg_stat_activity`` shows.
    """
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
        pool_pre_ping=True,
        pool_timeout=10,
        hide_parameters=True,  # an error is logged with its statement, never with a patient's name or a secret
        connect_args={
            "timeout": 10,
            "command_timeout": 60,
            "server_settings": {"application_name": application_name},
        },
    )


@asynccontextmanager
async def tenant_transaction(engine: AsyncEngine, tenant: str) -> AsyncIterator[AsyncConnection]:
    """One transaction in which only the tenant's rows exist; commits at the end, rolls back on an error.

    The tenant is set with the semantics of ``SET LOCAL``: it ends with the transaction, so a pooled connection
    never carries it to the next user.
    """
    async with engine.begin() as connection:
        await connection.execute(_SET_TENANT, {"tenant": tenant})
        yield connection

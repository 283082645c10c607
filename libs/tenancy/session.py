"""The one way to the database: a transaction that sees a single tenant."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import asyncpg
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

DATABASE_ERRORS: Final = (TimeoutError, OSError, SQLAlchemyError, asyncpg.PostgresError, asyncpg.InterfaceError)
"""What comes of a database that is away or fails; the driver's own errors while connecting come unwrapped."""

_SET_TENANT = text("SELECT set_config('lightbox.tenant', :tenant, true)")
_STALE: Final = 2
"""Dead connections after which it is no longer the pool's age but the server."""


def create_engine(url: str, *, pool_size: int = 5, application_name: str = "lightbox") -> AsyncEngine:
    """An engine for ``tenant_transaction``, which survives a restart of PostgreSQL.

    Arguments:
        url: ``postgresql+asyncpg://user:password@host:port/database``.
        pool_size: connections kept; as many again may be opened under load.
        application_name: what ``pg_stat_activity`` shows.
    """
    return create_async_engine(
        url,
        pool_size=pool_size,
        max_overflow=pool_size,
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
    async with AsyncExitStack() as stack:
        yield await _begin(engine, tenant, stack)


async def _begin(engine: AsyncEngine, tenant: str, stack: AsyncExitStack) -> AsyncConnection:
    """Begins a transaction on a connection that works; the stack ends it.

    A pooled connection may have died since its last use. That shows at the first statement, before anything was
    asked or changed, so another connection is taken. Asking each connection whether it lives, before each use, would
    cost three round trips of every transaction.
    """
    stale = 0
    while True:
        try:
            async with AsyncExitStack() as attempt:
                connection = await attempt.enter_async_context(engine.begin())
                await connection.execute(_SET_TENANT, {"tenant": tenant})
                stack.push_async_exit(attempt.pop_all())
                return connection
        except DBAPIError as error:
            # The first that is found dead takes all older ones out of the pool.
            if not error.connection_invalidated or stale == _STALE:
                raise
            stale += 1

"""The transaction of one tenant, with the outages of PostgreSQL as answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg  # not tenant data: only its errors are needed
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, InterfaceError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.tenancy import SYSTEM_TENANT, tenant_transaction
from libs.web.problems import Unavailable

# Connection lost, out of resources, shut down, system error, deadlock: they pass (PostgreSQL, appendix A).
_PASSING = ("08", "53", "57", "58", "40")


@asynccontextmanager
async def transaction(engine: AsyncEngine, tenant: str) -> AsyncIterator[AsyncConnection]:
    """A transaction that sees only the tenant's rows.

    Raises:
        Unavailable: PostgreSQL can't be reached, or is too busy.
    """
    try:
        async with tenant_transaction(engine, tenant) as connection:
            yield connection
    except (OSError, TimeoutError, PoolTimeout, InterfaceError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        # The driver's own errors while connecting come unwrapped.
        raise Unavailable("The database is not available at the moment.") from error
    except DBAPIError as error:
        state = str(getattr(error.orig, "sqlstate", "") or "")
        if error.connection_invalidated or state.startswith(_PASSING):
            raise Unavailable("The database is not available at the moment.") from error
        raise


async def check(engine: AsyncEngine) -> None:
    """Raises when the database does not answer."""
    async with transaction(engine, SYSTEM_TENANT) as connection:
        await connection.execute(text("SELECT 1"))

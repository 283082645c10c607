"""The transaction of one tenant, with the outages of PostgreSQL as answers."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.tenancy import SYSTEM_TENANT, tenant_transaction
from libs.web.problems import Unavailable


@asynccontextmanager
async def transaction(engine: AsyncEngine, tenant: str) -> AsyncIterator[AsyncConnection]:
    """A transaction that sees only the tenant's rows.

    Raises:
        Unavailable: PostgreSQL can't be reached, or is too busy.
    """
    try:
        async with tenant_transaction(engine, tenant) as connection:
            yield connection
    except IntegrityError:
        raise
    except (OSError, TimeoutError, PoolTimeout, DBAPIError) as error:
        raise Unavailable("The database is not available at the moment.") from error
    except Exception as error:
        # The driver's own errors while connecting come unwrapped.
        if type(error).__module__.partition(".")[0] == "asyncpg":
            raise Unavailable("The database is not available at the moment.") from error
        raise


async def check(engine: AsyncEngine) -> None:
    """Raises when the database does not answer."""
    async with transaction(engine, SYSTEM_TENANT) as connection:
        await connection.execute(text("SELECT 1"))

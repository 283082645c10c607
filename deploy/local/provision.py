"""What the servers need before our services can work: database, roles, tables, topics. Harmless when repeated."""

import asyncio
from typing import TYPE_CHECKING, Final

from deploy.local.credentials import Credentials

if TYPE_CHECKING:
    import asyncpg

DATABASE: Final = "lightbox"
OWNER: Final = "lightbox_owner"


def database_url(credentials: Credentials, port: int, role: str) -> str:
    """The URL of the database for SQLAlchemy.

    Arguments:
        credentials: the secrets of the stack.
        port: where PostgreSQL listens.
        role: ``owner``, or the name of a service.

    Raises:
        KeyError: no such service logs in to the database.
    """
    if role == "owner":
        user, password = OWNER, credentials.database_owner
    else:
        user, password = f"lightbox_{role}", credentials.database_roles[role]
    return f"postgresql+asyncpg://{user}:{password}@127.0.0.1:{port}/{DATABASE}"


def _literal(text: str) -> str:
    """A string literal; our own passwords hold no quotes, this makes sure."""
    return "'" + text.replace("'", "''") + "'"


async def _as_superuser(credentials: Credentials, port: int, database: str) -> "asyncpg.Connection":
    """A connection as ``postgres``."""
    import asyncpg  # here and below: slow to import, and most commands only ask for addresses

    return await asyncpg.connect(
        host="127.0.0.1",
        port=port,
        user="postgres",
        password=credentials.database_superuser,
        database=database,
        timeout=10,
    )


async def _create_database(credentials: Credentials, port: int) -> None:
    """The owner, which may make the group roles of the services, and its database."""
    connection = await _as_superuser(credentials, port, "postgres")
    try:
        if not await connection.fetchval("SELECT 1 FROM pg_roles WHERE rolname = $1", OWNER):
            await connection.execute(f"CREATE ROLE {OWNER} NOSUPERUSER CREATEROLE")
        await connection.execute(f"ALTER ROLE {OWNER} LOGIN PASSWORD {_literal(credentials.database_owner)}")
        if not await connection.fetchval("SELECT 1 FROM pg_database WHERE datname = $1", DATABASE):
            await connection.execute(f"CREATE DATABASE {DATABASE} OWNER {OWNER}")
            await connection.execute(f"REVOKE CONNECT, TEMPORARY ON DATABASE {DATABASE} FROM PUBLIC")
    finally:
        await connection.close()


async def _let_services_log_in(credentials: Credentials, port: int) -> None:
    """Gives the role of each service its password; it owns nothing and does not bypass row-level security."""
    connection = await _as_superuser(credentials, port, "postgres")
    try:
        for service, password in credentials.database_roles.items():
            role = f"lightbox_{service}"
            await connection.execute(f"ALTER ROLE {role} NOSUPERUSER NOBYPASSRLS LOGIN PASSWORD {_literal(password)}")
            await connection.execute(f"GRANT CONNECT ON DATABASE {DATABASE} TO {role}")
    finally:
        await connection.close()


def provision_database(credentials: Credentials, port: int) -> None:
    """Database, tables and roles. It runs an event loop, so call it from a thread that has none.

    Raises:
        OSError, asyncpg.PostgresError: the database server can't be used.
    """
    from migrations.__main__ import upgrade

    asyncio.run(_create_database(credentials, port))
    upgrade(database_url(credentials, port, "owner"))
    asyncio.run(_let_services_log_in(credentials, port))


async def provision(credentials: Credentials, postgres_port: int, kafka_port: int) -> None:
    """Everything that the services need, in the two servers at the same time."""
    from libs.events.administration import ensure_topics

    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.to_thread(provision_database, credentials, postgres_port))
        group.create_task(ensure_topics(f"127.0.0.1:{kafka_port}"))

"""Alembic's environment: applies the migrations to the database of the URL it was given."""

import asyncio

from alembic import context
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import create_async_engine


def run(connection: Connection) -> None:
    """Applies what is missing in one transaction, with a lock against a second runner."""
    context.configure(connection=connection, target_metadata=None)
    with context.begin_transaction():
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(hashtext('lightbox migrations'))")
        context.run_migrations()


async def main() -> None:
    """Connects as the owner of the tables."""
    url = str(context.config.get_main_option("sqlalchemy.url"))
    engine = create_async_engine(url)
    async with engine.connect() as connection:
        await connection.run_sync(run)
        await connection.commit()
    await engine.dispose()


asyncio.run(main())

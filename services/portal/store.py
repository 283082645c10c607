"""What the pages read from the catalog."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date

from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.catalog import queries
from libs.catalog.queries import Cursor, SeriesRow, StudyFilter, StudyRow
from libs.catalog.tables import studies
from libs.tenancy import SYSTEM_TENANT, tenant_transaction
from libs.web.problems import Unavailable
from services.portal.domain import Search


@dataclass(frozen=True)
class Prior:
    """Another study of the same patient."""

    study_uid: str
    description: str
    study_date: date | None
    modalities: tuple[str, ...]
    instance_count: int


@asynccontextmanager
async def catalog(engine: AsyncEngine, tenant: str) -> AsyncIterator[AsyncConnection]:
    """A transaction of the tenant.

    Raises:
        Unavailable: the database can't be reached or does not answer in time.
    """
    try:
        async with tenant_transaction(engine, tenant) as connection:
            yield connection
    except (OSError, TimeoutError, PoolTimeout, DBAPIError) as error:
        raise Unavailable("The catalog can't be reached at the moment.") from error
    except Exception as error:
        # The driver's own errors while connecting come unwrapped.
        if type(error).__module__.partition(".")[0] == "asyncpg":
            raise Unavailable("The catalog can't be reached at the moment.") from error
        raise


async def check(engine: AsyncEngine) -> None:
    """Raises when the database does not answer."""
    async with catalog(engine, SYSTEM_TENANT) as connection:
        await connection.execute(text("SELECT 1"))


async def search(connection: AsyncConnection, wanted: Search, *, before: Cursor | None, limit: int) -> list[StudyRow]:
    """Studies that match, the latest arrival first, from behind a place in that list."""
    found = StudyFilter(
        patient_name=wanted.name,
        patient_id=wanted.patient_id,
        accession_number=wanted.accession,
        study_date=(wanted.earliest, wanted.latest),
        modalities=wanted.modalities,
        words=wanted.words,
    )
    return await queries.search_studies(connection, found, order="arrival", limit=limit, after=before)


async def pick(connection: AsyncConnection, study_uids: Sequence[str]) -> list[StudyRow]:
    """The studies with these UIDs, as far as they exist."""
    wanted = StudyFilter(study_uids=tuple(study_uids))
    return await queries.search_studies(connection, wanted, order="arrival", limit=len(study_uids))


async def find(connection: AsyncConnection, study_uid: str) -> tuple[StudyRow, list[SeriesRow]] | None:
    """A study with its series, or ``None``."""
    study = await queries.find_study(connection, study_uid)
    return (study, await queries.list_series(connection, study_uid, limit=500)) if study else None


async def priors(connection: AsyncConnection, study_uid: str, *, limit: int = 50) -> list[Prior]:
    """Other studies of the study's patient, newest first."""
    patient = select(studies.c.patient_key).where(studies.c.study_uid == study_uid).scalar_subquery()
    columns = ("study_uid", "description", "study_date", "modalities", "instance_count")
    query = (
        select(*(studies.c[name] for name in columns))
        .where(studies.c.patient_key == patient, studies.c.study_uid != study_uid)
        .order_by(studies.c.study_date.desc().nulls_last(), studies.c.id.desc())
        .limit(limit)
    )
    rows = (await connection.execute(query)).mappings()
    return [Prior(**{**row, "modalities": tuple(row["modalities"])}) for row in rows]

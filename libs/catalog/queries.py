"""The read queries of the catalog that more than one service needs.

Each takes the connection of a `libs.tenancy.tenant_transaction`: row-level security confines it to that tenant.
Every order is total, so that pages neither repeat nor skip a row.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, RowMapping, Select, and_, func, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.catalog.filters import InstanceFilter, SeriesFilter, StudyFilter
from libs.catalog.rows import Cursor, InstanceRow, Order, SeriesRow, StudyRow
from libs.catalog.tables import instances, packs, series, studies

__all__ = [
    "Cursor",
    "InstanceFilter",
    "InstanceRow",
    "Order",
    "SeriesFilter",
    "SeriesRow",
    "StudyFilter",
    "StudyRow",
    "count_instances",
    "count_series",
    "count_studies",
    "find_series",
    "find_study",
    "list_instances",
    "list_series",
    "locate_instances",
    "search_instances",
    "search_series",
    "search_studies",
    "summarise_instances",
]

_STUDY = (
    studies.c.id.label("key"),
    *(column for column in studies.c if column.name not in ("tenant_id", "id", "patient_key")),
)
_SERIES = (
    series.c.id.label("key"),
    studies.c.study_uid,
    studies.c.patient_id,
    *(column for column in series.c if column.name not in ("tenant_id", "id")),
)
_INSTANCE = (
    studies.c.study_uid,
    studies.c.patient_id,
    series.c.series_uid,
    instances.c.series_key,
    instances.c.sop_uid,
    instances.c.sop_class_uid,
    instances.c.instance_number,
    instances.c.frame_count,
    instances.c.transfer_syntax,
    instances.c.sha256,
    packs.c.key.label("pack"),
    packs.c.id.label("pack_id"),
    packs.c.size.label("pack_size"),
    packs.c.index_offset,
    packs.c.index_length,
    instances.c.byte_offset,
    instances.c.byte_length,
)
_STUDY_OF_SERIES = and_(studies.c.tenant_id == series.c.tenant_id, studies.c.id == series.c.study_key)
_SERIES_OF_INSTANCE = and_(series.c.tenant_id == instances.c.tenant_id, series.c.id == instances.c.series_key)
_PACK_OF_INSTANCE = and_(packs.c.tenant_id == instances.c.tenant_id, packs.c.id == instances.c.pack_key)
_SERIES_JOINED = series.join(studies, _STUDY_OF_SERIES)
_INSTANCES_JOINED = instances.join(series, _SERIES_OF_INSTANCE).join(studies, _STUDY_OF_SERIES)
_INSTANCES_LOCATED = _INSTANCES_JOINED.join(packs, _PACK_OF_INSTANCE)
_STUDY_ORDER = (studies.c.study_date.desc().nulls_last(), studies.c.id.desc())


async def search_studies(
    connection: AsyncConnection,
    wanted: StudyFilter,
    *,
    order: Order = "study-date",
    limit: int = 100,
    offset: int = 0,
    after: Cursor | None = None,
) -> list[StudyRow]:
    """Studies that match, newest first.

    Arguments:
        connection: of a tenant's transaction.
        wanted: what to search for.
        order: what "newest" means.
        limit: rows at most.
        offset: rows to skip; dear when large, so prefer `after`.
        after: the cursor of the last row of the page before (`StudyRow.cursor`), of the same order.
    """
    query = select(*_STUDY).where(*wanted.conditions(), *_after(after)).limit(limit).offset(offset)
    by = _STUDY_ORDER if order == "study-date" else (studies.c.received_at.desc(), studies.c.id.desc())
    return [_study(row) for row in (await connection.execute(query.order_by(*by))).mappings()]


async def count_studies(connection: AsyncConnection, wanted: StudyFilter, *, cap: int = 1001) -> int:
    """How many studies match, counted up to `cap`, so that the work is bounded."""
    return await _count(connection, select(1).select_from(studies).where(*wanted.conditions()), cap)


async def find_study(connection: AsyncConnection, study_uid: str) -> StudyRow | None:
    """The study with this UID, or ``None``."""
    row = (await connection.execute(select(*_STUDY).where(studies.c.study_uid == study_uid))).mappings().first()
    return _study(row) if row else None


async def search_series(
    connection: AsyncConnection, wanted: SeriesFilter, *, limit: int = 100, offset: int = 0
) -> list[tuple[StudyRow, SeriesRow]]:
    """Series that match, with their studies: newest study first, then by Series Number and arrival."""
    query = select(*_prefixed(_STUDY, "study_"), *_prefixed(_SERIES, "series_")).select_from(_SERIES_JOINED)
    by = (*_STUDY_ORDER, series.c.series_number.asc().nulls_last(), series.c.id)
    rows = await connection.execute(query.where(*wanted.conditions()).order_by(*by).limit(limit).offset(offset))
    return [(_study(row, "study_"), _series(row, "series_")) for row in rows.mappings()]


async def count_series(connection: AsyncConnection, wanted: SeriesFilter, *, cap: int = 1001) -> int:
    """How many series match, counted up to `cap`."""
    return await _count(connection, select(1).select_from(_SERIES_JOINED).where(*wanted.conditions()), cap)


async def list_series(connection: AsyncConnection, study_uid: str, *, limit: int = 10_000) -> list[SeriesRow]:
    """The series of a study by Series Number, then arrival; empty when there is no such study."""
    query = select(*_SERIES).select_from(_SERIES_JOINED).where(studies.c.study_uid == study_uid)
    by = (series.c.series_number.asc().nulls_last(), series.c.id)
    return [_series(row) for row in (await connection.execute(query.order_by(*by).limit(limit))).mappings()]


async def find_series(connection: AsyncConnection, study_uid: str, series_uid: str) -> SeriesRow | None:
    """The series of that study with this UID, or ``None``."""
    query = select(*_SERIES).select_from(_SERIES_JOINED)
    query = query.where(studies.c.study_uid == study_uid, series.c.series_uid == series_uid)
    row = (await connection.execute(query)).mappings().first()
    return _series(row) if row else None


async def search_instances(
    connection: AsyncConnection, wanted: InstanceFilter, *, limit: int = 100, offset: int = 0
) -> list[tuple[StudyRow, SeriesRow, InstanceRow]]:
    """Instances that match, with their series and studies: newest study first, then by series and number."""
    query = select(
        *_prefixed(_STUDY, "study_"), *_prefixed(_SERIES, "series_"), *_prefixed(_INSTANCE, "instance_")
    ).select_from(_INSTANCES_LOCATED)
    by = (
        *_STUDY_ORDER,
        series.c.series_number.asc().nulls_last(),
        series.c.id,
        instances.c.instance_number.asc().nulls_last(),
        instances.c.sop_uid,
    )
    rows = await connection.execute(query.where(*wanted.conditions()).order_by(*by).limit(limit).offset(offset))
    return [(_study(row, "study_"), _series(row, "series_"), _instance(row, "instance_")) for row in rows.mappings()]


async def count_instances(connection: AsyncConnection, wanted: InstanceFilter, *, cap: int = 1001) -> int:
    """How many instances match, counted up to `cap`."""
    return await _count(connection, select(1).select_from(_INSTANCES_JOINED).where(*wanted.conditions()), cap)


async def list_instances(
    connection: AsyncConnection, study_uid: str, series_uid: str, *, limit: int = 10_000
) -> list[InstanceRow]:
    """The instances of a series by Instance Number, then UID; empty when there is no such series."""
    query = _located(study_uid, series_uid, None)
    by = (instances.c.instance_number.asc().nulls_last(), instances.c.sop_uid)
    return [_instance(row) for row in (await connection.execute(query.order_by(*by).limit(limit))).mappings()]


async def locate_instances(
    connection: AsyncConnection,
    study_uid: str,
    series_uid: str | None = None,
    sop_uid: str | None = None,
    *,
    after: InstanceRow | None = None,
    limit: int = 1000,
) -> list[InstanceRow]:
    """Where the bytes of a study, a series or an instance lie, in the order in which they lie.

    Arguments:
        connection: of a tenant's transaction.
        study_uid: the study.
        series_uid: only this series of it.
        sop_uid: only this instance.
        after: the last row of the page before.
        limit: rows at most.
    """
    place = (instances.c.pack_key, instances.c.byte_offset)
    query = _located(study_uid, series_uid, sop_uid)
    if after is not None:
        query = query.where(tuple_(*place) > tuple_(after.pack_id, after.byte_offset))
    return [_instance(row) for row in (await connection.execute(query.order_by(*place).limit(limit))).mappings()]


async def summarise_instances(
    connection: AsyncConnection, study_uid: str, series_uid: str | None = None
) -> tuple[int, frozenset[str], str]:
    """Of a study or a series: the number of instances, their transfer syntaxes, the Patient ID.

    The number is 0 when there is no such study or series.
    """
    columns = (studies.c.patient_id, instances.c.transfer_syntax)
    query = select(*columns, func.count()).select_from(_INSTANCES_JOINED).where(studies.c.study_uid == study_uid)
    if series_uid is not None:
        query = query.where(series.c.series_uid == series_uid)
    rows = (await connection.execute(query.group_by(*columns))).all()
    return sum(row[2] for row in rows), frozenset(row[1] for row in rows), rows[0][0] if rows else ""


def _located(study_uid: str, series_uid: str | None, sop_uid: str | None) -> Select[Any]:
    query = select(*_INSTANCE).select_from(_INSTANCES_LOCATED).where(studies.c.study_uid == study_uid)
    if series_uid is not None:
        query = query.where(series.c.series_uid == series_uid)
    return query.where(instances.c.sop_uid == sop_uid) if sop_uid is not None else query


def _after(cursor: Cursor | None) -> list[ColumnElement[bool]]:
    """The rows behind a cursor."""
    if cursor is None:
        return []
    if cursor.order == "arrival":
        return [tuple_(studies.c.received_at, studies.c.id) < tuple_(cursor.value, cursor.key)]
    if cursor.value is None:
        return [studies.c.study_date.is_(None), studies.c.id < cursor.key]
    same_day = and_(studies.c.study_date == cursor.value, studies.c.id < cursor.key)
    return [or_(studies.c.study_date < cursor.value, studies.c.study_date.is_(None), same_day)]


async def _count(connection: AsyncConnection, query: Select[Any], cap: int) -> int:
    found = await connection.scalar(select(func.count()).select_from(query.limit(cap).subquery()))
    return int(found or 0)


def _prefixed(columns: Sequence[ColumnElement[Any]], prefix: str) -> list[ColumnElement[Any]]:
    """The columns under names that don't collide with those of the other tables."""
    return [column.label(f"{prefix}{column.key}") for column in columns]


def _values(row: RowMapping, columns: Sequence[ColumnElement[Any]], prefix: str) -> dict[str, Any]:
    return {str(column.key): row[f"{prefix}{column.key}"] for column in columns}


def _study(row: RowMapping, prefix: str = "") -> StudyRow:
    values = _values(row, _STUDY, prefix)
    return StudyRow(**{**values, "modalities": tuple(values["modalities"])})


def _series(row: RowMapping, prefix: str = "") -> SeriesRow:
    return SeriesRow(**_values(row, _SERIES, prefix))


def _instance(row: RowMapping, prefix: str = "") -> InstanceRow:
    values = _values(row, _INSTANCE, prefix)
    return InstanceRow(**{**values, "sha256": bytes(values["sha256"])})

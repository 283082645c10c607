"""What the catalog derives from the instances: counts, times, sources, and which documents are out of date.

As in ``store``: whole batches, in the transaction that is given, whose tenant is locked where rows are written.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.indexing.domain import PackPlace

Series = tuple[str, str]
"""Study Instance UID and Series Instance UID."""

_TOUCHED = """
touched AS (
    SELECT se.id, se.study_key FROM unnest(CAST(:studies AS text[]), CAST(:series AS text[])) AS given (study, series)
    JOIN studies st ON st.tenant_id = current_setting('lightbox.tenant') AND st.study_uid = given.study
    JOIN series se ON se.tenant_id = st.tenant_id AND se.study_key = st.id AND se.series_uid = given.series
)
"""

_EMPTY_SERIES = text(f"""
WITH {_TOUCHED}
DELETE FROM series se USING touched WHERE se.id = touched.id AND NOT EXISTS (
    SELECT 1 FROM instances i WHERE i.tenant_id = se.tenant_id AND i.series_key = se.id)
""")

_EMPTY_STUDIES = text("""
DELETE FROM studies st WHERE st.study_uid = ANY(CAST(:studies AS text[])) AND NOT EXISTS (
    SELECT 1 FROM series se WHERE se.tenant_id = st.tenant_id AND se.study_key = st.id)
""")

_COUNT_SERIES = text(f"""
WITH {_TOUCHED}, facts AS (
    SELECT i.series_key AS id, count(*) AS instances, min(p.stored) AS received_at, max(p.stored) AS updated_at
    FROM touched JOIN instances i ON i.tenant_id = current_setting('lightbox.tenant') AND i.series_key = touched.id
    JOIN packs p ON p.tenant_id = i.tenant_id AND p.id = i.pack_key
    GROUP BY i.series_key
)
UPDATE series se SET
    instance_count = facts.instances, received_at = facts.received_at, updated_at = facts.updated_at,
    revision = se.revision + CASE WHEN :changed THEN 1 ELSE 0 END
FROM facts WHERE se.id = facts.id AND (
    :changed OR (se.instance_count, se.received_at, se.updated_at)
        IS DISTINCT FROM (facts.instances, facts.received_at, facts.updated_at))
""")

_COUNT_STUDIES = text("""
WITH facts AS (
    SELECT se.study_key AS id, count(*) AS series, sum(se.instance_count) AS instances,
        min(se.received_at) AS received_at, max(se.updated_at) AS updated_at,
        coalesce(array_agg(DISTINCT se.modality ORDER BY se.modality) FILTER (WHERE se.modality <> ''), '{}')
            AS modalities
    FROM studies st JOIN series se ON se.tenant_id = st.tenant_id AND se.study_key = st.id
    WHERE st.study_uid = ANY(CAST(:studies AS text[])) GROUP BY se.study_key
)
UPDATE studies st SET
    series_count = facts.series, instance_count = facts.instances, received_at = facts.received_at,
    updated_at = facts.updated_at, modalities = facts.modalities
FROM facts WHERE st.id = facts.id AND
    (st.series_count, st.instance_count, st.received_at, st.updated_at, st.modalities) IS DISTINCT FROM
    (facts.series::integer, facts.instances::integer, facts.received_at, facts.updated_at, facts.modalities)
RETURNING st.study_uid
""")

_COUNTS = text(
    "SELECT study_uid, series_count, instance_count FROM studies WHERE study_uid = ANY(CAST(:studies AS text[]))"
)

_SERIES_SOURCES = text(f"""
WITH {_TOUCHED}
SELECT DISTINCT ON (se.id) st.study_uid, se.series_uid, i.sop_uid, p.key, p.size, p.index_offset, p.index_length
FROM touched JOIN series se ON se.id = touched.id
JOIN studies st ON st.tenant_id = se.tenant_id AND st.id = se.study_key
JOIN instances i ON i.tenant_id = se.tenant_id AND i.series_key = se.id
JOIN packs p ON p.tenant_id = i.tenant_id AND p.id = i.pack_key
ORDER BY se.id, p.stored, i.sop_uid COLLATE "C"
""")

_STUDY_SOURCES = text("""
SELECT DISTINCT ON (st.id) st.study_uid, '' AS series_uid, i.sop_uid, p.key, p.size, p.index_offset, p.index_length
FROM studies st
JOIN series se ON se.tenant_id = st.tenant_id AND se.study_key = st.id
JOIN instances i ON i.tenant_id = se.tenant_id AND i.series_key = se.id
JOIN packs p ON p.tenant_id = i.tenant_id AND p.id = i.pack_key
WHERE st.study_uid = ANY(CAST(:studies AS text[]))
ORDER BY st.id, p.stored, i.sop_uid COLLATE "C"
""")

_STRAY_PATIENTS = text("""
DELETE FROM patients p WHERE NOT EXISTS (
    SELECT 1 FROM studies st WHERE st.tenant_id = p.tenant_id AND st.patient_key = p.id)
""")

_DESCRIBE_PATIENTS = text("""
WITH facts AS (
    SELECT DISTINCT ON (st.patient_key) st.patient_key AS id, st.patient_name, st.patient_birth_date, st.patient_sex
    FROM studies st WHERE st.patient_key IN (
        SELECT patient_key FROM studies WHERE study_uid = ANY(CAST(:studies AS text[])))
    ORDER BY st.patient_key, st.received_at, st.study_uid COLLATE "C"
)
UPDATE patients p SET name = facts.patient_name, birth_date = facts.patient_birth_date, sex = facts.patient_sex
FROM facts WHERE p.id = facts.id AND
    (p.name, p.birth_date, p.sex) IS DISTINCT FROM (facts.patient_name, facts.patient_birth_date, facts.patient_sex)
""")

_STALE = text(f"""
WITH {_TOUCHED}
SELECT se.id FROM touched JOIN series se ON se.id = touched.id WHERE se.document_revision < se.revision ORDER BY se.id
""")

_ALL_STALE = text("SELECT id FROM series WHERE document_revision < revision ORDER BY id LIMIT :limit")

_DOCUMENT_SOURCES = text("""
SELECT st.study_uid, se.series_uid, se.revision, p.key, p.size, p.index_offset, p.index_length,
    array_agg(i.sop_uid) AS uids
FROM series se
JOIN studies st ON st.tenant_id = se.tenant_id AND st.id = se.study_key
JOIN instances i ON i.tenant_id = se.tenant_id AND i.series_key = se.id
JOIN packs p ON p.tenant_id = i.tenant_id AND p.id = i.pack_key
WHERE se.id = :id
GROUP BY st.study_uid, se.series_uid, se.revision, p.key, p.size, p.index_offset, p.index_length
""")

_HAS_DOCUMENT = text("""
UPDATE series new SET document_revision = :revision
FROM (SELECT id, document_revision FROM series WHERE id = :id FOR UPDATE) AS old
WHERE new.id = old.id AND new.document_revision < :revision
RETURNING old.document_revision
""")

_DOCUMENT_REVISION = text("SELECT document_revision FROM series WHERE id = :id")

_EVERYTHING = ("instance_versions", "instances", "series", "studies", "patients", "packs")


@dataclass(frozen=True)
class Source:
    """The instance that a study or series has its columns from.

    Attributes:
        series: of the series; the series UID is empty for a study.
        sop_uid: its SOP Instance UID.
        pack: where its pack is.
    """

    series: Series
    sop_uid: str
    pack: PackPlace


@dataclass(frozen=True)
class DocumentSources:
    """What a series' document is made of.

    Attributes:
        series: study and series UID.
        revision: of the series; the document's revision.
        packs: for each pack, the SOP Instance UIDs to take from it.
    """

    series: Series
    revision: int
    packs: tuple[tuple[PackPlace, frozenset[str]], ...]


@dataclass(frozen=True)
class StudyCounts:
    """How much a study has."""

    study_uid: str
    series_count: int
    instance_count: int


async def remove_empty(connection: AsyncConnection, series: Collection[Series]) -> None:
    """Removes those of the series that have no instance any more, and then studies without series."""
    await connection.execute(_EMPTY_SERIES, _pairs(series))
    await connection.execute(_EMPTY_STUDIES, {"studies": sorted({study for study, _ in series})})


async def count_series(connection: AsyncConnection, series: Collection[Series], *, changed: bool) -> None:
    """Derives counts and times of the series; with ``changed``, each gets a new revision."""
    if series:
        await connection.execute(_COUNT_SERIES, {**_pairs(series), "changed": changed})


async def count_studies(connection: AsyncConnection, studies: Collection[str]) -> set[str]:
    """Derives counts, times and modalities of the studies; returns those that were otherwise."""
    return set((await connection.execute(_COUNT_STUDIES, {"studies": sorted(studies)})).scalars())


async def study_counts(connection: AsyncConnection, studies: Collection[str]) -> list[StudyCounts]:
    """What the studies have, by UID."""
    rows = await connection.execute(_COUNTS, {"studies": sorted(studies)})
    return sorted((StudyCounts(*row) for row in rows), key=lambda counts: counts.study_uid)


async def series_sources(connection: AsyncConnection, series: Collection[Series]) -> list[Source]:
    """The instance that each series has its columns from: stored first, then the lowest UID."""
    return [_source(row) for row in await connection.execute(_SERIES_SOURCES, _pairs(series))]


async def study_sources(connection: AsyncConnection, studies: Collection[str]) -> list[Source]:
    """The instance that each study has its columns from: stored first, then the lowest UID."""
    return [_source(row) for row in await connection.execute(_STUDY_SOURCES, {"studies": sorted(studies)})]


async def settle_patients(connection: AsyncConnection, studies: Collection[str], *, stray: bool) -> None:
    """Gives the patients of the studies the name, birth date and sex of the study that was received first.

    Arguments:
        connection: of the tenant's transaction.
        studies: the studies that were written.
        stray: whether a study may have lost its patient, so that patients without studies are to be removed.
    """
    if stray:
        await connection.execute(_STRAY_PATIENTS)
    await connection.execute(_DESCRIBE_PATIENTS, {"studies": sorted(studies)})


async def stale_series(connection: AsyncConnection, series: Collection[Series]) -> list[int]:
    """Keys of those of the series whose document is older than they are."""
    return list((await connection.execute(_STALE, _pairs(series))).scalars())


async def all_stale_series(connection: AsyncConnection, limit: int) -> list[int]:
    """Keys of series whose document is older than they are."""
    return list((await connection.execute(_ALL_STALE, {"limit": limit})).scalars())


async def document_sources(connection: AsyncConnection, key: int) -> DocumentSources | None:
    """What the document of a series is made of; nothing when the series is gone."""
    rows = (await connection.execute(_DOCUMENT_SOURCES, {"id": key})).all()
    if not rows:
        return None
    packs = tuple((_place(row), frozenset(row.uids)) for row in rows)
    return DocumentSources((rows[0].study_uid, rows[0].series_uid), rows[0].revision, packs)


async def set_document(connection: AsyncConnection, key: int, revision: int) -> int | None:
    """Notes that the document of this revision is there.

    Returns:
        The revision of the document before it (0: there was none), or nothing when a newer one is there already.
    """
    found: int | None = (
        await connection.execute(_HAS_DOCUMENT, {"id": key, "revision": revision})
    ).scalar_one_or_none()
    return found


async def document_revision(connection: AsyncConnection, key: int) -> int | None:
    """The revision of the document that a series has; nothing when the series is gone."""
    found: int | None = (await connection.execute(_DOCUMENT_REVISION, {"id": key})).scalar_one_or_none()
    return found


async def empty_catalog(connection: AsyncConnection) -> None:
    """Removes all of the tenant's rows from the catalog."""
    for table in _EVERYTHING:
        await connection.execute(text(f"DELETE FROM {table} WHERE tenant_id = current_setting('lightbox.tenant')"))


def _pairs(series: Collection[Series]) -> dict[str, list[str]]:
    ordered = sorted(series)
    return {"studies": [study for study, _ in ordered], "series": [uid for _, uid in ordered]}


def _place(row: Any) -> PackPlace:
    return PackPlace(row.key, row.size, row.index_offset, row.index_length)


def _source(row: Any) -> Source:
    return Source((row.study_uid, row.series_uid), row.sop_uid, _place(row))

"""The catalog's rows. Every statement writes a whole batch; every function works in the transaction it is given.

The tenant is that of the transaction. ``lock_tenant`` comes first: then no other transaction writes to this tenant's
catalog, so what is read stays true and nothing can deadlock.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Row, text
from sqlalchemy.ext.asyncio import AsyncConnection

from services.indexing.domain import Copy, IndexedPack, SeriesEntry, StudyEntry, patient_key

_TENANT = "current_setting('lightbox.tenant')"

_LOCK = text(f"SELECT pg_advisory_xact_lock(hashtext('indexing'), hashtext({_TENANT}))")

_PACKS = text(f"""
INSERT INTO packs (tenant_id, key, size, index_offset, index_length, stored, rule)
SELECT {_TENANT}, given.* FROM unnest(
    CAST(:keys AS text[]), CAST(:sizes AS bigint[]), CAST(:offsets AS bigint[]), CAST(:lengths AS integer[]),
    CAST(:stored AS timestamptz[]), CAST(:rules AS text[]))
    AS given (key, size, index_offset, index_length, stored, rule)
ORDER BY key
ON CONFLICT (tenant_id, key) DO UPDATE SET stored = EXCLUDED.stored, rule = EXCLUDED.rule
WHERE (packs.stored, packs.rule) <> (EXCLUDED.stored, EXCLUDED.rule)
""")

_INSTANCES_HELD = text("""
SELECT i.sop_uid, i.sha256, p.stored, p.rule, p.key, i.byte_offset, i.byte_length, st.study_uid, se.series_uid
FROM instances i
JOIN packs p ON p.tenant_id = i.tenant_id AND p.id = i.pack_key
JOIN series se ON se.tenant_id = i.tenant_id AND se.id = i.series_key
JOIN studies st ON st.tenant_id = se.tenant_id AND st.id = se.study_key
WHERE i.sop_uid = ANY(CAST(:uids AS text[]))
""")

_VERSIONS_HELD = text("""
SELECT v.sop_uid, v.sha256, p.stored, p.rule, p.key, v.byte_offset, v.byte_length, v.study_uid, v.series_uid
FROM instance_versions v JOIN packs p ON p.tenant_id = v.tenant_id AND p.id = v.pack_key
WHERE v.sop_uid = ANY(CAST(:uids AS text[]))
""")

_PATIENTS = text(f"""
INSERT INTO patients (tenant_id, patient_id, issuer)
SELECT DISTINCT {_TENANT}, given.* FROM unnest(CAST(:ids AS text[]), CAST(:issuers AS text[]))
    AS given (patient_id, issuer)
ORDER BY 2, 3
ON CONFLICT (tenant_id, patient_id, issuer) DO NOTHING
""")

_STUDY_GIVEN = """
unnest(
    CAST(:study_uid AS text[]), CAST(:key_id AS text[]), CAST(:key_issuer AS text[]),
    CAST(:patient_id AS text[]), CAST(:patient_name AS text[]), CAST(:patient_birth_date AS date[]),
    CAST(:patient_sex AS text[]), CAST(:study_date AS date[]), CAST(:study_time AS time[]),
    CAST(:accession_number AS text[]), CAST(:study_id AS text[]), CAST(:description AS text[]),
    CAST(:referring_physician AS text[]), CAST(:attributes AS jsonb[])
) AS given (
    study_uid, key_id, key_issuer, patient_id, patient_name, patient_birth_date, patient_sex, study_date, study_time,
    accession_number, study_id, description, referring_physician, attributes
) JOIN patients p ON p.tenant_id = current_setting('lightbox.tenant')
    AND p.patient_id = given.key_id AND p.issuer = given.key_issuer
"""
_STUDY_COLUMNS = (
    "patient_id, patient_name, patient_birth_date, patient_sex, study_date, study_time, accession_number, study_id, "
    "description, referring_physician, attributes"
)
_STUDY_VALUES = ", ".join(f"given.{column}" for column in _STUDY_COLUMNS.split(", "))

_NEW_STUDIES = text(f"""
INSERT INTO studies (tenant_id, study_uid, patient_key, {_STUDY_COLUMNS}, received_at, updated_at)
SELECT {_TENANT}, given.study_uid, p.id, {_STUDY_VALUES}, to_timestamp(0), to_timestamp(0)
FROM {_STUDY_GIVEN} ORDER BY given.study_uid
ON CONFLICT (tenant_id, study_uid) DO NOTHING
RETURNING study_uid
""")

_DESCRIBE_STUDIES = text(f"""
UPDATE studies SET (patient_key, {_STUDY_COLUMNS}) = ROW (p.id, {_STUDY_VALUES})
FROM {_STUDY_GIVEN}
WHERE studies.study_uid = given.study_uid
    AND (studies.patient_key, {", ".join("studies." + c for c in _STUDY_COLUMNS.split(", "))})
        IS DISTINCT FROM (p.id, {_STUDY_VALUES})
RETURNING studies.study_uid
""")

_SERIES_GIVEN = """
unnest(
    CAST(:study_uid AS text[]), CAST(:series_uid AS text[]), CAST(:modality AS text[]),
    CAST(:series_number AS integer[]), CAST(:description AS text[]), CAST(:attributes AS jsonb[])
) AS given (study_uid, series_uid, modality, series_number, description, attributes)
JOIN studies st ON st.tenant_id = current_setting('lightbox.tenant') AND st.study_uid = given.study_uid
"""

_NEW_SERIES = text(f"""
INSERT INTO series
    (tenant_id, study_key, series_uid, modality, series_number, description, attributes, revision, received_at,
    updated_at)
SELECT {_TENANT}, st.id, given.series_uid, given.modality, given.series_number, given.description, given.attributes,
    0, to_timestamp(0), to_timestamp(0)
FROM {_SERIES_GIVEN} ORDER BY given.study_uid, given.series_uid
ON CONFLICT (tenant_id, study_key, series_uid) DO NOTHING
""")

_DESCRIBE_SERIES = text(f"""
UPDATE series SET
    modality = given.modality, series_number = given.series_number, description = given.description,
    attributes = given.attributes
FROM {_SERIES_GIVEN}
WHERE series.study_key = st.id AND series.series_uid = given.series_uid
    AND (series.modality, series.series_number, series.description, series.attributes)
        IS DISTINCT FROM (given.modality, given.series_number, given.description, given.attributes)
RETURNING given.study_uid
""")

_INSTANCES = text(f"""
INSERT INTO instances
    (tenant_id, sop_uid, series_key, pack_key, byte_offset, byte_length, instance_number, frame_count, sop_class_uid,
    transfer_syntax, sha256, warnings)
SELECT {_TENANT}, given.sop_uid, se.id, p.id, given.byte_offset, given.byte_length, given.instance_number,
    given.frame_count, given.sop_class_uid, given.transfer_syntax, given.sha256,
    ARRAY(SELECT jsonb_array_elements_text(given.warnings))
FROM unnest(
    CAST(:sop_uid AS text[]), CAST(:study_uid AS text[]), CAST(:series_uid AS text[]), CAST(:pack AS text[]),
    CAST(:offset AS bigint[]), CAST(:length AS bigint[]), CAST(:instance_number AS integer[]),
    CAST(:frame_count AS integer[]), CAST(:sop_class_uid AS text[]), CAST(:transfer_syntax AS text[]),
    CAST(:sha256 AS bytea[]), CAST(:warnings AS jsonb[])
) AS given (
    sop_uid, study_uid, series_uid, pack, byte_offset, byte_length, instance_number, frame_count, sop_class_uid,
    transfer_syntax, sha256, warnings)
JOIN studies st ON st.tenant_id = {_TENANT} AND st.study_uid = given.study_uid
JOIN series se ON se.tenant_id = st.tenant_id AND se.study_key = st.id AND se.series_uid = given.series_uid
JOIN packs p ON p.tenant_id = st.tenant_id AND p.key = given.pack
ORDER BY given.sop_uid
ON CONFLICT (tenant_id, sop_uid) DO UPDATE SET
    series_key = EXCLUDED.series_key, pack_key = EXCLUDED.pack_key, byte_offset = EXCLUDED.byte_offset,
    byte_length = EXCLUDED.byte_length, instance_number = EXCLUDED.instance_number,
    frame_count = EXCLUDED.frame_count, sop_class_uid = EXCLUDED.sop_class_uid,
    transfer_syntax = EXCLUDED.transfer_syntax, sha256 = EXCLUDED.sha256, warnings = EXCLUDED.warnings
""")

_VERSIONS = text(f"""
INSERT INTO instance_versions
    (tenant_id, sop_uid, sha256, study_uid, series_uid, pack_key, byte_offset, byte_length)
SELECT {_TENANT}, given.sop_uid, given.sha256, given.study_uid, given.series_uid, p.id, given.byte_offset,
    given.byte_length
FROM unnest(
    CAST(:sop_uid AS text[]), CAST(:sha256 AS bytea[]), CAST(:study_uid AS text[]), CAST(:series_uid AS text[]),
    CAST(:pack AS text[]), CAST(:offset AS bigint[]), CAST(:length AS bigint[])
) AS given (sop_uid, sha256, study_uid, series_uid, pack, byte_offset, byte_length)
JOIN packs p ON p.tenant_id = {_TENANT} AND p.key = given.pack
ORDER BY given.sop_uid, given.sha256
ON CONFLICT (tenant_id, sop_uid, sha256) DO UPDATE SET
    study_uid = EXCLUDED.study_uid, series_uid = EXCLUDED.series_uid, pack_key = EXCLUDED.pack_key,
    byte_offset = EXCLUDED.byte_offset, byte_length = EXCLUDED.byte_length
""")

_PROMOTED = text("""
DELETE FROM instance_versions
WHERE (sop_uid, sha256) IN (SELECT * FROM unnest(CAST(:uids AS text[]), CAST(:hashes AS bytea[])))
""")


async def lock_tenant(connection: AsyncConnection) -> None:
    """Waits until no other transaction writes to the tenant's catalog, and keeps others out until this one ends."""
    await connection.execute(_LOCK)


async def write_packs(connection: AsyncConnection, packs: Collection[IndexedPack]) -> None:
    """Makes the packs known."""
    await connection.execute(
        _PACKS,
        {
            "keys": [pack.place.key for pack in packs],
            "sizes": [pack.place.size for pack in packs],
            "offsets": [pack.place.index_offset for pack in packs],
            "lengths": [pack.place.index_length for pack in packs],
            "stored": [pack.stored for pack in packs],
            "rules": [pack.rule for pack in packs],
        },
    )


async def find_copies(
    connection: AsyncConnection, uids: Collection[str]
) -> tuple[dict[str, Copy], dict[str, dict[bytes, Copy]]]:
    """What the catalog has of these SOP Instance UIDs: the instances, and the versions by SHA-256."""
    given = {"uids": sorted(uids)}
    instances = {row.sop_uid: _copy(row) for row in await connection.execute(_INSTANCES_HELD, given)}
    versions: dict[str, dict[bytes, Copy]] = {}
    for row in await connection.execute(_VERSIONS_HELD, given):
        versions.setdefault(row.sop_uid, {})[row.sha256] = _copy(row)
    return instances, versions


async def add_studies(connection: AsyncConnection, entries: Mapping[str, StudyEntry]) -> set[str]:
    """Adds studies that are not there, with their patients, and returns their UIDs."""
    if not entries:
        return set()
    await _add_patients(connection, entries)
    return set((await connection.execute(_NEW_STUDIES, _study_values(entries))).scalars())


async def describe_studies(connection: AsyncConnection, entries: Mapping[str, StudyEntry]) -> set[str]:
    """Sets the columns of studies that come from an instance; returns the UIDs of those that were otherwise."""
    if not entries:
        return set()
    await _add_patients(connection, entries)
    return set((await connection.execute(_DESCRIBE_STUDIES, _study_values(entries))).scalars())


async def add_series(connection: AsyncConnection, entries: Mapping[tuple[str, str], SeriesEntry]) -> None:
    """Adds series (by study and series UID) that are not there."""
    if entries:
        await connection.execute(_NEW_SERIES, _series_values(entries))


async def describe_series(connection: AsyncConnection, entries: Mapping[tuple[str, str], SeriesEntry]) -> set[str]:
    """Sets the columns of series that come from an instance; returns the studies of those that were otherwise."""
    if not entries:
        return set()
    return set((await connection.execute(_DESCRIBE_SERIES, _series_values(entries))).scalars())


async def write_instances(connection: AsyncConnection, copies: Sequence[Copy]) -> None:
    """Makes each copy the instance of its UID; its series and pack are there."""
    if copies:
        names = ("instance_number", "frame_count", "sop_class_uid", "transfer_syntax")
        values = {name: [getattr(copy, name) for copy in copies] for name in names}
        warnings = [orjson.dumps(copy.warnings).decode() for copy in copies]
        await connection.execute(_INSTANCES, _copy_values(copies) | values | {"warnings": warnings})


async def write_versions(
    connection: AsyncConnection, copies: Sequence[Copy], promoted: Sequence[tuple[str, bytes]]
) -> None:
    """Keeps copies as versions, and forgets versions that have become instances."""
    if promoted:
        await connection.execute(
            _PROMOTED, {"uids": [uid for uid, _ in promoted], "hashes": [sha256 for _, sha256 in promoted]}
        )
    if copies:
        await connection.execute(_VERSIONS, _copy_values(copies))


async def _add_patients(connection: AsyncConnection, entries: Mapping[str, StudyEntry]) -> None:
    keys = {patient_key(uid, entry) for uid, entry in entries.items()}
    await connection.execute(_PATIENTS, {"ids": [key[0] for key in keys], "issuers": [key[1] for key in keys]})


def _study_values(entries: Mapping[str, StudyEntry]) -> dict[str, list[Any]]:
    uids = sorted(entries)
    ordered = [entries[uid] for uid in uids]
    keys = [patient_key(uid, entry) for uid, entry in zip(uids, ordered, strict=True)]
    values: dict[str, list[Any]] = {
        column: [getattr(entry, column) for entry in ordered]
        for column in _STUDY_COLUMNS.split(", ")
        if column != "attributes"
    }
    return values | {
        "study_uid": uids,
        "key_id": [key[0] for key in keys],
        "key_issuer": [key[1] for key in keys],
        "attributes": _json(entry.attributes for entry in ordered),
    }


def _series_values(entries: Mapping[tuple[str, str], SeriesEntry]) -> dict[str, list[Any]]:
    keys = sorted(entries)
    ordered = [entries[key] for key in keys]
    return {
        "study_uid": [study for study, _ in keys],
        "series_uid": [series for _, series in keys],
        "modality": [entry.modality for entry in ordered],
        "series_number": [entry.series_number for entry in ordered],
        "description": [entry.description for entry in ordered],
        "attributes": _json(entry.attributes for entry in ordered),
    }


def _copy_values(copies: Sequence[Copy]) -> dict[str, list[Any]]:
    names = ("sop_uid", "study_uid", "series_uid", "pack", "offset", "length", "sha256")
    return {name: [getattr(copy, name) for copy in copies] for name in names}


def _copy(row: Row[Any]) -> Copy:
    return Copy(
        sop_uid=row.sop_uid,
        sha256=row.sha256,
        stored=row.stored,
        rule=row.rule,
        pack=row.key,
        offset=row.byte_offset,
        length=row.byte_length,
        study_uid=row.study_uid,
        series_uid=row.series_uid,
    )


def _json(values: Iterable[Mapping[str, Any]]) -> list[str]:
    return [orjson.dumps(value).decode() for value in values]

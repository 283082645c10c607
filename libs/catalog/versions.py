"""Read queries about instances whose SOP Instance UID was stored with different bytes, and about odd instances.

Each takes the connection of a tenant's transaction. Lists are in the order of their keys, so that pages neither repeat
nor skip a row.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncConnection

from libs.catalog.rows import InstanceRow

_LIST = text("""
SELECT st.study_uid, st.patient_id, se.series_uid, i.series_key, i.sop_uid, i.sop_class_uid, i.instance_number,
    i.frame_count, i.transfer_syntax, i.sha256, p.key AS pack, p.id AS pack_id, p.size AS pack_size, p.index_offset,
    p.index_length, i.byte_offset, i.byte_length, p.stored, true AS shown
FROM instances i
JOIN packs p ON p.tenant_id = i.tenant_id AND p.id = i.pack_key
JOIN series se ON se.tenant_id = i.tenant_id AND se.id = i.series_key
JOIN studies st ON st.tenant_id = se.tenant_id AND st.id = se.study_key
WHERE i.sop_uid = :sop_uid
UNION ALL
SELECT v.study_uid, coalesce(st.patient_id, ''), v.series_uid, 0, v.sop_uid, '', NULL, 0, '', v.sha256, p.key, p.id,
    p.size, p.index_offset, p.index_length, v.byte_offset, v.byte_length, p.stored, false
FROM instance_versions v
JOIN packs p ON p.tenant_id = v.tenant_id AND p.id = v.pack_key
LEFT JOIN studies st ON st.tenant_id = v.tenant_id AND st.study_uid = v.study_uid
WHERE v.sop_uid = :sop_uid
ORDER BY stored, pack
""")
_DIFFERING = text("""
SELECT v.study_uid, v.series_uid, v.sop_uid, encode(v.sha256, 'hex') AS sha256, v.byte_length AS size, p.stored,
    encode(i.sha256, 'hex') AS shown, st.study_uid AS shown_study, se.series_uid AS shown_series
FROM instance_versions v
JOIN packs p ON p.tenant_id = v.tenant_id AND p.id = v.pack_key
JOIN instances i ON i.tenant_id = v.tenant_id AND i.sop_uid = v.sop_uid
JOIN series se ON se.tenant_id = i.tenant_id AND se.id = i.series_key
JOIN studies st ON st.tenant_id = se.tenant_id AND st.id = se.study_key
WHERE (v.sop_uid, v.sha256) > (:sop_uid, decode(:sha256, 'hex'))
    AND (:study = '' OR v.study_uid = :study OR st.study_uid = :study)
ORDER BY v.sop_uid, v.sha256 LIMIT :limit
""")
_ODD = text("""
SELECT st.study_uid, se.series_uid, i.sop_uid, i.warnings
FROM instances i
JOIN series se ON se.tenant_id = i.tenant_id AND se.id = i.series_key
JOIN studies st ON st.tenant_id = se.tenant_id AND st.id = se.study_key
WHERE i.warnings <> '{}' AND i.sop_uid > :sop_uid AND (:study = '' OR st.study_uid = :study)
ORDER BY i.sop_uid LIMIT :limit
""")


@dataclass(frozen=True)
class Version:
    """One of several instances with the same SOP Instance UID.

    Attributes:
        row: where its bytes lie. Of those that are not shown, class, transfer syntax and numbers are empty.
        stored: when its pack was stored.
        shown: whether it is the one that searches and retrievals give.
    """

    row: InstanceRow
    stored: datetime
    shown: bool


@dataclass(frozen=True)
class DifferingRow:
    """A version that is kept beside the instance that is shown.

    Attributes:
        study_uid: its study.
        series_uid: its series.
        sop_uid: its SOP Instance UID.
        sha256: of its bytes, in hexadecimal.
        size: its bytes.
        stored: when its pack was stored.
        shown: SHA-256 of the instance that is shown.
        shown_study: study of the instance that is shown.
        shown_series: series of the instance that is shown.
    """

    study_uid: str
    series_uid: str
    sop_uid: str
    sha256: str
    size: int
    stored: datetime
    shown: str
    shown_study: str
    shown_series: str


@dataclass(frozen=True)
class OddRow:
    """An instance that was stored although something is wrong with it, and what that is."""

    study_uid: str
    series_uid: str
    sop_uid: str
    warnings: tuple[str, ...]


async def list_versions(connection: AsyncConnection, study_uid: str, series_uid: str, sop_uid: str) -> list[Version]:
    """All that is kept under a SOP Instance UID, in the order of arrival; empty when none of it is in this series."""
    rows = (await connection.execute(_LIST, {"sop_uid": sop_uid})).mappings().all()
    found = [Version(_instance(row), row["stored"], row["shown"]) for row in rows]
    here = any((version.row.study_uid, version.row.series_uid) == (study_uid, series_uid) for version in found)
    return found if here else []


async def list_differing(
    connection: AsyncConnection, *, study_uid: str = "", after: tuple[str, str] = ("", ""), limit: int
) -> list[DifferingRow]:
    """Versions that are kept beside other bytes.

    Arguments:
        connection: of a tenant's transaction.
        study_uid: only those that are in this study, or whose UID is shown in it.
        after: SOP Instance UID and SHA-256 (hexadecimal) of the last row of the page before.
        limit: rows at most.
    """
    given = {"sop_uid": after[0], "sha256": after[1], "study": study_uid, "limit": limit}
    return [DifferingRow(**row) for row in (await connection.execute(_DIFFERING, given)).mappings()]


async def list_odd(connection: AsyncConnection, *, study_uid: str = "", after: str = "", limit: int) -> list[OddRow]:
    """Instances that were stored with a recorded warning.

    Arguments:
        connection: of a tenant's transaction.
        study_uid: only those of this study.
        after: SOP Instance UID of the last row of the page before.
        limit: rows at most.
    """
    rows = await connection.execute(_ODD, {"sop_uid": after, "study": study_uid, "limit": limit})
    return [OddRow(row.study_uid, row.series_uid, row.sop_uid, tuple(row.warnings)) for row in rows]


def _instance(row: RowMapping) -> InstanceRow:
    values: dict[str, Any] = {name: row[name] for name in InstanceRow.__dataclass_fields__}
    return InstanceRow(**{**values, "sha256": bytes(values["sha256"])})

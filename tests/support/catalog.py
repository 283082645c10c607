"""The whole catalog of a tenant, to compare it with itself."""

import hashlib
from typing import Any

import orjson
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from libs.tenancy import tenant_transaction

# Every column but surrogate keys and revisions, which count how often something was done.
QUERIES = {
    "patients": "SELECT patient_id, issuer, name, birth_date, sex FROM patients ORDER BY 1, 2",
    "studies": """
        SELECT st.study_uid, p.patient_id AS key_id, p.issuer AS key_issuer, st.patient_id, patient_name,
            patient_birth_date, patient_sex, study_date, study_time, accession_number, study_id, description,
            referring_physician, modalities, series_count, instance_count, attributes::text, received_at, updated_at
        FROM studies st JOIN patients p ON p.id = st.patient_key ORDER BY 1""",
    "series": """
        SELECT st.study_uid, series_uid, modality, series_number, se.description, se.instance_count,
            se.attributes::text, se.received_at, se.updated_at, se.revision = se.document_revision AS documented
        FROM series se JOIN studies st ON st.id = se.study_key ORDER BY 1, 2""",
    "instances": """
        SELECT sop_uid, series_uid, key, byte_offset, byte_length, instance_number, frame_count, sop_class_uid,
            transfer_syntax, encode(sha256, 'hex') AS sha256, warnings
        FROM instances i JOIN series se ON se.id = i.series_key JOIN packs p ON p.id = i.pack_key ORDER BY 1""",
    "versions": """
        SELECT sop_uid, encode(sha256, 'hex') AS sha256, study_uid, series_uid, key, byte_offset, byte_length
        FROM instance_versions v JOIN packs p ON p.id = v.pack_key ORDER BY 1, 2""",
    "packs": "SELECT key, size, index_offset, index_length, stored, rule FROM packs ORDER BY 1",
}


async def read_catalog(engine: AsyncEngine, tenant: str) -> dict[str, list[dict[str, Any]]]:
    """All catalog rows of a tenant, table by table."""
    found: dict[str, list[dict[str, Any]]] = {}
    async with tenant_transaction(engine, tenant) as connection:
        for table, query in QUERIES.items():
            found[table] = [dict(row) for row in (await connection.execute(text(query))).mappings()]
    return found


def digest(catalog: dict[str, Any]) -> str:
    """A hash over all rows."""
    return hashlib.sha256(orjson.dumps(catalog, default=str, option=orjson.OPT_SORT_KEYS)).hexdigest()

"""Puts studies into the catalog as indexing leaves them there."""

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from typing import Any
from uuid import uuid4

from sqlalchemy import Table, bindparam, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.catalog.tables import patients, series, studies
from libs.tenancy import tenant_transaction


def new_uid() -> str:
    """A unique identifier made from a UUID (PS3.5 section B.2)."""
    return f"2.25.{uuid4().int}"


@dataclass
class Study:
    """A study to put into the catalog."""

    name: str = "Doe^Jane"
    patient_id: str = "4711"
    uid: str = field(default_factory=new_uid)
    birth: date | None = date(1980, 5, 17)
    sex: str = "F"
    day: date | None = date(2026, 1, 31)
    at: time | None = time(9, 30)
    accession: str = ""
    description: str = "Head"
    series: tuple[tuple[str, str, int], ...] = (("MR", "T1", 20),)
    received: datetime = field(default_factory=lambda: datetime.now(UTC))
    attributes: dict[str, Any] = field(default_factory=dict)

    @property
    def modalities(self) -> list[str]:
        return sorted({modality for modality, _, _ in self.series})

    @property
    def images(self) -> int:
        return sum(count for _, _, count in self.series)


async def add_studies(engine: AsyncEngine, tenant: str, *wanted: Study) -> None:
    """Adds them, in one transaction of the tenant."""
    async with tenant_transaction(engine, tenant) as connection:
        for study in wanted:
            await _add(connection, tenant, study)


async def _add(connection: AsyncConnection, tenant: str, study: Study) -> None:
    found = await connection.scalar(select(patients.c.id).where(patients.c.patient_id == study.patient_id))
    row: dict[str, Any]
    if found is None:
        row = {
            "tenant_id": tenant,
            "patient_id": study.patient_id,
            "issuer": "",
            "name": study.name,
            "birth_date": study.birth,
            "sex": study.sex,
        }
        found = await _insert(connection, patients, row)
    times = {"received_at": study.received, "updated_at": study.received}
    row = {
        "tenant_id": tenant,
        "study_uid": study.uid,
        "patient_key": found,
        "patient_id": study.patient_id,
        "patient_name": study.name,
        "patient_birth_date": study.birth,
        "patient_sex": study.sex,
        "study_date": study.day,
        "study_time": study.at,
        "accession_number": study.accession,
        "description": study.description,
        "modalities": study.modalities,
        "series_count": len(study.series),
        "instance_count": study.images,
        "attributes": study.attributes,
        **times,
    }
    key = await _insert(connection, studies, row)
    for number, (modality, description, count) in enumerate(study.series, 1):
        row = {
            "tenant_id": tenant,
            "study_key": key,
            "series_uid": new_uid(),
            "modality": modality,
            "series_number": number,
            "description": description,
            "instance_count": count,
            "attributes": {},
            **times,
        }
        await _insert(connection, series, row)


async def _insert(connection: AsyncConnection, table: Table, row: dict[str, Any]) -> int:
    """Inserts a row and gives the key that the database chose for it."""
    places = ", ".join(f":{name}" for name in row)
    statement = text(f"INSERT INTO {table.name} ({', '.join(row)}) VALUES ({places}) RETURNING id")
    typed = statement.bindparams(*(bindparam(name, type_=table.c[name].type) for name in row))
    key = await connection.scalar(typed, row)
    assert isinstance(key, int)
    return key

"""Puts instances where ingest and indexing would have put them: packs, catalog rows, metadata documents."""

import hashlib
import re
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
from sqlalchemy import func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as upsert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from libs.catalog.tables import instances, packs, patients, series, studies
from libs.dicom import DicomError, Header, read_header
from libs.dicom.frames import frame_count
from libs.objects import ObjectStore
from libs.packs import PackInput, document_key, pack_key, series_document, write_pack
from libs.packs.writer import PackInfo
from libs.tenancy import create_engine, tenant_transaction
from tests.support.backing import BUCKET_PREFIX, Backing

SAMPLES = Path(pydicom.__file__).parent / "data" / "test_files"
PATIENT_AND_STUDY = re.findall(
    r"\w{8}",
    "00080020 00080030 00080050 00080090 00080201 00081030 00100010 00100020 00100030 00100040 00101010 00200010",
)
SERIES = re.findall(
    r"\w{8}",
    "00080021 00080031 00080060 00080201 0008103E 00180015 00200011 00400244 00400245 00400275",
)
UNDECODABLE = {
    "JPEG2000-embedded-sequence-delimiter.dcm",  # cut short on purpose
    "JPGExtended.dcm",
    "JPEG-lossy.dcm",
    "MR_truncated.dcm",
    "SC_rgb_jpeg.dcm",
}


@dataclass(frozen=True)
class Stored:
    """One instance as it was stored."""

    data: bytes
    header: Header
    pack: str
    offset: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.data).hexdigest()

    @property
    def path(self) -> str:
        header = self.header
        return f"/studies/{header.study_uid}/series/{header.series_uid}/instances/{header.sop_instance_uid}"


def sample(name: str) -> bytes:
    return (SAMPLES / name).read_bytes()


def readable_samples() -> list[tuple[str, bytes]]:
    """pydicom's own test files, as far as they are DICOM that can be taken in."""
    found = []
    for path in sorted(SAMPLES.glob("*.dcm")):
        data = path.read_bytes()
        try:
            read_header(data)
        except DicomError:
            continue
        found.append((path.name, data))
    return found


def changed(name: str, **values: Any) -> bytes:
    """A sample with other values of some attributes, by keyword."""
    dataset = pydicom.dcmread(SAMPLES / name)
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    out = BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


class Archive:
    """Stores instances for tests."""

    def __init__(self, backing: Backing) -> None:
        self.engine: AsyncEngine = create_engine(backing.database_url("indexing"), pool_size=2)
        self.objects = ObjectStore(
            backing.s3_endpoint, "us-east-1", backing.s3_access_key, backing.s3_secret_key, BUCKET_PREFIX
        )

    async def close(self) -> None:
        await self.engine.dispose()
        await self.objects.close()

    async def store(self, tenant: str, files: Iterable[bytes], *, documents: bool = True) -> list[Stored]:
        """Stores files, those of a series in one pack. Without documents, as if indexing had not got there yet."""
        groups: dict[tuple[str, str], list[tuple[Header, bytes]]] = defaultdict(list)
        for data in files:
            header = read_header(data)
            groups[header.study_uid, header.series_uid].append((header, data))
        stored: list[Stored] = []
        for (study, series_uid), group in groups.items():
            stored += await self._store_series(tenant, study, series_uid, group, documents=documents)
        return stored

    async def _store_series(
        self, tenant: str, study: str, series_uid: str, group: Sequence[tuple[Header, bytes]], *, documents: bool
    ) -> list[Stored]:
        digests = [hashlib.sha256(data).hexdigest() for _, data in group]
        key = pack_key(study, series_uid, [(h.sop_instance_uid, d) for (h, _), d in zip(group, digests, strict=True)])
        inputs = [PackInput(header, data, digest) for (header, data), digest in zip(group, digests, strict=True)]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "pack.zip"
            info = write_pack(
                path, inputs, study=study, series=series_uid, stored=datetime.now(UTC), source="client:edge-1"
            )
            await self.objects.put_new(tenant, key, path)
        async with tenant_transaction(self.engine, tenant) as connection:
            revision = await _index(connection, tenant, key, info)
            if documents:
                await connection.execute(
                    update(series).where(series.c.series_uid == series_uid).values(document_revision=revision)
                )
        if documents:
            document = series_document(study, series_uid, info.index.instances)
            await self.objects.put(tenant, document_key(study, series_uid, revision), document)
        return [
            Stored(data, header, key, packed.offset)
            for (header, data), packed in zip(group, info.index.instances, strict=True)
        ]


async def _index(connection: AsyncConnection, tenant: str, key: str, info: PackInfo) -> int:
    """The rows of one pack; gives the revision of its series."""
    now = datetime.now(UTC)
    first = info.index.instances[0].dicom
    patient = {"tenant_id": tenant, "patient_id": text(first, "00100020"), "name": text(first, "00100010")}
    await connection.execute(upsert(patients).values(**patient, issuer="", sex="").on_conflict_do_nothing())
    patient_key = await connection.scalar(select(patients.c.id).where(patients.c.patient_id == patient["patient_id"]))
    study = {
        "tenant_id": tenant,
        "study_uid": info.index.study,
        "patient_key": patient_key,
        "patient_id": patient["patient_id"],
        "patient_name": patient["name"],
        "patient_birth_date": day(first, "00100030"),
        "patient_sex": text(first, "00100040"),
        "study_date": day(first, "00080020"),
        "study_time": hour(first, "00080030"),
        "accession_number": text(first, "00080050"),
        "study_id": text(first, "00200010"),
        "description": text(first, "00081030"),
        "referring_physician": text(first, "00080090"),
        "attributes": {tag: first[tag] for tag in PATIENT_AND_STUDY if tag in first},
        "received_at": now,
        "updated_at": now,
    }
    await connection.execute(upsert(studies).values(**study, modalities=[]).on_conflict_do_nothing())
    study_key = await connection.scalar(select(studies.c.id).where(studies.c.study_uid == info.index.study))
    of_series = {
        "tenant_id": tenant,
        "study_key": study_key,
        "series_uid": info.index.series,
        "modality": text(first, "00080060"),
        "series_number": number(first, "00200011"),
        "description": text(first, "0008103E"),
        "attributes": {tag: first[tag] for tag in SERIES if tag in first},
        "revision": 0,
        "document_revision": 0,
        "received_at": now,
        "updated_at": now,
    }
    await connection.execute(upsert(series).values(**of_series).on_conflict_do_nothing())
    this_series = (series.c.study_key == study_key, series.c.series_uid == info.index.series)
    series_key = await connection.scalar(select(series.c.id).where(*this_series))
    place = {"size": info.size, "index_offset": info.index_offset, "index_length": info.index_length}
    pack = insert(packs).values(tenant_id=tenant, key=key, stored=info.index.stored, **place).returning(packs.c.id)
    pack_id = await connection.scalar(pack)
    await connection.execute(
        insert(instances),
        [
            {
                "tenant_id": tenant,
                "sop_uid": i.sop_instance_uid,
                "series_key": series_key,
                "pack_key": pack_id,
                "byte_offset": i.offset,
                "byte_length": i.length,
                "instance_number": number(i.dicom, "00200013"),
                "frame_count": frame_count(i.frames),
                "sop_class_uid": i.sop_class_uid,
                "transfer_syntax": i.transfer_syntax,
                "sha256": bytes.fromhex(i.sha256),
            }
            for i in info.index.instances
        ],
    )
    return await _count(connection, study_key, series_key)


async def _count(connection: AsyncConnection, study_key: Any, series_key: Any) -> int:
    mine = select(func.count()).where(instances.c.series_key == series_key).scalar_subquery()
    revision = await connection.scalar(
        update(series)
        .where(series.c.id == series_key)
        .values(instance_count=mine, revision=series.c.revision + 1)
        .returning(series.c.revision)
    )
    of_study = series.c.study_key == study_key
    modalities = select(func.array_agg(func.distinct(series.c.modality))).where(of_study, series.c.modality != "")
    await connection.execute(
        update(studies)
        .where(studies.c.id == study_key)
        .values(
            series_count=select(func.count()).where(of_study).scalar_subquery(),
            instance_count=select(func.sum(series.c.instance_count)).where(of_study).scalar_subquery(),
            modalities=func.coalesce(modalities.scalar_subquery(), []),
        )
    )
    return int(revision or 0)


def text(dicom: Any, tag: str) -> str:
    value = (dicom.get(tag, {}).get("Value") or [""])[0]
    if isinstance(value, dict):
        return "=".join(value.get(g, "") for g in ("Alphabetic", "Ideographic", "Phonetic")).rstrip("=")
    return str(value or "")


def number(dicom: Any, tag: str) -> int | None:
    value = (dicom.get(tag, {}).get("Value") or [None])[0]
    return int(value) if value is not None else None


def day(dicom: Any, tag: str) -> date | None:
    value = text(dicom, tag)
    return date(int(value[:4]), int(value[4:6]), int(value[6:8])) if len(value) == 8 else None


def hour(dicom: Any, tag: str) -> time | None:
    value = text(dicom, tag).replace(":", "")
    return time(int(value[:2]), int(value[2:4] or 0), int(value[4:6] or 0)) if value else None

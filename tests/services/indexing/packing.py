"""Packs for tests, made of small instances, stored as ingest would and announced as ingest would."""

import hashlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from libs.dicom.header import read_header
from libs.events import INSTANCES_STORED, Envelope, InstancesStored, envelope
from libs.objects import AlreadyExists, ObjectStore
from libs.packs import PackInput, Rule, pack_key, write_pack

EPOCH = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


def part10(study: str, series: str, instance: str, **attributes: Any) -> bytes:
    """A small CT instance; keyword arguments are DICOM keywords and replace the defaults, ``None`` leaves one out."""
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": instance,
        "StudyInstanceUID": study,
        "SeriesInstanceUID": series,
        "PatientID": "P1",
        "PatientName": "Doe^Jane",
        "PatientBirthDate": "19700102",
        "PatientSex": "F",
        "StudyDate": "20250304",
        "StudyTime": "101112.5",
        "AccessionNumber": "A1",
        "StudyDescription": "Head",
        "Modality": "CT",
        "SeriesNumber": 1,
        "SeriesDescription": "Axial",
        "InstanceNumber": int(instance.rsplit(".", 1)[-1]),
        "Rows": 2,
        "Columns": 2,
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "SamplesPerPixel": 1,
        "PixelRepresentation": 0,
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": b"\x00\x01\x02\x03",
        **attributes,
    }
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = values["SOPClassUID"]
    meta.MediaStorageSOPInstanceUID = UID(instance)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", Dataset(), file_meta=meta, preamble=b"\x00" * 128)
    for keyword, value in values.items():
        if value is not None:
            setattr(dataset, keyword, value)
    target = BytesIO()
    dataset.save_as(target, enforce_file_format=True)
    return target.getvalue()


@dataclass(frozen=True)
class Pack:
    """A pack to be stored.

    Attributes:
        study: Study Instance UID.
        series: Series Instance UID.
        instances: SOP Instance UIDs, each with its own attributes.
        minute: when it was stored, in minutes after a fixed time.
        attributes: of all instances.
        rule: what holds where its UIDs are taken by other bytes.
    """

    study: str
    series: str
    instances: Mapping[str, Mapping[str, Any]]
    minute: int = 0
    attributes: Mapping[str, Any] = field(default_factory=dict)
    rule: Rule = "keep-first"


def pack_of(study: str, series: str, uids: list[str], minute: int = 0, **attributes: Any) -> Pack:
    """A pack of instances with the same attributes."""
    return Pack(study, series, {uid: {} for uid in uids}, minute, attributes)


async def store_pack(objects: ObjectStore, tenant: str, pack: Pack) -> Envelope[InstancesStored]:
    """Stores the pack in the tenant's bucket and returns the event that announces it."""
    files = [part10(pack.study, pack.series, uid, **{**pack.attributes, **own}) for uid, own in pack.instances.items()]
    inputs = [PackInput(read_header(file), file, hashlib.sha256(file).hexdigest()) for file in files]
    target = BytesIO()
    stored = EPOCH + timedelta(minutes=pack.minute)
    info = write_pack(
        target,
        inputs,
        study=pack.study,
        series=pack.series,
        stored=stored,
        source="client:edge-1",
        rule=pack.rule,
    )
    key = pack_key(pack.study, pack.series, [(i.header.sop_instance_uid, i.sha256) for i in inputs])
    with suppress(AlreadyExists):
        await objects.put_new(tenant, key, target.getvalue())
    return envelope(
        INSTANCES_STORED,
        tenant,
        InstancesStored(
            study_uid=pack.study,
            series_uid=pack.series,
            pack_key=key,
            pack_size=info.size,
            index_offset=info.index_offset,
            index_length=info.index_length,
            instance_count=len(inputs),
            source="client:edge-1",
        ),
    )

"""What the queries of the catalog give back."""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, Literal

Order = Literal["study-date", "arrival"]
"""Newest study first, by the date of the study or by the time it arrived; the row's key breaks ties."""


class InvalidCursor(ValueError):
    """The text is not a cursor of this order."""


@dataclass(frozen=True)
class Cursor:
    """The place in a list of studies after which the next page begins.

    Attributes:
        order: the order of the list.
        value: the study date, or the time of arrival, of the last row of the page before.
        key: its key.
    """

    order: Order
    value: date | datetime | None
    key: int

    def encode(self) -> str:
        """The cursor as text for a URL."""
        value = self.value.isoformat() if self.value is not None else None
        return base64.urlsafe_b64encode(json.dumps([self.order, value, self.key]).encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str, order: Order) -> "Cursor":
        """Reads what `encode` wrote.

        Raises:
            InvalidCursor: the text is something else.
        """
        try:
            found, value, key = json.loads(base64.urlsafe_b64decode(text[:200] + "=" * (-len(text) % 4)))
            if found != order or not isinstance(key, int) or not 0 <= key < 1 << 63:
                raise InvalidCursor(text)
            if order == "arrival":
                arrived = datetime.fromisoformat(value)
                if arrived.tzinfo is None:
                    raise InvalidCursor(text)
                return cls(order, arrived, key)
            return cls(order, date.fromisoformat(value) if value is not None else None, key)
        except (ValueError, TypeError, binascii.Error) as error:
            raise InvalidCursor(text) from error


@dataclass(frozen=True)
class StudyRow:
    """A study with the patient it belongs to. ``attributes`` is DICOM JSON (PS3.18 annex F)."""

    key: int
    study_uid: str
    patient_id: str
    patient_name: str
    patient_birth_date: date | None
    patient_sex: str
    study_date: date | None
    study_time: time | None
    accession_number: str
    study_id: str
    description: str
    referring_physician: str
    modalities: tuple[str, ...]
    series_count: int
    instance_count: int
    attributes: dict[str, Any]
    received_at: datetime
    updated_at: datetime

    def cursor(self, order: Order) -> Cursor:
        """The place right after this row."""
        return Cursor(order, self.received_at if order == "arrival" else self.study_date, self.key)


@dataclass(frozen=True)
class SeriesRow:
    """A series. ``attributes`` is DICOM JSON (PS3.18 annex F).

    Attributes:
        patient_id: the Patient ID of its study.
        revision: counts the changes of the series.
        document_revision: the revision whose metadata document lies in the object store; 0 for none.
    """

    key: int
    study_key: int
    study_uid: str
    patient_id: str
    series_uid: str
    modality: str
    series_number: int | None
    description: str
    instance_count: int
    attributes: dict[str, Any]
    revision: int
    document_revision: int
    received_at: datetime
    updated_at: datetime


@dataclass(frozen=True)
class InstanceRow:
    """An instance and where its bytes lie.

    Attributes:
        patient_id: the Patient ID of its study.
        sha256: digest of the Part 10 file, 32 bytes.
        pack: object key of the pack that holds it.
        pack_id: the catalog's own key of that pack.
        pack_size: bytes of the pack.
        index_offset: where the compressed index entry of the pack begins.
        index_length: bytes of the compressed index entry.
        byte_offset: where the Part 10 file begins in the pack.
        byte_length: bytes of the Part 10 file.
    """

    study_uid: str
    patient_id: str
    series_uid: str
    series_key: int
    sop_uid: str
    sop_class_uid: str
    instance_number: int | None
    frame_count: int
    transfer_syntax: str
    sha256: bytes
    pack: str
    pack_id: int
    pack_size: int
    index_offset: int
    index_length: int
    byte_offset: int
    byte_length: int

"""The rules of storing: what is refused, what is a duplicate, which instances share a pack."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from libs.dicom.header import Header
from libs.packs import Rule

NO_RESOURCES: Final = 0xA700
"""Failure Reason: out of resources; sending it again may help (PS3.18 table I.2-2)."""
MISMATCH: Final = 0xA900
"""Failure Reason: the instance does not belong to the study it was sent to."""
PROCESSING_FAILURE: Final = 0x0110
"""Failure Reason: something failed on our side; sending it again may not help."""
CANNOT_UNDERSTAND: Final = 0xC000
"""Failure Reason: the bytes can't be read as DICOM."""
COERCED: Final = 0xB000
"""Warning Reason: elements were changed (PS3.18 table I.2-1)."""


@dataclass(frozen=True)
class Reason:
    """Why an instance was refused, or what to beware of.

    Attributes:
        code: a Failure Reason (0008,1197) or Warning Reason (0008,1196).
        words: the same for people; never a value of the data set.
    """

    code: int
    words: str


@dataclass(frozen=True)
class Coercion:
    """What was changed in an instance before it was stored.

    Attributes:
        reason: the Warning Reason, and what was changed in words.
        original: the attributes as they were sent, as DICOM JSON.
        time: when, with a time zone.
    """

    reason: Reason
    original: Mapping[str, Any]
    time: datetime


@dataclass(frozen=True)
class PartNote:
    """What is known of a part that was made here of what a sender gave in another form. Empty where it is not known.

    Attributes:
        sop_instance_uid: (0008,0018), for the answer to a part that could not be made.
        sop_class_uid: (0008,0016), likewise.
        coercion: what was changed in it.
    """

    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    coercion: Coercion | None = None


@dataclass(frozen=True)
class SpooledPart:
    """One part of the body, whole.

    Attributes:
        path: the file that holds it; there is none when it was refused.
        size: bytes.
        sha256: of its bytes, in hexadecimal.
        crc32: of its bytes.
        refusal: why it can't be taken, when that is clear without reading it.
        announced: SOP Class UID and SOP Instance UID that a C-STORE command gave for it.
        note: what is known of it otherwise.
    """

    path: Path
    size: int
    sha256: str
    crc32: int = 0
    refusal: Reason | None = None
    announced: tuple[str, str] | None = None
    note: PartNote = PartNote()


@dataclass(frozen=True)
class Sender:
    """Who stores.

    Attributes:
        tenant: whose instances these are.
        subject: the subject of the sender's token.
        name: what people call the sender.
        is_person: whether somebody sits there and will look for the instances at once.
        address: network address.
        resource: method and path of the request.
    """

    tenant: str
    subject: str
    name: str
    is_person: bool
    address: str
    resource: str


@dataclass(frozen=True)
class Instance:
    """An instance that was read and may be stored.

    Attributes:
        sop_instance_uid: (0008,0018).
        sop_class_uid: (0008,0016).
        study_uid: (0020,000D).
        series_uid: (0020,000E).
        path: its Part 10 file in the spool.
        size: bytes of the file.
        sha256: of the file, in hexadecimal.
        crc32: of the file.
        weight: bytes of its DICOM JSON.
        header: what was read; none when it is to be read again, to save memory.
        coercion: what was changed in it before.
    """

    sop_instance_uid: str
    sop_class_uid: str
    study_uid: str
    series_uid: str
    path: Path
    size: int
    sha256: str
    crc32: int
    weight: int
    header: Header | None
    coercion: Coercion | None = None

    @property
    def content(self) -> tuple[str, str]:
        """What makes two instances the same: UID and SHA-256."""
        return self.sop_instance_uid, self.sha256


@dataclass(frozen=True)
class PackLimits:
    """When a pack is full.

    Attributes:
        instances: how many instances it may hold.
        size: bytes after which it is closed.
        weight: bytes of DICOM JSON after which it is closed, since its index is built in memory.
    """

    instances: int
    size: int
    weight: int = 32 << 20


@dataclass(frozen=True)
class PlannedPack:
    """Instances of one series that will be stored as one object.

    Attributes:
        study_uid: of all of them.
        series_uid: of all of them.
        instances: what it will hold.
        stored: the time that it will carry.
        rule: what holds where an instance's UID is taken by other bytes.
    """

    study_uid: str
    series_uid: str
    instances: tuple[Instance, ...]
    stored: datetime
    rule: Rule = "keep-first"


@dataclass(frozen=True)
class Outcome:
    """What became of one part of the request. Identifiers are empty where they are not known.

    Attributes:
        sop_instance_uid: (0008,0018).
        sop_class_uid: (0008,0016).
        study_uid: (0020,000D).
        series_uid: (0020,000E).
        sha256: of the bytes, in hexadecimal.
        failure: why it was not stored.
        warning: what the sender should know although it was stored.
        quarantine: the identifier under which the bytes are kept in quarantine.
        coercion: what was changed before it was stored.
    """

    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sha256: str = ""
    failure: Reason | None = None
    warning: Reason | None = None
    quarantine: str = ""
    coercion: Coercion | None = None

    @property
    def stored(self) -> bool:
        """Whether it is durable."""
        return self.failure is None


def outcome_of(instance: Instance, *, failure: Reason | None = None, warning: Reason | None = None) -> Outcome:
    """The outcome for an instance whose identifiers are known; a coercion is a warning where there is no other."""
    if warning is None and instance.coercion is not None:
        warning = instance.coercion.reason
    return Outcome(
        instance.sop_instance_uid,
        instance.sop_class_uid,
        instance.study_uid,
        instance.series_uid,
        instance.sha256,
        failure,
        warning,
        coercion=instance.coercion,
    )


def part_too_large(limit: int) -> Reason:
    """The refusal of a part that is larger than any instance may be."""
    return Reason(NO_RESOURCES, f"the instance has more than {limit} bytes")


def wrong_study() -> Reason:
    """The refusal of an instance that was sent to another study's address."""
    return Reason(MISMATCH, "the instance belongs to another study than the address names")


def not_announced() -> Reason:
    """The refusal of an instance that is another than the C-STORE command said (PS3.4 table B.2-1)."""
    return Reason(MISMATCH, "SOP class or instance UID is not that of the command")


def refusal_of_part(headers: Mapping[str, str], media_type: str) -> Reason | None:
    """What speaks against a part by its headers alone.

    Arguments:
        headers: names in lower case.
        media_type: the part's media type, without parameters; empty when it names none.
    """
    if media_type not in ("", "application/dicom"):
        return Reason(CANNOT_UNDERSTAND, "the part is not application/dicom")
    return refusal_of_coding(headers)


def refusal_of_coding(headers: Mapping[str, str]) -> Reason | None:
    """What speaks against a part by the way in which its bytes are coded.

    Arguments:
        headers: names in lower case.
    """
    if headers.get("content-transfer-encoding", "binary").lower() not in ("binary", "8bit", "7bit"):
        return Reason(CANNOT_UNDERSTAND, "the part has a Content-Transfer-Encoding; only binary is taken")
    if headers.get("content-encoding", "identity").lower() != "identity":
        return Reason(CANNOT_UNDERSTAND, "the part is compressed by a Content-Encoding; that is not taken")
    return None


def plan_packs(
    instances: Sequence[Instance], limits: PackLimits, stored: datetime, rule: Rule = "keep-first"
) -> list[PlannedPack]:
    """Groups instances into packs. The same instances in the same order always give the same packs.

    Identical instances are packed once. Of differing ones with the same UID each goes into a pack of its own rank, and
    packs of the earlier ones carry an earlier time, so that who came first stays first.

    Arguments:
        instances: in the order of arrival.
        limits: when a pack is full.
        stored: the time for the first of them.
        rule: what holds where an instance's UID is taken by other bytes.
    """
    ranks: dict[str, list[str]] = defaultdict(list)
    groups: dict[tuple[int, str, str], list[Instance]] = defaultdict(list)
    for instance in instances:
        known = ranks[instance.sop_instance_uid]
        if instance.sha256 in known:
            continue
        groups[len(known), instance.study_uid, instance.series_uid].append(instance)
        known.append(instance.sha256)
    packs: list[PlannedPack] = []
    for (rank, study_uid, series_uid), members in sorted(groups.items(), key=lambda item: item[0][0]):
        time = stored + timedelta(microseconds=rank)
        packs.extend(PlannedPack(study_uid, series_uid, part, time, rule) for part in _split(members, limits))
    return packs


def _split(instances: Sequence[Instance], limits: PackLimits) -> list[tuple[Instance, ...]]:
    parts: list[tuple[Instance, ...]] = []
    current: list[Instance] = []
    size = weight = 0
    for instance in instances:
        full = (
            len(current) >= limits.instances
            or size + instance.size > limits.size
            or weight + instance.weight > limits.weight
        )
        if current and full:
            parts.append(tuple(current))
            current, size, weight = [], 0, 0
        current.append(instance)
        size += instance.size
        weight += instance.weight
    return [*parts, tuple(current)] if current else parts


@dataclass(frozen=True)
class StudyRecord:
    """What the audit record says of one study of a request; the study is empty for what could not be read.

    Attributes:
        study_uid: the study.
        stored: how many instances were stored.
        failed: how many were not.
        detail: the reasons in words, each once with its number.
    """

    study_uid: str
    stored: int
    failed: int
    detail: str


def study_records(outcomes: Sequence[Outcome]) -> list[StudyRecord]:
    """Sums the outcomes up, study by study in the order of arrival."""
    studies: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        studies[outcome.study_uid].append(outcome)
    records = []
    for study_uid, members in studies.items():
        reasons = Counter(reason.words for o in members if (reason := o.failure or o.warning) is not None)
        stored = sum(outcome.stored for outcome in members)
        detail = "; ".join(f"{words} ({count})" for words, count in reasons.most_common(10))
        records.append(StudyRecord(study_uid, stored, len(members) - stored, detail))
    return records

"""What a pack says to the catalog, and which of several instances with one UID counts. Pure rules, no I/O."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, time
from typing import Any, Final

from libs.packs import PackedInstance, PackIndex, Rule
from services.indexing import attributes as a

_MOST_WARNINGS: Final = 20
_LONGEST_WARNING: Final = 200
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True)
class PackPlace:
    """Where a pack and its index are.

    Attributes:
        key: the object key.
        size: bytes of the pack.
        index_offset: of the compressed index in it.
        index_length: bytes of the compressed index.
    """

    key: str
    size: int
    index_offset: int
    index_length: int


@dataclass(frozen=True)
class StudyEntry:
    """The columns of a study that come from one of its instances."""

    patient_id: str
    issuer: str
    patient_name: str
    patient_birth_date: date | None
    patient_sex: str
    study_date: date | None
    study_time: time | None
    accession_number: str
    study_id: str
    description: str
    referring_physician: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class SeriesEntry:
    """The columns of a series that come from one of its instances."""

    modality: str
    series_number: int | None
    description: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True)
class Copy:
    """One copy of an instance: which bytes, and where they are.

    Attributes:
        sop_uid: SOP Instance UID.
        sha256: of the Part 10 file.
        stored: when its pack was stored.
        pack: key of its pack.
        offset: of the Part 10 file in the pack.
        length: bytes of the Part 10 file.
        study_uid: Study Instance UID.
        series_uid: Series Instance UID.
        rule: of its pack: whether it is shown in place of other bytes that were stored earlier.
        sop_class_uid: not known of copies that are in the catalog as versions.
        transfer_syntax: likewise.
        instance_number: likewise.
        frame_count: likewise.
        warnings: likewise.
    """

    sop_uid: str
    sha256: bytes
    stored: datetime
    pack: str
    offset: int
    length: int
    study_uid: str
    series_uid: str
    rule: Rule = "keep-first"
    sop_class_uid: str = ""
    transfer_syntax: str = ""
    instance_number: int | None = None
    frame_count: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def rank(self) -> tuple[datetime, str]:
        """The lower one came first: by time, then by the pack's key."""
        return self.stored, self.pack

    @property
    def series(self) -> tuple[str, str]:
        """Study and series."""
        return self.study_uid, self.series_uid


@dataclass(frozen=True)
class IndexedPack:
    """What is kept in memory of a pack while it is indexed.

    Attributes:
        place: where it is.
        study_uid: of all of it.
        series_uid: of all of it.
        stored: when.
        rule: whether its instances are shown in place of earlier ones.
        copies: its instances.
        first_uid: the lowest SOP Instance UID in it.
        study: the study's columns, from that instance.
        series: the series' columns, from that instance.
    """

    place: PackPlace
    study_uid: str
    series_uid: str
    stored: datetime
    rule: Rule
    copies: tuple[Copy, ...] = field(repr=False)
    first_uid: str
    study: StudyEntry = field(repr=False)
    series: SeriesEntry = field(repr=False)


def describe_pack(place: PackPlace, index: PackIndex) -> IndexedPack:
    """What the catalog needs of a pack."""
    first = min(index.instances, key=lambda instance: instance.sop_instance_uid)
    return IndexedPack(
        place=place,
        study_uid=index.study,
        series_uid=index.series,
        stored=index.stored,
        rule=index.rule,
        copies=tuple(_copy(place, index, instance) for instance in index.instances),
        first_uid=first.sop_instance_uid,
        study=describe_study(first),
        series=describe_series(first),
    )


def describe_study(instance: PackedInstance) -> StudyEntry:
    """The study's columns, as this instance has them."""
    dicom = instance.dicom
    return StudyEntry(
        patient_id=a.text_of(dicom, "00100020"),
        issuer=a.text_of(dicom, "00100021"),
        patient_name=a.name_of(dicom, "00100010"),
        patient_birth_date=a.date_of(dicom, "00100030"),
        patient_sex=a.text_of(dicom, "00100040"),
        study_date=a.date_of(dicom, "00080020"),
        study_time=a.time_of(dicom, "00080030"),
        accession_number=a.text_of(dicom, "00080050"),
        study_id=a.text_of(dicom, "00200010"),
        description=a.text_of(dicom, "00081030"),
        referring_physician=a.name_of(dicom, "00080090"),
        attributes=a.pick(dicom, a.STUDY_TAGS),
    )


def describe_series(instance: PackedInstance) -> SeriesEntry:
    """The series' columns, as this instance has them."""
    dicom = instance.dicom
    return SeriesEntry(
        modality=a.text_of(dicom, "00080060"),
        series_number=a.integer_of(dicom, "00200011"),
        description=a.text_of(dicom, "0008103E"),
        attributes=a.pick(dicom, a.SERIES_TAGS),
    )


def patient_key(study_uid: str, entry: StudyEntry) -> tuple[str, str]:
    """Patient ID and issuer that tell patients apart.

    Without a Patient ID the study's UID takes the issuer's place: nothing says that two such studies are one person's.
    """
    return (entry.patient_id, entry.issuer) if entry.patient_id else ("", f"study {study_uid}")


def _copy(place: PackPlace, index: PackIndex, instance: PackedInstance) -> Copy:
    frames = instance.frames
    count = 0
    if frames is not None:
        count = frames.get("count", 0) if frames["kind"] == "native" else len(frames.get("fragments", []))
    return Copy(
        sop_uid=instance.sop_instance_uid,
        sha256=bytes.fromhex(instance.sha256),
        stored=index.stored,
        pack=place.key,
        offset=instance.offset,
        length=instance.length,
        study_uid=index.study,
        series_uid=index.series,
        rule=index.rule,
        sop_class_uid=instance.sop_class_uid,
        transfer_syntax=instance.transfer_syntax,
        instance_number=a.integer_of(instance.dicom, "00200013"),
        frame_count=min(count, 2**31 - 1),
        warnings=tuple(words.replace("\0", "")[:_LONGEST_WARNING] for words in instance.warnings[:_MOST_WARNINGS]),
    )


@dataclass
class Decision:
    """What is to be written, so that for each UID one copy is shown and the others are versions.

    Attributes:
        instances: copies that are now the instance of their UID, and were not.
        versions: copies that are now kept as a version, or whose bytes are now found elsewhere.
        promoted: (SOP Instance UID, SHA-256) of versions that have become the instance.
        changed: series whose instances are other ones now, or have other bytes.
        left: series that lost an instance, to another series or to a later copy, so that their first may be another.
    """

    instances: list[Copy] = field(default_factory=list)
    versions: list[Copy] = field(default_factory=list)
    promoted: list[tuple[str, bytes]] = field(default_factory=list)
    changed: set[tuple[str, str]] = field(default_factory=set)
    left: set[tuple[str, str]] = field(default_factory=set)


def decide(
    arrived: Iterable[Copy], instances: Mapping[str, Copy], versions: Mapping[str, Mapping[bytes, Copy]]
) -> Decision:
    """Which copies count.

    Arguments:
        arrived: copies from packs, in any order, repeated or not.
        instances: what the catalog has as the instance, by SOP Instance UID.
        versions: what it has as versions, by SOP Instance UID and SHA-256.
    """
    copies: dict[str, list[Copy]] = {}
    for copy in arrived:
        copies.setdefault(copy.sop_uid, []).append(copy)
    decision = Decision()
    for uid in sorted(copies):
        _decide_one(decision, copies[uid], instances.get(uid), versions.get(uid, {}))
    return decision


def packs_in_doubt(
    arrived: Iterable[Copy], instances: Mapping[str, Copy], versions: Mapping[str, Mapping[bytes, Copy]]
) -> dict[str, set[tuple[str, bytes]]]:
    """Packs whose contents have come again in another pack, as happens when a pack was lost.

    Arguments:
        arrived: copies from packs.
        instances: what the catalog has as the instance, by SOP Instance UID.
        versions: what it has as versions, by SOP Instance UID and SHA-256.

    Returns:
        for the key of each such pack, what has come again: (SOP Instance UID, SHA-256).
    """
    again: dict[str, set[tuple[str, bytes]]] = {}
    for copy in arrived:
        instance = instances.get(copy.sop_uid)
        known = versions.get(copy.sop_uid, {}).get(copy.sha256)
        held = instance if instance is not None and instance.sha256 == copy.sha256 else known
        if held is not None and held.rank < copy.rank:
            again.setdefault(held.pack, set()).add((copy.sop_uid, copy.sha256))
    return again


def without_lost(
    instances: Mapping[str, Copy], versions: Mapping[str, Mapping[bytes, Copy]], lost: Collection[tuple[str, bytes]]
) -> tuple[dict[str, Copy], dict[str, dict[bytes, Copy]]]:
    """The same, where of what was lost any other copy of the same bytes comes first.

    Arguments:
        instances: what the catalog has as the instance, by SOP Instance UID.
        versions: what it has as versions, by SOP Instance UID and SHA-256.
        lost: SOP Instance UID and SHA-256 of what was lost and has come again.
    """

    def known(copy: Copy) -> Copy:
        return replace(copy, stored=_NEVER) if (copy.sop_uid, copy.sha256) in lost else copy

    found = {uid: {sha256: known(copy) for sha256, copy in copies.items()} for uid, copies in versions.items()}
    return {uid: known(copy) for uid, copy in instances.items()}, found


def which_is_shown(copies: Iterable[Copy]) -> Copy:
    """The copy that is shown, of copies of one UID with different bytes each.

    The latest of those that were stored to be shown in place of earlier ones; where there is none, the first. It
    depends on the set of copies alone, not on the order in which they become known.

    Arguments:
        copies: for each content the copy that was stored first; what is stored again changes nothing.
    """
    known = list(copies)
    latest = [copy for copy in known if copy.rule == "keep-latest"]
    return max(latest, key=lambda copy: copy.rank) if latest else min(known, key=lambda copy: copy.rank)


def _decide_one(decision: Decision, arrived: list[Copy], instance: Copy | None, versions: Mapping[bytes, Copy]) -> None:
    known = [*([instance] if instance else []), *versions.values()]
    best: dict[bytes, Copy] = {}
    for copy in [*known, *arrived]:
        held = best.get(copy.sha256)
        if held is None or copy.rank < held.rank:
            best[copy.sha256] = copy
    shown = which_is_shown(best.values())
    if instance is None or shown.rank != instance.rank:
        decision.instances.append(shown)
        if instance is None or shown.sha256 != instance.sha256 or shown.series != instance.series:
            decision.changed.add(shown.series)
        if instance is not None and shown.series != instance.series:
            decision.changed.add(instance.series)
        if instance is not None and (shown.series != instance.series or shown.rank > instance.rank):
            decision.left.add(instance.series)
    for sha256, copy in best.items():
        held = versions.get(sha256)
        if copy is shown:
            if held is not None:
                decision.promoted.append((copy.sop_uid, sha256))
        elif held is None or held.rank != copy.rank:
            decision.versions.append(copy)

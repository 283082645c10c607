"""What studies, series and instances can be searched by, and the conditions that follow from it."""

from dataclasses import dataclass, field
from datetime import date, datetime, time
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select, true
from sqlalchemy.dialects.postgresql import ARRAY, array
from sqlalchemy.types import Text

from libs.catalog import patterns
from libs.catalog.tables import instances, series, studies


@dataclass(frozen=True)
class StudyFilter:
    """Studies that fulfil every condition given; an empty one is no condition.

    Patterns are matched as PS3.4 section C.2.2.2 says: ``*`` and ``?`` are wildcards; the case counts, except
    in the names of persons.

    Attributes:
        study_uids: any of these Study Instance UIDs.
        patient_name: a pattern, matched in any component group of the name.
        patient_id: a pattern.
        accession_number: a pattern.
        study_id: a pattern.
        description: a pattern.
        referring_physician: a pattern, matched like the patient's name.
        patient_sex: a pattern.
        patient_birth_date: earliest and latest, both included; ``None`` leaves an end open.
        study_date: earliest and latest, both included.
        study_time: earliest and latest, both included.
        study_datetime: earliest and latest date and time together, both included (the clinic's local time).
        modalities: a series of any of these modalities is in the study; patterns.
        words: each is found somewhere in the name, the identifier, the accession number or the description;
            taken literally, whatever the case.
    """

    study_uids: tuple[str, ...] = ()
    patient_name: str = ""
    patient_id: str = ""
    accession_number: str = ""
    study_id: str = ""
    description: str = ""
    referring_physician: str = ""
    patient_sex: str = ""
    patient_birth_date: tuple[date | None, date | None] = (None, None)
    study_date: tuple[date | None, date | None] = (None, None)
    study_time: tuple[time | None, time | None] = (None, None)
    study_datetime: tuple[datetime | None, datetime | None] = (None, None)
    modalities: tuple[str, ...] = ()
    words: tuple[str, ...] = ()

    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions on the table of studies."""
        c = studies.c
        found = [
            *_among(c.study_uid, self.study_uids),
            *_matches(c.patient_id, self.patient_id),
            *_matches(c.accession_number, self.accession_number),
            *_matches(c.study_id, self.study_id),
            *_matches(c.description, self.description),
            *_matches(c.patient_sex, self.patient_sex),
            *_between(c.patient_birth_date, *self.patient_birth_date),
            *_between(c.study_date, *self.study_date),
            *_between(c.study_time, *self.study_time),
            *_between(c.study_date + func.coalesce(c.study_time, time(0)), *self.study_datetime),
            *_named(self.patient_name),
            *_modalities(self.modalities),
        ]
        if self.referring_physician.strip("*"):
            found.append(c.referring_physician.ilike(patterns.name_like(self.referring_physician)))
            found += _regex(c.referring_physician, self.referring_physician)
        return [*found, *(_word(w) for w in self.words if w)]


@dataclass(frozen=True)
class SeriesFilter:
    """Series that fulfil every condition given, of studies that fulfil theirs.

    Attributes:
        study: the conditions on the study.
        series_uids: any of these Series Instance UIDs.
        modalities: any of these modalities; patterns.
        series_number: the Series Number.
        description: a pattern.
    """

    study: StudyFilter = field(default_factory=StudyFilter)
    series_uids: tuple[str, ...] = ()
    modalities: tuple[str, ...] = ()
    series_number: int | None = None
    description: str = ""

    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions on the tables of series and studies, joined."""
        c = series.c
        found = [*self.study.conditions(), *_among(c.series_uid, self.series_uids)]
        if self.modalities:
            found.append(or_(*(cond for m in self.modalities for cond in _matches(c.modality, m) or [true()])))
        if self.series_number is not None:
            found.append(c.series_number == self.series_number)
        return [*found, *_matches(c.description, self.description)]


@dataclass(frozen=True)
class InstanceFilter:
    """Instances that fulfil every condition given, of series that fulfil theirs.

    Attributes:
        series: the conditions on the series and the study.
        sop_uids: any of these SOP Instance UIDs.
        sop_class_uids: any of these SOP Class UIDs.
        instance_number: the Instance Number.
    """

    series: SeriesFilter = field(default_factory=SeriesFilter)
    sop_uids: tuple[str, ...] = ()
    sop_class_uids: tuple[str, ...] = ()
    instance_number: int | None = None

    def conditions(self) -> list[ColumnElement[bool]]:
        """The conditions on the tables of instances, series and studies, joined."""
        c = instances.c
        found = [
            *self.series.conditions(),
            *_among(c.sop_uid, self.sop_uids),
            *_among(c.sop_class_uid, self.sop_class_uids),
        ]
        if self.instance_number is not None:
            found.append(c.instance_number == self.instance_number)
        return found


def _among(column: ColumnElement[Any], values: tuple[str, ...]) -> list[ColumnElement[bool]]:
    return [column.in_(values)] if values else []


def _matches(column: ColumnElement[Any], pattern: str) -> list[ColumnElement[bool]]:
    """A value or a pattern with wildcards, the case counting. Stars alone match anything, also what is empty."""
    if not pattern.strip("*"):
        return []
    if patterns.has_wildcard(pattern):
        return [column.like(patterns.like(pattern))]
    return [column == pattern.replace("\0", "\ufffe")]


def _between(column: ColumnElement[Any], first: Any, last: Any) -> list[ColumnElement[bool]]:
    found = [column >= first] if first is not None else []
    return found + ([column <= last] if last is not None else [])


def _named(pattern: str) -> list[ColumnElement[bool]]:
    """Names by the function that can use the trigram index; row-level security keeps plain ILIKE off it."""
    if not pattern.strip("*"):
        return []
    candidates = select(func.studies_named(patterns.name_like(pattern)))
    return [studies.c.id.in_(candidates), *_regex(studies.c.patient_name, pattern)]


def _regex(column: ColumnElement[Any], pattern: str) -> list[ColumnElement[bool]]:
    regex = patterns.name_regex(pattern)
    return [column.regexp_match(regex, flags="i")] if regex is not None else []


def _modalities(wanted: tuple[str, ...]) -> list[ColumnElement[bool]]:
    if not wanted or any(not m.strip("*") for m in wanted):
        return []
    if not any(patterns.has_wildcard(m) for m in wanted):
        values = array([m.replace("\0", "\ufffe") for m in wanted], type_=Text)
        return [studies.c.id.in_(select(func.studies_with_modality(values.cast(ARRAY(Text)))))]
    among = or_(*(series.c.modality.like(patterns.like(m)) for m in wanted))
    of_study = and_(series.c.tenant_id == studies.c.tenant_id, series.c.study_key == studies.c.id)
    return [select(1).select_from(series).where(of_study, among).correlate(studies).exists()]


def _word(word: str) -> ColumnElement[bool]:
    c = studies.c
    pattern = patterns.infix(word)
    return or_(
        c.id.in_(select(func.studies_named(pattern))),
        c.patient_id.ilike(pattern),
        c.accession_number.ilike(pattern),
        c.description.ilike(pattern),
    )

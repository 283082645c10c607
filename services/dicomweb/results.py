"""What a search answers: DICOM JSON of studies, series and instances (PS3.18 tables 10.6.3-3 to 10.6.3-5)."""

from collections.abc import Mapping
from typing import Any, Final

from libs.catalog.queries import InstanceRow, SeriesRow, StudyRow
from services.dicomweb.parameters import ALL

Attribute = dict[str, Any]
Dataset = dict[str, Attribute]

_STUDY: Final = {
    "00080020": "DA",
    "00080030": "TM",
    "00080050": "SH",
    "00080090": "PN",
    "00081030": "LO",
    "00100010": "PN",
    "00100020": "LO",
    "00100030": "DA",
    "00100040": "CS",
    "00200010": "SH",
}
_SERIES: Final = {"00080060": "CS", "0008103E": "LO", "00200011": "IS"}
_SERIES_WHERE_KNOWN: Final = ("00080021", "00080031", "00400244", "00400245", "00400275")
_INSTANCE_WHERE_KNOWN: Final = ("00280008", "00280010", "00280011", "00280100")
_TIMEZONE: Final = "00080201"
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")


class Results:
    """Writes results.

    Arguments:
        base: the address under which the service is seen, for the Retrieve URLs.
        include: further attributes to return.
    """

    def __init__(self, base: str, include: frozenset[str]) -> None:
        self._base = base
        self._include = frozenset(path.partition(".")[0] for path in include)

    @property
    def everything(self) -> bool:
        """Whether all attributes are asked for."""
        return ALL in self._include

    def wants(self, known: frozenset[str]) -> bool:
        """Whether attributes are asked for beyond those."""
        return bool(self._include - known)

    def study(self, row: StudyRow) -> Dataset:
        """The result of a study."""
        return _sorted(self._study(row) | self._retrieve(f"/studies/{row.study_uid}"))

    def series(self, row: SeriesRow, study: StudyRow | None) -> Dataset:
        """The result of a series; with its study's attributes where the search reaches over studies."""
        found = (self._study(study) if study else {}) | self._series(row)
        return _sorted(found | self._retrieve(f"/studies/{row.study_uid}/series/{row.series_uid}"))

    def instance(
        self, row: InstanceRow, known: Mapping[str, Attribute], series: SeriesRow | None, study: StudyRow | None
    ) -> Dataset:
        """The result of an instance.

        Arguments:
            row: the instance.
            known: its DICOM JSON.
            series: its series, where the search reaches over series.
            study: its study, where the search reaches over studies.
        """
        found = (self._study(study) if study else {}) | (self._series(series) if series else {})
        tags = known.keys() if self.everything else (*_INSTANCE_WHERE_KNOWN, _TIMEZONE, *self._include)
        found |= {tag: known[tag] for tag in tags if tag in known and tag not in found}
        found |= {
            "00080016": _value("UI", row.sop_class_uid),
            "00080018": _value("UI", row.sop_uid),
            "0020000D": _value("UI", row.study_uid),
            "0020000E": _value("UI", row.series_uid),
            "00200013": _value("IS", row.instance_number),
        }
        place = f"/studies/{row.study_uid}/series/{row.series_uid}/instances/{row.sop_uid}"
        return _sorted(found | self._retrieve(place))

    def _study(self, row: StudyRow) -> Dataset:
        columns: dict[str, Any] = {
            "00080020": row.study_date.strftime("%Y%m%d") if row.study_date else None,
            "00080030": row.study_time.strftime("%H%M%S.%f") if row.study_time else None,
            "00080050": row.accession_number,
            "00080090": row.referring_physician,
            "00081030": row.description,
            "00100010": row.patient_name,
            "00100020": row.patient_id,
            "00100030": row.patient_birth_date.strftime("%Y%m%d") if row.patient_birth_date else None,
            "00100040": row.patient_sex,
            "00200010": row.study_id,
        }
        found = {tag: row.attributes.get(tag) or _value(vr, columns[tag]) for tag, vr in _STUDY.items()}
        return {
            **self._further(row.attributes, (_TIMEZONE,)),
            **found,
            "00080061": {"vr": "CS", "Value": list(row.modalities)} if row.modalities else {"vr": "CS"},
            "0020000D": _value("UI", row.study_uid),
            "00201206": _value("IS", row.series_count),
            "00201208": _value("IS", row.instance_count),
        }

    def _series(self, row: SeriesRow) -> Dataset:
        columns: dict[str, Any] = {"00080060": row.modality, "0008103E": row.description, "00200011": row.series_number}
        found = {tag: row.attributes.get(tag) or _value(vr, columns[tag]) for tag, vr in _SERIES.items()}
        return {
            **self._further(row.attributes, (*_SERIES_WHERE_KNOWN, _TIMEZONE)),
            **found,
            "0020000D": _value("UI", row.study_uid),
            "0020000E": _value("UI", row.series_uid),
            "00201209": _value("IS", row.instance_count),
        }

    def _further(self, attributes: Mapping[str, Attribute], always: tuple[str, ...]) -> Dataset:
        """Attributes that are asked for, or always given, where the catalog has them."""
        tags = attributes.keys() if self.everything else (*always, *self._include)
        return {tag: attributes[tag] for tag in tags if tag in attributes}

    def _retrieve(self, path: str) -> Dataset:
        """Where it can be retrieved, and that it is at hand."""
        return {"00080056": _value("CS", "ONLINE"), "00081190": _value("UR", f"{self._base}{path}")}


def _value(vr: str, value: Any) -> Attribute:
    """One value; nothing under ``Value`` where there is none (PS3.18 section F.2.5)."""
    if value is None or value == "":
        return {"vr": vr}
    if vr == "PN":
        groups = zip(_NAME_GROUPS, str(value).split("="), strict=False)
        return {"vr": vr, "Value": [{name: group for name, group in groups if group}]}
    return {"vr": vr, "Value": [value]}


def _sorted(found: Dataset) -> Dataset:
    return dict(sorted(found.items()))

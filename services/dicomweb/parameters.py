"""From the query parameters of a search to what is searched for (PS3.18 sections 8.3.4 and 10.6.1).

An attribute that can't be matched is ignored for matching and counts as one to return, as for a C-FIND (PS3.4 section
C.2.2.1.3); the answer says so in a ``Warning``. What is not an attribute at all is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time
from typing import Any, Final, Literal

from libs.catalog.queries import InstanceFilter, SeriesFilter, StudyFilter
from libs.web.problems import BadRequest
from services.dicomweb.attributes import (
    attribute_path,
    date_range,
    integer,
    is_range,
    one_text,
    several,
    time_range,
    uids,
)

Level = Literal["study", "series", "instance"]
DEFAULT_LIMIT: Final = 100
LARGEST_LIMIT: Final = 1000
LARGEST_OFFSET: Final = 1_000_000
MOST_PARAMETERS: Final = 300
ALL: Final = "all"

Read = Callable[[list[str]], Any]

_OF_STUDY: Final[Mapping[str, tuple[str, Read]]] = {
    "0020000D": ("study_uids", uids),
    "00100010": ("patient_name", one_text),
    "00100020": ("patient_id", one_text),
    "00100030": ("patient_birth_date", date_range),
    "00100040": ("patient_sex", one_text),
    "00080020": ("study_date", date_range),
    "00080030": ("study_time", time_range),
    "00080050": ("accession_number", one_text),
    "00080061": ("modalities", several),
    "00080090": ("referring_physician", one_text),
    "00081030": ("description", one_text),
    "00200010": ("study_id", one_text),
}
_OF_SERIES: Final[Mapping[str, tuple[str, Read]]] = {
    "0020000E": ("series_uids", uids),
    "00080060": ("modalities", several),
    "00200011": ("series_number", integer),
    "0008103E": ("description", one_text),
}
_OF_INSTANCE: Final[Mapping[str, tuple[str, Read]]] = {
    "00080018": ("sop_uids", uids),
    "00080016": ("sop_class_uids", uids),
    "00200013": ("instance_number", integer),
}
_NOT_SUPPORTED: Final = {
    "fuzzymatching": "The fuzzymatching parameter is not supported. Only literal matching has been performed.",
    "emptyvaluematching": (
        "The emptyvaluematching parameter is not supported. Empty Value Matching has not been performed."
    ),
    "multiplevaluematching": (
        "The multiplevaluematching parameter is not supported. Multiple Value Matching has not been performed."
    ),
}


@dataclass(frozen=True)
class Search:
    """What is searched for.

    Attributes:
        filter: the conditions; those of the study and the series are parts of it.
        include: further attributes to return, as paths of tags; ``all`` for what there is.
        limit: results at most.
        offset: results to pass over.
        warnings: what was asked for and not done, in words.
        nothing: the path and the parameters contradict each other, so that nothing can match.
    """

    filter: InstanceFilter
    include: frozenset[str]
    limit: int
    offset: int
    warnings: tuple[str, ...]
    nothing: bool = False


def read_search(
    items: Sequence[tuple[str, str]], level: Level, study_uid: str | None = None, series_uid: str | None = None
) -> Search:
    """Reads the query parameters.

    Arguments:
        items: names and values, decoded, in their order.
        level: what is searched.
        study_uid: the study that the path names.
        series_uid: the series that the path names.

    Raises:
        BadRequest: a parameter is not known, or its value is malformed.
    """
    if len(items) > MOST_PARAMETERS:
        raise BadRequest("There are too many parameters.")
    named: dict[str, list[str]] = {}
    for name, value in items:
        named.setdefault(name, []).append(value)
    warnings = [text for name, text in _NOT_SUPPORTED.items() if _flag(named.pop(name, ["false"]))]
    limit = _count(named.pop("limit", [str(DEFAULT_LIMIT)]), LARGEST_LIMIT)
    offset = _count(named.pop("offset", ["0"]), LARGEST_OFFSET)
    include = _include(named.pop("includefield", []))
    named.pop("accept", None)
    matches: dict[str, list[str]] = {}
    for name, values in named.items():
        matches.setdefault(attribute_path(name), []).extend(values)
    found = _Conditions(level)
    ignored = [path for path, values in matches.items() if not found.take(path, values)]
    if ignored:
        warnings.append(f"Matching is not supported for {', '.join(sorted(ignored))}; it has been ignored.")
    nothing = not (found.within("study_uids", study_uid) and found.within("series_uids", series_uid))
    return Search(found.filter(), include | matches.keys(), limit, offset, tuple(warnings), nothing)


class _Conditions:
    """Collects the conditions of the three levels."""

    def __init__(self, level: Level) -> None:
        self._level = level
        self._study: dict[str, Any] = {}
        self._series: dict[str, Any] = {}
        self._instance: dict[str, Any] = {}
        self._ranges: set[str] = set()

    def take(self, path: str, values: list[str]) -> bool:
        """Notes what an attribute must match; whether it can be matched. Nothing at all matches everything."""
        tables = [(_OF_STUDY, self._study)]
        if self._level != "study":
            tables.append((_OF_SERIES, self._series))
        elif path == "00080060":
            path = "00080061"  # asked of a study, Modality means that of any of its series
        if self._level == "instance":
            tables.append((_OF_INSTANCE, self._instance))
        for table, conditions in tables:
            if path in table:
                name, read = table[path]
                conditions[name] = (
                    conditions[name] + read(values) if name == "modalities" and name in conditions else read(values)
                )
                if name in ("study_date", "study_time") and is_range(values):
                    self._ranges.add(name)
                return True
        return not any(values)

    def within(self, name: str, uid: str | None) -> bool:
        """Confines the search to what the path names; false when the parameters want something else."""
        conditions = self._study if name == "study_uids" else self._series
        asked = conditions.get(name, ())
        if uid is not None:
            conditions[name] = (uid,)
        return uid is None or not asked or uid in asked

    def filter(self) -> InstanceFilter:
        """All of it. Ranges of date and time together are one range of moments (PS3.4 section C.2.2.2.5.4)."""
        if self._ranges == {"study_date", "study_time"}:
            (first, last), (start, end) = self._study["study_date"], self._study.pop("study_time")
            self._study["study_datetime"] = (
                datetime.combine(first, start or time.min) if first else None,
                datetime.combine(last, end or time.max) if last else None,
            )
        series = SeriesFilter(study=StudyFilter(**self._study), **self._series)
        return InstanceFilter(series=series, **self._instance)


def _flag(values: list[str]) -> bool:
    if values[-1].lower() not in ("true", "false"):
        raise BadRequest("fuzzymatching, emptyvaluematching and multiplevaluematching are true or false.")
    return values[-1].lower() == "true"


def _count(values: list[str], largest: int) -> int:
    text = values[-1]
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise BadRequest("limit and offset are whole numbers, not negative.")
    return min(int(text), largest)


def _include(values: list[str]) -> frozenset[str]:
    names = several(values)
    return frozenset(ALL if name.lower() == ALL else attribute_path(name) for name in names)

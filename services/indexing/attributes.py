"""Values of DICOM JSON (PS3.18 annex F) in the form in which the catalog keeps them."""

import re
from collections.abc import Iterable, Mapping
from datetime import date, time
from typing import Any, Final

import orjson

Dicom = Mapping[str, Mapping[str, Any]]
"""DICOM JSON: tag → ``{"vr": …, "Value": […]}``."""

LONGEST: Final = 256
"""Characters of a text column; keys of the database's indexes have an upper bound."""
_LARGEST_ELEMENT: Final = 8192
_DATE: Final = re.compile(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})", re.ASCII)
_TIME: Final = re.compile(r"(\d{2}):?(\d{2})?:?(\d{2})?(?:\.(\d{1,6}))?", re.ASCII)
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")

STUDY_TAGS: Final = frozenset({
    "00080005", "00080020", "00080030", "00080050", "00080051", "00080090", "00080096", "00080201", "00081030",
    "00081032", "00081048", "00081049", "00081060", "00081062", "00081080", "00081084", "00081110", "0020000D",
    "00200010", "00321032", "00321033", "00321060", "00321064", "00401012", "00100010", "00100020", "00100021",
    "00100022", "00100024", "00100030", "00100032", "00100040", "00101001", "00101002", "00101010", "00101020",
    "00101030", "00102000", "00102110", "00102160", "00102180", "001021A0", "001021B0", "001021C0", "001021D0",
    "00102201", "00102202", "00104000", "00120062", "00120063", "00120064",
})  # fmt: skip
"""Of the Patient, Clinical Trial, General Study and Patient Study modules (PS3.3 sections C.7.1 and C.7.2)."""

SERIES_TAGS: Final = frozenset({
    "00080021", "00080031", "00080060", "00080070", "00080080", "00080081", "00081010", "0008103E", "0008103F",
    "00081040", "00081050", "00081052", "00081070", "00081072", "00081090", "00081111", "00180015", "00181000",
    "00181020", "00181030", "00185100", "0020000E", "00200011", "00200052", "00200060", "00201040", "00280108",
    "00280109", "00400244", "00400245", "00400250", "00400251", "00400253", "00400254", "00400260", "00400275",
    "00400280",
})  # fmt: skip
"""Of the General Series, Frame of Reference and General Equipment modules (PS3.3 sections C.7.3, C.7.4, C.7.5)."""


def pick(dicom: Dicom, tags: Iterable[str]) -> dict[str, Any]:
    """These attributes, by tag, as JSON that PostgreSQL takes. Bulk data and what is over 8 kB is left out."""
    picked: dict[str, Any] = {}
    for tag in sorted(set(tags) & dicom.keys()):
        element = dicom[tag]
        if "BulkDataURI" not in element and len(orjson.dumps(element)) <= _LARGEST_ELEMENT:
            picked[tag] = without_nul(element)
    return picked


def without_nul(value: Any) -> Any:
    """The JSON without U+0000, which jsonb refuses."""
    if isinstance(value, str):
        return value.replace("\x00", "")
    if isinstance(value, Mapping):
        return {without_nul(name): without_nul(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [without_nul(inner) for inner in value]
    return value


def text_of(dicom: Dicom, tag: str) -> str:
    """The first value as text of at most 256 characters; empty when there is none."""
    value = _first(dicom, tag)
    return _clean(value) if isinstance(value, str) else ""


def name_of(dicom: Dicom, tag: str) -> str:
    """A person's name: its component groups joined by ``=`` (PS3.5 section 6.2.1), at most 256 characters."""
    value = _first(dicom, tag)
    if not isinstance(value, Mapping):
        return ""
    groups = [group if isinstance(group := value.get(name), str) else "" for name in _NAME_GROUPS]
    return _clean("=".join(groups).rstrip("="))


def integer_of(dicom: Dicom, tag: str) -> int | None:
    """The first value as a whole number that fits a column of 32 bits."""
    value = _first(dicom, tag)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if value == value and abs(value) < 2**31 and value == int(value) else None  # noqa: PLR0124


def date_of(dicom: Dicom, tag: str) -> date | None:
    """The first value as a date (VR DA, and the forms with dots or hyphens that some devices write)."""
    found = _DATE.fullmatch(text_of(dicom, tag))
    try:
        return date(*(int(part) for part in found.groups())) if found else None
    except ValueError:
        return None


def time_of(dicom: Dicom, tag: str) -> time | None:
    """The first value as a time (VR TM); what is left out counts as zero, a leap second as the one before."""
    found = _TIME.fullmatch(text_of(dicom, tag))
    if not found:
        return None
    hour, minute, second, fraction = found.groups(default="0")
    try:
        return time(int(hour), int(minute), min(int(second), 59), int(fraction.ljust(6, "0")))
    except ValueError:
        return None


def _first(dicom: Dicom, tag: str) -> Any:
    values = dicom.get(tag, {}).get("Value")
    return values[0] if isinstance(values, list) and values else None


def _clean(text: str) -> str:
    return text.replace("\x00", "").strip()[:LONGEST]

"""What the pages decide without asking anybody: reading a search line, writing names, ages and times."""

import calendar
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from typing import Any, Final
from urllib.parse import urlencode

MAX_QUERY: Final = 400
MAX_WORDS: Final = 8
MAX_FIELD: Final = 64
MPR_MODALITIES: Final = frozenset({"CT", "MR", "PT"})
MPR_MIN_IMAGES: Final = 10
"""From how many images on a series is taken for a volume that can be cut in three planes."""

_FIELDS: Final = ("name", "id", "accession", "from", "to", "modality")
_DATE = re.compile(r"^(\d{4})(?:-?(\d{2})(?:-?(\d{2}))?)?$")
_INVISIBLE: Final = dict.fromkeys(
    [*range(0x20), *range(0x7F, 0xA0), 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0xFEFF], " "
)


@dataclass(frozen=True)
class Search:
    """What is looked for in the worklist.

    Attributes:
        text: the search line as it was typed.
        words: each must occur in the name, the identifier, the accession number or the description.
        name: part of the patient's name; ``*`` and ``?`` are wildcards, here and below.
        patient_id: how the patient's identifier begins.
        accession: how the accession number begins.
        earliest: the first study date that counts.
        latest: the last study date that counts.
        modalities: any of these.
        fields: the values of the filter fields as they were typed, by name.
        problems: what could not be understood, in words.
    """

    text: str = ""
    words: tuple[str, ...] = ()
    name: str = ""
    patient_id: str = ""
    accession: str = ""
    earliest: date | None = None
    latest: date | None = None
    modalities: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    problems: tuple[str, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether everything matches."""
        return not self.text and not self.fields

    @property
    def query_string(self) -> str:
        """The search as the query of a URL, without what is empty."""
        return urlencode([*([("q", self.text)] if self.text else []), *self.fields])

    @property
    def summary(self) -> str:
        """The search in one line, for people."""
        return " ".join([*([self.text] if self.text else []), *(f"{name}:{value}" for name, value in self.fields)])

    def url(self) -> str:
        """The address of the worklist with this search."""
        return f"/?{self.query_string}" if self.query_string else "/"

    def field(self, name: str) -> str:
        """What was typed into a filter field."""
        return dict(self.fields).get(name, "")


def read_search(text: str, fields: Mapping[str, str]) -> Search:
    """Reads the search line and the filter fields; both have to be fulfilled.

    Arguments:
        text: plain words and ``name:value`` with one of name, id, accession, from, to and modality; a value with
            blanks is put in quotes.
        fields: the filter fields by the same names.

    The parts that can't be understood are named in ``problems`` and otherwise left out.
    """
    text = text.translate(_INVISIBLE).strip()[:MAX_QUERY]
    given = {f: fields.get(f, "").translate(_INVISIBLE).strip()[:MAX_FIELD] for f in _FIELDS}
    for end, place in (("from", 0), ("to", 1)):
        days = read_date(given[end])
        given[end] = days[place].isoformat() if days else given[end]
    search = Search(text=text, fields=tuple((k, v) for k, v in given.items() if v))
    for name, value in search.fields:
        search = _with(search, name, value)
    words: list[str] = []
    for token in _tokens(text):
        name, colon, value = token.partition(":")
        if colon and value and name.lower() in _FIELDS:
            search = _with(search, name.lower(), value)
        elif not (colon and name.lower() in _FIELDS):
            words.append(token.strip("*"))
    if len(words) > MAX_WORDS:
        search = _problem(search, f"Only the first {MAX_WORDS} words count.")
    return replace(search, words=tuple(w for w in words[:MAX_WORDS] if w))


def _tokens(text: str) -> list[str]:
    """Splits at blanks outside of double quotes; a quote that is still open ends with the line."""
    lexer = shlex.shlex(text if text.count('"') % 2 == 0 else text + '"', posix=True)
    lexer.whitespace_split, lexer.quotes, lexer.escape, lexer.commenters = True, '"', "", ""
    return list(lexer)


def _with(search: Search, name: str, value: str) -> Search:
    """The search with one more condition."""
    match name:
        case "name":
            return replace(search, name=_wrapped(value.replace(",", "").replace(" ", "*"), front=True))
        case "id":
            return replace(search, patient_id=_wrapped(value))
        case "accession":
            return replace(search, accession=_wrapped(value))
        case "modality":
            wanted = tuple(m for m in re.split(r"[\s,/]+", value.upper()) if m)
            return replace(search, modalities=(*search.modalities, *wanted)[:16])
    days = read_date(value)
    if days is None:
        return _problem(search, f"“{name}:” needs a date such as 2026, 2026-01 or 2026-01-31, not “{value}”.")
    if name == "from":
        return replace(search, earliest=max(search.earliest or days[0], days[0]))
    return replace(search, latest=min(search.latest or days[1], days[1]))


def _wrapped(value: str, *, front: bool = False) -> str:
    """A value that may go on; one with wildcards of its own is left alone."""
    if "*" in value or "?" in value:
        return f"*{value.strip('*')}*" if front else value
    return f"*{value}*" if front else f"{value}*"


def _problem(search: Search, words: str) -> Search:
    return replace(search, problems=(*search.problems, words))


def read_date(text: str) -> tuple[date, date] | None:
    """The first and last day of a year, a month or a day; ``None`` for anything else.

    It is written ``2026``, ``2026-01``, ``2026-01-31`` or as DICOM writes dates (PS3.5 section 6.2).
    """
    found = _DATE.match(text)
    if not found:
        return None
    year, month, day = (int(part) if part else None for part in found.groups())
    try:
        first = date(year or 0, month or 1, day or 1)
        last = date(first.year, month or 12, day or calendar.monthrange(first.year, month or 12)[1])
    except ValueError:
        return None
    return first, last


@dataclass(frozen=True)
class PersonName:
    """A name formatted for reading (PS3.5 section 6.2.1.2): the family in capitals, then the given names."""

    alphabetic: str
    ideographic: str = ""
    phonetic: str = ""


def format_name(value: str) -> PersonName:
    """Formats a PN value; characters that would direct or break the text around it are taken out."""
    groups = [group.translate(_INVISIBLE) for group in value.split("=")[:3]]
    alphabetic, ideographic, phonetic = (*groups, "", "", "")[:3]
    return PersonName(_alphabetic(alphabetic), _plain(ideographic), _plain(phonetic))


def _alphabetic(group: str) -> str:
    family, given, middle, prefix, suffix = ([" ".join(part.split()) for part in group.split("^")] + [""] * 5)[:5]
    names = " ".join(part for part in (given, middle) if part)
    title = " ".join(part for part in (prefix, suffix) if part)
    return ", ".join(part for part in (family.upper(), names, title) if part)


def _plain(group: str) -> str:
    return " ".join(part for part in group.replace("^", " ").split() if part)


def format_age(birth: date | None, at: date | None, attributes: Mapping[str, Any] | None = None) -> str:
    """The patient's age at the study: ``45 y``, ``7 mo`` or ``12 d``; what the study says itself comes first.

    Arguments:
        birth: the birth date.
        at: the study date; today where it is not known.
        attributes: the study's DICOM JSON, which may hold Patient's Age (0010,1010).
    """
    stated = first_value(attributes or {}, "00101010")
    if isinstance(stated, str) and re.fullmatch(r"(?!000)\d{3}[DWMY]", stated):
        unit = {"D": "d", "W": "wk", "M": "mo", "Y": "y"}[stated[3]]
        return f"{int(stated[:3])} {unit}"
    if birth is None:
        return ""
    at = at or datetime.now(UTC).date()
    if at < birth:
        return ""
    months = (at.year - birth.year) * 12 + at.month - birth.month - (at.day < birth.day)
    if months >= 24:
        return f"{months // 12} y"
    return f"{months} mo" if months >= 2 else f"{(at - birth).days} d"


def first_value(attributes: Mapping[str, Any], tag: str) -> Any:
    """The first value of an attribute in DICOM JSON (PS3.18 annex F), or ``None``."""
    element = attributes.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def since(moment: datetime, now: datetime) -> str:
    """How long ago something was, as one says it."""
    seconds = max(0.0, (now - moment).total_seconds())
    if seconds < 60:
        return "just now"
    for limit, size, unit in ((3600, 60, "min"), (86_400, 3600, "h"), (30 * 86_400, 86_400, "d")):
        if seconds < limit:
            return f"{int(seconds // size)} {unit} ago"
    return moment.date().isoformat()


def local_path(target: str) -> str:
    """The target if it is a path on this site, else ``/``."""
    if not target.startswith("/") or target.startswith("//") or "\\" in target or not target.isprintable():
        return "/"
    return target


def is_volume(modality: str, images: int) -> bool:
    """Whether a series can be expected to be a volume that can be looked at in three planes."""
    return modality in MPR_MODALITIES and images >= MPR_MIN_IMAGES

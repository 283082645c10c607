"""Attributes by keyword or tag, and the values that a search may match them with (PS3.18 section 8.3.4)."""

import re
from datetime import date, time
from typing import Final

from pydicom.datadict import tag_for_keyword

from libs.dicom.identifiers import is_uid
from libs.web.problems import BadRequest

_HEX: Final = re.compile(r"[0-9A-Fa-f]{8}")
_DATES: Final = re.compile(r"(\d{8})?(?:(-)(\d{8})?)?", re.ASCII)
_TIME: Final = r"\d{2}(?::?\d{2}(?::?\d{2}(?:\.\d{1,6})?)?)?"
_TIMES: Final = re.compile(rf"({_TIME})?(?:(-)({_TIME})?)?", re.ASCII)
_DEEPEST: Final = 8
_LONGEST: Final = 1024
_MOST_VALUES: Final = 1000


def attribute_path(text: str) -> str:
    """The attribute that is named by keyword or tag: ``00100010``, or a path such as ``00400275.00400009``.

    Raises:
        BadRequest: it is neither.
    """
    parts = text.split(".")
    if len(parts) > _DEEPEST:
        raise BadRequest("An attribute is nested too deep.")
    return ".".join(_tag(part) for part in parts)


def _tag(text: str) -> str:
    if _HEX.fullmatch(text):
        return text.upper()
    tag = tag_for_keyword(text)
    if tag is None:
        raise BadRequest(f"{text[:64]!r} is neither a parameter nor the keyword or tag of an attribute.")
    return f"{tag:08X}"


def one_text(values: list[str]) -> str:
    """The single value of an attribute that takes one.

    Raises:
        BadRequest: there are several, or it is too long.
    """
    if len(values) > 1:
        raise BadRequest("An attribute is given more than once.")
    if len(values[0]) > _LONGEST:
        raise BadRequest("The value of an attribute is too long.")
    return values[0].strip()


def several(values: list[str]) -> tuple[str, ...]:
    """Values separated by commas or backslashes, or given in several parameters. Empty ones don't count.

    Raises:
        BadRequest: they are too many or too long.
    """
    found = tuple(v for text in values for v in (part.strip() for part in re.split(r"[,\\]", text)) if v)
    if len(found) > _MOST_VALUES or any(len(v) > _LONGEST for v in found):
        raise BadRequest("There are too many values, or one is too long.")
    return found


def uids(values: list[str]) -> tuple[str, ...]:
    """A list of unique identifiers (PS3.4 section C.2.2.2.2).

    Raises:
        BadRequest: one of them isn't.
    """
    found = several(values)
    if not all(is_uid(uid) for uid in found):
        raise BadRequest("A unique identifier has digits and single dots only, 64 characters at most.")
    return found


def integer(values: list[str]) -> int | None:
    """A whole number (VR IS).

    Raises:
        BadRequest: it isn't.
    """
    text = one_text(values)
    if not text:
        return None
    if re.fullmatch(r"[+-]?\d{1,10}", text, re.ASCII) is None or abs(int(text)) >= 1 << 31:
        raise BadRequest("A number is expected.")
    return int(text)


def date_range(values: list[str]) -> tuple[date | None, date | None]:
    """``YYYYMMDD``, ``A-B``, ``A-`` or ``-B``: the first and the last day (PS3.4 section C.2.2.2.5.1).

    Raises:
        BadRequest: it is something else.
    """
    text = one_text(values)
    matched = _DATES.fullmatch(text)
    if matched is None:
        raise BadRequest("A date is YYYYMMDD, a range of dates is YYYYMMDD-YYYYMMDD.")
    first, hyphen, last = matched.groups()
    return _date(first), _date(last if hyphen else first)


def _date(text: str | None) -> date | None:
    if not text:
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        raise BadRequest("There is no such date.") from None


def time_range(values: list[str]) -> tuple[time | None, time | None]:
    """``HHMMSS.FFFFFF`` or a range of them; parts may be left out at the end, and then the whole of it is meant.

    Raises:
        BadRequest: it is something else.
    """
    text = one_text(values)
    matched = _TIMES.fullmatch(text)
    if matched is None:
        raise BadRequest("A time is HHMMSS.FFFFFF, a range of times is HHMMSS-HHMMSS.")
    first, hyphen, last = matched.groups()
    return _time(first, "000000.000000"), _time(last if hyphen else first, "235959.999999")


def _time(text: str | None, rest: str) -> time | None:
    if not text:
        return None
    given = text.replace(":", "")
    full = given + rest[len(given) :]
    try:
        # A leap second is the last instant of its minute here.
        return time(int(full[:2]), int(full[2:4]), min(int(full[4:6]), 59), int(full[7:13].ljust(6, rest[-1])))
    except ValueError:
        raise BadRequest("There is no such time.") from None


def is_range(values: list[str]) -> bool:
    """Whether the value is a range."""
    return "-" in values[0]

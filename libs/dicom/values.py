"""Values: from the bytes of an element to what the DICOM JSON model has under ``Value`` (PS3.18 section F.2.3)."""

import math
import re
import struct
from collections.abc import Callable
from typing import Any, Final

from libs.dicom.text import CharacterSet

Warn = Callable[[str], None]
Convert = Callable[[bytes, CharacterSet, bool, Warn], list[Any]]
"""From bytes to values. Arguments: the bytes, the character set, whether little endian, where warnings go."""

BINARY: Final = frozenset({"OB", "OW", "OL", "OF", "OD", "OV", "UN"})
"""What DICOM JSON carries as InlineBinary or BulkDataURI."""
SWAP_WIDTH: Final = {"OW": 2, "OL": 4, "OF": 4, "OD": 8, "OV": 8}
"""Bytes of one word of the binary representations; DICOM JSON has them in little endian."""

_NUMBER_CHARACTERS: Final = re.compile(rb"[0-9+\-.eE \\\0]*")
_SAFE_INTEGER: Final = 2**53
_PERSON_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")


def _decoded(value: bytes, charset: CharacterSet, warn: Warn, *, name: bool = False) -> str:
    text, clean = charset.decode(value, name=name)
    if not clean:
        warn("Text does not fit its Specific Character Set; what could not be read is shown as U+FFFD.")
    return text


def _without_nul(text: str, warn: Warn) -> str:
    text = text.rstrip("\0 ")
    if "\0" in text:
        warn("U+0000 inside a text value was left out.")
        text = text.replace("\0", "")
    return text


def _texts(value: bytes, charset: CharacterSet, _little: bool, warn: Warn) -> list[Any]:
    text = _without_nul(_decoded(value, charset, warn), warn)
    if "\\" not in text:
        text = text.strip()
        return [text] if text else []
    return _nulls_for_empty([part.strip() for part in text.split("\\")])


def _codes(value: bytes, _charset: CharacterSet, _little: bool, warn: Warn) -> list[Any]:
    text = _without_nul(value.decode("latin-1"), warn)
    if "\\" not in text:
        text = text.strip()
        return [text] if text else []
    return _nulls_for_empty([part.strip(" \0") for part in text.split("\\")])


def _uids(value: bytes, _charset: CharacterSet, _little: bool, _warn: Warn) -> list[Any]:
    """Identifiers: a NUL inside is no padding, and leaving it out would make another identifier."""
    text = value.decode("latin-1").rstrip("\0 ").replace("\0", "\ufffd")
    return _nulls_for_empty([part.strip(" \ufffd") for part in text.split("\\")])


def _one_text(value: bytes, charset: CharacterSet, _little: bool, warn: Warn) -> list[Any]:
    text = _without_nul(_decoded(value, charset, warn), warn)
    return [text] if text else []


def _many_texts(value: bytes, charset: CharacterSet, _little: bool, warn: Warn) -> list[Any]:
    """Unlimited Characters: leading spaces are significant."""
    text = _without_nul(_decoded(value, charset, warn), warn)
    return _nulls_for_empty([part.rstrip() for part in text.split("\\")]) if text else []


def _one_uri(value: bytes, _charset: CharacterSet, _little: bool, warn: Warn) -> list[Any]:
    text = _without_nul(value.decode("latin-1"), warn)
    return [text] if text else []


def _person_names(value: bytes, charset: CharacterSet, _little: bool, warn: Warn) -> list[Any]:
    text = _without_nul(_decoded(value, charset, warn, name=True), warn)
    return _nulls_for_empty([_person_name(part.strip()) for part in text.split("\\")]) if text else []


def _person_name(text: str) -> dict[str, str] | None:
    groups = zip(_PERSON_NAME_GROUPS, text.split("=", 2), strict=False)
    return {group: part.strip() for group, part in groups if part.strip()} or None


def _nulls_for_empty(values: list[Any]) -> list[Any]:
    """Null where one of several values is empty (PS3.18 section F.2.5); nothing when all are."""
    kept = [value or None for value in values]
    return kept if any(value is not None for value in kept) else []


def _decimals(value: bytes, _charset: CharacterSet, _little: bool, warn: Warn) -> list[Any]:
    return _numbers_from_text(value, _decimal, warn)


def _integers(value: bytes, _charset: CharacterSet, _little: bool, warn: Warn) -> list[Any]:
    return _numbers_from_text(value, _integer, warn)


def _numbers_from_text(value: bytes, convert: Callable[[str], int | float], warn: Warn) -> list[Any]:
    plain = _NUMBER_CHARACTERS.fullmatch(value) is not None
    text = value.decode("latin-1").rstrip("\0 ")
    if not text.strip():
        return []
    values: list[Any] = []
    for raw in text.split("\\"):
        part = raw.strip(" \0")
        if not part:
            values.append(None)
            continue
        try:
            if not plain and _NUMBER_CHARACTERS.fullmatch(part.encode("latin-1")) is None:
                raise ValueError  # Python's own reading of numbers takes more than DICOM's
            values.append(convert(part))
        except (ValueError, OverflowError):
            fallback = raw.strip().replace("\0", "")
            warn("A decimal or integer string does not hold a number; its text was kept.")
            values.append(fallback or None)
    return values if any(item is not None for item in values) else []


def _decimal(text: str) -> int | float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError
    if number.is_integer() and abs(number) < _SAFE_INTEGER:
        return int(number)
    return number


def _integer(text: str) -> int:
    try:
        number = int(text)
    except ValueError:
        exact = float(text)
        if not exact.is_integer():
            raise
        number = int(exact)
    if abs(number) >= _SAFE_INTEGER:
        raise ValueError
    return number


def _packed(code: str) -> Convert:
    width = struct.calcsize(f"<{code}")
    one_little, one_big = struct.Struct(f"<{code}"), struct.Struct(f">{code}")

    def convert(value: bytes, _charset: CharacterSet, little: bool, warn: Warn) -> list[Any]:
        if len(value) == width:
            return list((one_little if little else one_big).unpack(value))
        count, rest = divmod(len(value), width)
        if rest:
            warn("A binary number has a wrong length; the bytes left over were left out.")
        return list(struct.unpack_from(f"{'<' if little else '>'}{count}{code}", value))

    return convert


def _floats(code: str) -> Convert:
    unpack = _packed(code)

    def convert(value: bytes, charset: CharacterSet, little: bool, warn: Warn) -> list[Any]:
        # JSON has no number for these; the text is what other implementations of the model write.
        return [
            number if math.isfinite(number) else {"nan": "NaN"}.get(str(number), str(number))
            for number in unpack(value, charset, little, warn)
        ]

    return convert


def _long_integers(code: str) -> Convert:
    unpack = _packed(code)

    def convert(value: bytes, charset: CharacterSet, little: bool, warn: Warn) -> list[Any]:
        # Text beyond 2^53, since readers in JavaScript would round (PS3.18 table F.2.3-1 allows both).
        return [
            number if abs(number) <= _SAFE_INTEGER else str(number) for number in unpack(value, charset, little, warn)
        ]

    return convert


def _tags(value: bytes, _charset: CharacterSet, little: bool, warn: Warn) -> list[Any]:
    count, rest = divmod(len(value), 4)
    if rest:
        warn("An attribute tag value has a wrong length; the bytes left over were left out.")
    parts = struct.unpack_from(f"{'<' if little else '>'}{2 * count}H", value)
    return [f"{parts[i]:04X}{parts[i + 1]:04X}" for i in range(0, 2 * count, 2)]


CONVERT: Final[dict[str, Convert]] = {
    "AE": _codes,
    "AS": _codes,
    "AT": _tags,
    "CS": _codes,
    "DA": _codes,
    "DS": _decimals,
    "DT": _codes,
    "FD": _floats("d"),
    "FL": _floats("f"),
    "IS": _integers,
    "LO": _texts,
    "LT": _one_text,
    "PN": _person_names,
    "SH": _texts,
    "SL": _packed("i"),
    "SS": _packed("h"),
    "ST": _one_text,
    "SV": _long_integers("q"),
    "TM": _codes,
    "UC": _many_texts,
    "UI": _uids,
    "UL": _packed("I"),
    "UR": _one_uri,
    "US": _packed("H"),
    "UT": _one_text,
    "UV": _long_integers("Q"),
}
"""The converter of each value representation that has ``Value`` in the model; ``SQ`` is the walk's own."""

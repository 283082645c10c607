"""From the DICOM JSON model (PS3.18 annex F) back to a data set in Explicit VR Little Endian (PS3.5 section A.2).

The same model gives the same bytes. Sequences and items have undefined lengths, text is UTF-8 where it is not ASCII.
What can't be written as it stands is refused and not mended.
"""

import re
import struct
from binascii import Error as Base64Error
from binascii import a2b_base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from libs.dicom.errors import InvalidDicom
from libs.dicom.identifiers import is_uid
from libs.dicom.values import BINARY

DEEPEST: Final = 32
MOST_ELEMENTS: Final = 100_000
UNICODE: Final = "ISO_IR 192"
PIXEL_DATA: Final = "7FE00010"
_CHARACTER_SET: Final = "00080005"
_LENGTH_TO_END: Final = "00080001"
"""Retired; it says where a data set ends, like a group length."""
_FORBIDDEN_GROUPS: Final = frozenset({"0001", "0003", "0005", "0007", "FFFF"})
"""PS3.5 section 7.8.1. Text in the first of them would come before the character set that it is in."""
_TAG: Final = re.compile(r"[0-9A-Fa-f]{8}")
_NUMBER: Final = re.compile(r" *[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)? *", re.ASCII)
_INTEGER: Final = re.compile(r" *[+-]?\d{1,11} *", re.ASCII)
_ITEM: Final = bytes.fromhex("feff00e0ffffffff")
_ITEM_END: Final = bytes.fromhex("feff0de000000000")
_SEQUENCE_END: Final = bytes.fromhex("feffdde000000000")
_UNDEFINED: Final = 0xFFFFFFFF
_LONG_HEADER: Final = frozenset({"OB", "OW", "OF", "OD", "OL", "OV", "SQ", "UC", "UN", "UR", "UT", "SV", "UV"})
_SHORT_TEXT: Final = frozenset({"AE", "AS", "CS", "DA", "DT", "LO", "SH", "TM", "UC"})
_ONE_TEXT: Final = frozenset({"LT", "ST", "UT", "UR"})
_ASCII_ONLY: Final = frozenset({"AE", "AS", "CS", "DA", "DT", "TM", "UR", "DS", "IS", "UI"})
_PACKED: Final = {"US": "H", "SS": "h", "UL": "I", "SL": "i", "UV": "Q", "SV": "q", "FL": "f", "FD": "d"}
_NAME_GROUPS: Final = ("Alphabetic", "Ideographic", "Phonetic")
_NOT_FINITE: Final = frozenset({"NaN", "inf", "-inf", "Infinity", "-Infinity"})


@dataclass(frozen=True)
class BulkData:
    """What a ``BulkDataURI`` stands for.

    Attributes:
        files: its bytes, each file with its size; of compressed pixel data one a frame.
        transfer_syntax: of compressed pixel data; empty when the bytes are the value itself, in little endian.
    """

    files: Sequence[tuple[Path, int]]
    transfer_syntax: str = ""


@dataclass(frozen=True)
class Encoded:
    """A data set that was encoded.

    Attributes:
        pieces: bytes, and files of which all is meant, one after another.
        size: bytes of all of them.
        transfer_syntax: that of its compressed pixel data; empty when it has none.
        replaced_character_set: the Specific Character Set that the model named and the data set does not have any more,
            as DICOM JSON; none when it is as it was, or was not there.
    """

    pieces: Sequence[bytes | Path]
    size: int
    transfer_syntax: str
    replaced_character_set: dict[str, Any] | None


Resolve = Callable[[str], BulkData | None]


def encode_data_set(model: Mapping[str, Any], resolve: Resolve) -> Encoded:
    """Encodes one data set.

    Group lengths, Length to End and the file meta information group are left out: they do not belong to the model.

    Arguments:
        model: the DICOM JSON model object of one instance.
        resolve: finds what a ``BulkDataURI`` stands for; none when it is not there.

    Raises:
        InvalidDicom: it is no such model, something in it has no representation in DICOM, or bulk data is missing.
    """
    encoder = _Encoder(resolve, unicode=_has_other_than_ascii(model, 0))
    replaced = encoder.data_set(model, 0)
    return Encoded(encoder.finished(), encoder.size, encoder.transfer_syntax, replaced)


def _has_other_than_ascii(value: Any, depth: int) -> bool:
    if isinstance(value, str):
        return not value.isascii()
    if depth > 4 * DEEPEST:
        raise InvalidDicom(f"The model is nested deeper than {DEEPEST} sequences.")
    if isinstance(value, Mapping):
        return any(_has_other_than_ascii(v, depth + 1) for k, v in value.items() if k != "BulkDataURI")
    return isinstance(value, list) and any(_has_other_than_ascii(item, depth + 1) for item in value)


@dataclass
class _Encoder:
    """One run over a model."""

    resolve: Resolve
    unicode: bool
    size: int = 0
    transfer_syntax: str = ""
    _pieces: list[bytes | Path] = field(default_factory=list)
    _bytes: bytearray = field(default_factory=bytearray)
    _elements: int = 0

    def finished(self) -> list[bytes | Path]:
        self._flush()
        return self._pieces

    def data_set(self, model: Any, depth: int) -> dict[str, Any] | None:
        """Writes one data set; returns the character set that was replaced."""
        if not isinstance(model, Mapping) or not all(isinstance(k, str) and _TAG.fullmatch(k) for k in model):
            raise InvalidDicom("A data set is not an object whose names are tags of eight hexadecimal digits.")
        elements = {key.upper(): element for key, element in model.items()}
        if len(elements) != len(model):
            raise InvalidDicom("A tag is there twice.")
        replaced = self._settle_character_set(elements, depth)
        for key in sorted(elements):
            if key[:4] in _FORBIDDEN_GROUPS:
                raise InvalidDicom(f"{_name(key)} is in a group that may not be used.")
            if key[4:] == "0000" or key[:4] in {"0000", "0002", "FFFE"} or key == _LENGTH_TO_END:
                continue
            if not depth and key < _CHARACTER_SET:
                raise InvalidDicom(
                    f"{_name(key)} stands before the character set, where nothing of an instance may be."
                )
            self._element(key, elements[key], depth)
        return replaced

    def _settle_character_set(self, elements: dict[str, Any], depth: int) -> dict[str, Any] | None:
        """The text of the model is Unicode, and so is what is written of it unless it is all ASCII."""
        named = elements.get(_CHARACTER_SET)
        values = named.get("Value") if isinstance(named, Mapping) else None
        if not self.unicode or values == [UNICODE] or (depth and named is None):
            return None
        if depth:
            raise InvalidDicom("An item of a sequence names a character set of its own, and its text is not ASCII.")
        if values is not None:
            _encoded(_CHARACTER_SET, "CS", values)  # what is replaced must be something that can be told
        elements[_CHARACTER_SET] = {"vr": "CS", "Value": [UNICODE]}
        return {"vr": "CS", "Value": values} if values else None

    def _element(self, key: str, element: Any, depth: int) -> None:
        self._elements += 1
        if self._elements > MOST_ELEMENTS:
            raise InvalidDicom(f"There are more than {MOST_ELEMENTS} elements.")
        vr = element.get("vr") if isinstance(element, Mapping) else None
        if not isinstance(vr, str):
            raise InvalidDicom(f"{_name(key)} has no value representation.")
        given = [name for name in ("Value", "InlineBinary", "BulkDataURI") if element.get(name) is not None]
        if len(given) > 1:
            raise InvalidDicom(f"{_name(key)} has its value in more than one way.")
        if given == ["BulkDataURI"]:
            self._bulk(key, vr, element["BulkDataURI"], depth)
        elif vr == "SQ":
            self._sequence(key, element.get("Value") or [], depth)
        elif given == ["InlineBinary"]:
            self._value(key, vr, _inline(key, vr, element["InlineBinary"]))
        else:
            self._value(key, vr, _encoded(key, vr, element.get("Value") or []))

    def _sequence(self, key: str, items: Any, depth: int) -> None:
        if depth >= DEEPEST:
            raise InvalidDicom(f"Sequences are nested deeper than {DEEPEST} levels.")
        if not isinstance(items, list):
            raise InvalidDicom(f"{_name(key)} is not a list of items.")
        self._add(_header(key, "SQ", _UNDEFINED if items else 0))
        for item in items:
            self._add(_ITEM)
            self.data_set({} if item is None else item, depth + 1)
            self._add(_ITEM_END)
        if items:
            self._add(_SEQUENCE_END)

    def _value(self, key: str, vr: str, value: bytes) -> None:
        if len(value) % 2:
            value += b"\0" if vr in BINARY or vr == "UI" else b" "
        self._add(_header(key, vr, len(value)) + value)

    def _bulk(self, key: str, vr: str, uri: Any, depth: int) -> None:
        bulk = self.resolve(uri) if isinstance(uri, str) else None
        if bulk is None or vr == "SQ":
            raise InvalidDicom(f"The bulk data of {_name(key)} was not sent, or is not what it can have.")
        if bulk.transfer_syntax:
            if key != PIXEL_DATA or depth:
                raise InvalidDicom(f"{_name(key)} can't be compressed; only Pixel Data of the instance itself can.")
            self.transfer_syntax = bulk.transfer_syntax
            self._encapsulated(bulk)
            return
        if len(bulk.files) != 1:
            raise InvalidDicom(f"The bulk data of {_name(key)} was sent more than once.")
        ((path, size),) = bulk.files
        if (
            vr not in BINARY
            and vr not in _PACKED
            and vr not in _SHORT_TEXT | _ONE_TEXT | {"DS", "IS", "UI", "PN", "AT"}
        ):
            raise InvalidDicom(f"{_name(key)} has a value representation that is not known.")
        self._add(_header(key, vr, size + size % 2))
        self._add_file(path, size)
        if size % 2:
            self._add(b"\0" if vr in BINARY or vr == "UI" else b" ")

    def _encapsulated(self, bulk: BulkData) -> None:
        """Frames, each in one fragment, after a Basic Offset Table (PS3.5 section A.4)."""
        self._add(_header(PIXEL_DATA, "OB", _UNDEFINED))
        offsets = [0]
        for _, size in bulk.files:
            if size + size % 2 >= _UNDEFINED:
                raise InvalidDicom("A frame is too large for one fragment.")
            offsets.append(offsets[-1] + 8 + size + size % 2)
        table = struct.pack(f"<{len(bulk.files)}I", *offsets[:-1]) if offsets[-2] < _UNDEFINED else b""
        self._add(struct.pack("<HHI", 0xFFFE, 0xE000, len(table)) + table)
        for path, size in bulk.files:
            self._add(struct.pack("<HHI", 0xFFFE, 0xE000, size + size % 2))
            self._add_file(path, size)
            self._add(b"\0" * (size % 2))
        self._add(_SEQUENCE_END)

    def _add(self, data: bytes) -> None:
        self._bytes += data
        self.size += len(data)

    def _add_file(self, path: Path, size: int) -> None:
        self._flush()
        self._pieces.append(path)
        self.size += size

    def _flush(self) -> None:
        if self._bytes:
            self._pieces.append(bytes(self._bytes))
            self._bytes.clear()


def _name(key: str) -> str:
    return f"({key[:4]},{key[4:]})"


def _header(key: str, vr: str, length: int) -> bytes:
    group, element = int(key[:4], 16), int(key[4:], 16)
    if vr in _LONG_HEADER:
        if length > _UNDEFINED or (length == _UNDEFINED and vr not in {"SQ", "OB"}):
            raise InvalidDicom(f"{_name(key)} is too long for any element.")
        return struct.pack("<HH2sHI", group, element, vr.encode(), 0, length)
    if length > 0xFFFE:
        raise InvalidDicom(f"{_name(key)} is too long for its value representation.")
    return struct.pack("<HH2sH", group, element, vr.encode(), length)


def _inline(key: str, vr: str, text: Any) -> bytes:
    if vr not in BINARY or not isinstance(text, str):
        raise InvalidDicom(f"{_name(key)} can't have an InlineBinary.")
    try:
        return a2b_base64(text.encode("ascii"), strict_mode=True)
    except (Base64Error, UnicodeEncodeError):
        raise InvalidDicom(f"The InlineBinary of {_name(key)} is not Base64.") from None


def _encoded(key: str, vr: str, values: Any) -> bytes:
    """The bytes of a value that the model has under ``Value``."""
    if not isinstance(values, list):
        raise InvalidDicom(f"The Value of {_name(key)} is not a list.")
    try:
        if vr in _SHORT_TEXT:
            return _texts([_text(value, vr) for value in values])
        if vr in _ONE_TEXT:
            return _one_text(values, vr)
        if vr == "PN":
            return _texts([_person_name(value) for value in values])
        if vr == "DS":
            return _texts([_decimal(value) for value in values])
        if vr == "IS":
            return _texts([_integer(value) for value in values])
        if vr == "UI":
            return _texts([_uid(value) for value in values])
        if vr in _PACKED:
            return struct.pack(f"<{len(values)}{_PACKED[vr]}", *(_number(value, vr) for value in values))
        if vr == "AT":
            return b"".join(_tag(value) for value in values)
    except (ValueError, struct.error, OverflowError):
        raise InvalidDicom(f"The Value of {_name(key)} can't be written as its representation {vr}.") from None
    if vr in BINARY and not values:
        return b""
    raise InvalidDicom(f"{_name(key)} has a value representation that is not known, or no binary value.")


def _texts(parts: list[str]) -> bytes:
    return "\\".join(parts).encode()


def _text(value: Any, vr: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str) or "\\" in value or "\0" in value or (vr in _ASCII_ONLY and not value.isascii()):
        raise ValueError
    return value


def _one_text(values: list[Any], vr: str) -> bytes:
    if len(values) > 1 or not all(isinstance(value, str) and "\0" not in value for value in values):
        raise ValueError
    return "".join(values).encode("ascii" if vr in _ASCII_ONLY else "utf-8")


def _person_name(value: Any) -> str:
    if value is None:
        return ""
    if not isinstance(value, Mapping) or not set(value) <= set(_NAME_GROUPS):
        raise ValueError
    groups = [_text(value.get(name), "PN") for name in _NAME_GROUPS]
    if any("=" in group for group in groups):
        raise ValueError
    return "=".join(groups).rstrip("=")


def _decimal(value: Any) -> str:
    """A decimal string of at most 16 characters that is exactly the number (PS3.5 section 6.2)."""
    if value is None:
        return ""
    if isinstance(value, str):
        if len(value) > 16 or _NUMBER.fullmatch(value) is None:
            raise ValueError
        return value
    text = repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else ""
    short = re.sub(r"e([+-])0*(\d)", r"e\1\2", text.removesuffix(".0")).replace("e+", "e")
    if len(short) > 16:
        short = re.sub(r"^(-?)0\.", r"\1.", short)
    if not short or len(short) > 16 or float(short) != value:
        raise ValueError
    return short


def _integer(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else str(int(value)) if _is_whole(value) else ""
    if len(text) > 12 or _INTEGER.fullmatch(text) is None or not -(2**31) <= int(text) < 2**31:
        raise ValueError
    return text


def _is_whole(value: Any) -> bool:
    return not isinstance(value, bool) and (isinstance(value, int) or (isinstance(value, float) and value.is_integer()))


def _uid(value: Any) -> str:
    if not is_uid(value):
        raise ValueError
    return str(value)


def _number(value: Any, vr: str) -> int | float:
    if vr in {"FL", "FD"}:
        if isinstance(value, str) and value in _NOT_FINITE:
            return float(value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError
        return float(value)
    if isinstance(value, str) and vr in {"SV", "UV"} and re.fullmatch(r"-?\d{1,20}", value, re.ASCII):
        return int(value)
    if not _is_whole(value):
        raise ValueError
    return int(value)


def _tag(value: Any) -> bytes:
    if not isinstance(value, str) or _TAG.fullmatch(value) is None:
        raise ValueError
    return struct.pack("<HH", int(value[:4], 16), int(value[4:], 16))

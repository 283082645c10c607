"""The walk through a data set: one pass over its bytes, to DICOM JSON and the byte ranges of bulk data.

It stands on ``struct`` and reads no bulk data; nesting, the number of fragments and the memory of what is taken in are
bounded. Explicit and implicit VR, little and big endian (PS3.5 section 7 and annex A).
"""

import struct
from binascii import b2a_base64
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from libs.dicom import dictionary
from libs.dicom.elements import (
    DEEPEST,
    ITEM,
    ITEM_END,
    REPRESENTATIONS,
    SEQUENCE_END,
    SHORT_HEADER,
    UNDEFINED,
    ElementReader,
    Scope,
)
from libs.dicom.encapsulated import PixelElement, read_fragments
from libs.dicom.errors import InvalidDicom
from libs.dicom.text import character_set
from libs.dicom.values import BINARY, CONVERT, SWAP_WIDTH

DicomJson = dict[str, dict[str, Any]]

MOST_MEMORY: Final = 40 * 1024 * 1024
"""Bytes, as estimated, that the JSON model of one instance may take in memory (some 100 000 elements). A sequence of
the outermost data set that would go beyond is bulk data; anything else that would is refused."""
MOST_VALUE_MEMORY: Final = 28 * 1024 * 1024
"""Values over 256 bytes that would take the model beyond this are bulk data."""
LONGEST_INLINE_BINARY: Final = 256
LONGEST_TEXT: Final = 64 * 1024
LONGEST_NUMBERS: Final = 1024 * 1024
# What the pieces of the model take in memory, in bytes, a little more than CPython 3.11 to 3.13 were found to need.
_ELEMENT_COST: Final = 310
_EMPTY_COST: Final = 240
_NAME_COST: Final = 400
_TEXT_COST: Final = 60
_NUMBER_COST: Final = 36
_BULK_COST: Final = 320
_CHARACTER_COST: Final = 4

_CHARACTER_SET: Final = 0x00080005
_PIXEL_REPRESENTATION: Final = 0x00280103
_CHANGES_SCOPE: Final = frozenset({_CHARACTER_SET, _PIXEL_REPRESENTATION})
_LAST_UNWANTED: Final = 0x0002FFFF
"""Up to here are the command and file meta information groups."""
_LUT_DESCRIPTOR: Final = "00283002"
_PADDING: Final = 0xFFFCFFFC
PIXEL_TAGS: Final = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""Float, Double Float and plain Pixel Data; always bulk data."""
_IDENTITY: Final = frozenset({0x00080016, 0x00080018, 0x0020000D, 0x0020000E})
_LONGEST: Final = {
    **dict.fromkeys(CONVERT, LONGEST_TEXT),
    **dict.fromkeys(("DS", "IS", "US", "SS", "UL", "SL", "FL", "FD", "SV", "UV", "AT", "UI"), LONGEST_NUMBERS),
    **dict.fromkeys(BINARY, LONGEST_INLINE_BINARY),
}


_WIDTHS: Final = {"US": 2, "SS": 2, "UL": 4, "SL": 4, "FL": 4, "AT": 4, "FD": 8, "SV": 8, "UV": 8}
_COSTS: Final = {
    **dict.fromkeys(CONVERT, _TEXT_COST),
    **dict.fromkeys(_WIDTHS, _NUMBER_COST),
    "AT": _TEXT_COST,
    "DS": _NUMBER_COST,
    "IS": _NUMBER_COST,
    "PN": _NAME_COST,
}


class _OutOfMemory(InvalidDicom):
    """The model would take more than its share."""


@dataclass
class Walk(ElementReader):
    """One walk. Call ``run`` once, then read the attributes.

    Attributes:
        bulk: path → (offset, length).
        pixels: the pixel data element of the outermost data set.
    """

    bulk: dict[str, tuple[int, int]] = field(default_factory=dict)
    pixels: PixelElement | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._cost = 0
        self._exhausted = False
        self._left_out = False

    def run(self, start: int, end: int, *, explicit: bool) -> DicomJson:
        """The data set between two offsets as DICOM JSON.

        Raises:
            InvalidDicom: it is broken or out of bounds.
        """
        try:
            found = self._looks_explicit(start, end)
            if found is not None and found != explicit:
                self.warn("The data set is not in the value representation form that its transfer syntax names.")
                explicit = found
            dicom = self._data_set(start, end, Scope(explicit), delimited=False)[0]
        except struct.error as error:
            raise InvalidDicom("The data set ends in the middle of an element.") from error
        if self._left_out:
            named = set(_bulk_paths(dicom))
            self.bulk = {path: place for path, place in self.bulk.items() if path in named}
        return dicom

    def _looks_explicit(self, start: int, end: int) -> bool | None:
        if end - start < 8:
            return None
        return bytes(self.data[start + 4 : start + 6]) in REPRESENTATIONS

    def _data_set(self, position: int, end: int, scope: Scope, *, delimited: bool) -> tuple[DicomJson, int]:
        """One data set up to its delimiter, or to ``end``; returns it and the position after it."""
        elements: DicomJson = {}
        creators: dict[int, str] = {}
        ordered, previous = True, -1
        while position < end:
            tag, vr, length, start, implicit = self._header(position, end, scope)
            if vr in SHORT_HEADER and tag & 0xFFFF and tag > _LAST_UNWANTED and start + length <= end:
                # Nearly all elements of an explicit data set: no sequence, no pixels, nothing to be left out.
                position = start + length
                entry = self._plain(vr, start, length, scope, tag)
            elif tag >> 16 == 0xFFFE:
                position = self._stray_delimiter(tag, length, start)
                if tag == ITEM_END and delimited:
                    return self._finished(elements, ordered), position
                continue
            elif tag == 0 and scope.depth == 0 and self._only_zeros(position, end):
                self.warn("Zero bytes follow the data set.")
                break
            else:
                if vr is None or vr == dictionary.UNKNOWN:
                    vr = self._inferred(tag, vr, length, elements, creators, scope)
                entry, position = self._element(tag, vr, length, start, end, scope, implicit=implicit)
                if not self._wanted(tag, scope):
                    self._left_out = True
                    continue
            key = key_of(tag)
            if tag <= previous or (not ordered and key in elements):
                ordered = False
                self._repeated(tag, key, entry, elements)
            previous = tag
            elements[key] = entry
            if tag in _CHANGES_SCOPE:
                scope = self._changed_scope(tag, start, length, entry, scope)
            elif tag & 0x1FF00 == 0x10000 and "Value" in entry:
                creators[tag >> 8 | tag & 0xFF] = str(entry["Value"][0])
        if delimited:
            raise InvalidDicom("An item of undefined length is not closed.")
        return self._finished(elements, ordered), position

    def _spend(self, cost: int) -> None:
        self._cost += cost
        if self._cost > MOST_MEMORY:
            raise _OutOfMemory("There are more elements or values than one instance may have.")

    def _stray_delimiter(self, tag: int, length: int, start: int) -> int:
        if tag not in {ITEM_END, SEQUENCE_END}:
            raise InvalidDicom("An item stands outside of a sequence.")
        if length:
            self.warn("A delimiter has a length; it was ignored.")
        return start

    def _only_zeros(self, position: int, end: int) -> bool:
        return end - position <= LONGEST_NUMBERS and not bytes(self.data[position:end]).strip(b"\0")

    def _wanted(self, tag: int, scope: Scope) -> bool:
        """Group lengths and padding say nothing of the object; groups 0000 and 0002 have no place in it."""
        if scope.depth == 0 and tag >> 16 in {0x0000, 0x0002}:
            self.warn("Elements of the command or file meta information group in the data set were left out.")
            return False
        return tag & 0xFFFF != 0 and tag != _PADDING

    def _repeated(self, tag: int, key: str, entry: dict[str, Any], elements: DicomJson) -> None:
        self.warn("Elements are not in ascending order, or repeated; the last of a kind counts.")
        if key not in elements:
            return
        self._left_out = True
        if tag in _IDENTITY and elements[key] != entry:
            raise InvalidDicom("An identifying UID is there twice, with different values.")

    def _finished(self, elements: DicomJson, ordered: bool) -> DicomJson:
        return elements if ordered else dict(sorted(elements.items()))

    def _changed_scope(self, tag: int, start: int, length: int, entry: dict[str, Any], scope: Scope) -> Scope:
        charset, signed = scope.charset, scope.signed
        if tag == _CHARACTER_SET:
            charset = character_set(bytes(self.data[start : start + min(length, 1024)]))
            for fault in charset.faults:
                self.warn(fault)
        else:
            signed = entry.get("Value") == [1]
        return Scope(scope.explicit, charset, signed, scope.depth, scope.path)

    def _inferred(
        self, tag: int, vr: str | None, length: int, elements: DicomJson, creators: dict[int, str], scope: Scope
    ) -> str:
        """The representation of an element that carries none, or UN."""
        if tag >> 16 & 1:
            creator = creators.get(tag >> 8)
            found = dictionary.private_vr_of(tag, creator)
        else:
            found = dictionary.vr_of(tag)
        if len(found) != 2:
            descriptor = elements.get(_LUT_DESCRIPTOR, {}).get("Value") or [0]
            entries = descriptor[0] if isinstance(descriptor[0], int) else 0
            found = dictionary.chosen(found, tag, signed=scope.signed, lut_entries=entries)
        if length == UNDEFINED and found != "SQ" and tag not in PIXEL_TAGS:
            return "SQ"
        if vr == dictionary.UNKNOWN and found in {"OB", "OW"}:
            return vr
        return found

    def _element(
        self, tag: int, vr: str, length: int, start: int, end: int, scope: Scope, *, implicit: bool
    ) -> tuple[dict[str, Any], int]:
        """What DICOM JSON has for one element, and the position after it."""
        if vr == "SQ":
            # A sequence under UN is implicit VR whatever the rest is (PS3.5 section 6.2.2).
            path = f"{scope.path}{key_of(tag)}"
            inner = Scope(scope.explicit and not implicit, scope.charset, scope.signed, scope.depth + 1, path)
            self._spend(_ELEMENT_COST)
            if scope.depth == 0:
                return self._outermost_sequence(tag, start, length, end, inner)
            items, position = self._sequence(start, length, end, inner)
            return ({"vr": "SQ", "Value": items} if items else {"vr": "SQ"}), position
        if length == UNDEFINED:
            return self._encapsulated(tag, vr, start, end, scope)
        stop = start + length
        if stop > end:
            raise InvalidDicom(f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) is longer than what holds it.")
        if tag in PIXEL_TAGS:
            if scope.depth == 0:
                self.pixels = PixelElement(tag, start, length)
            if length:
                return self._as_bulk(vr, tag, start, length, scope), stop
        return self._plain(vr, start, length, scope, tag), stop

    def _plain(self, vr: str, start: int, length: int, scope: Scope, tag: int) -> dict[str, Any]:
        if length == 0:
            self._spend(_EMPTY_COST)
            return {"vr": vr}
        if length > LONGEST_INLINE_BINARY and (
            length > _LONGEST[vr] or self._cost + self._cost_of(vr, start, length) > MOST_VALUE_MEMORY
        ):
            return self._as_bulk(vr, tag, start, length, scope)
        value = bytes(self.data[start : start + length])
        if vr in BINARY:
            self._spend(_ELEMENT_COST + 2 * length)
            if not self.little and vr in SWAP_WIDTH:
                value = swapped(value, SWAP_WIDTH[vr])
            return {"vr": vr, "InlineBinary": b2a_base64(value, newline=False).decode()}
        values = CONVERT[vr](value, scope.charset, self.little, self.warn)
        cost = _ELEMENT_COST + _COSTS[vr] * len(values)
        if length > 32:
            cost += _CHARACTER_COST * length
        self._spend(cost)
        return {"vr": vr, "Value": values} if values else {"vr": vr}

    def _cost_of(self, vr: str, start: int, length: int) -> int:
        """The memory that a long value will take, before it is read."""
        if vr in BINARY:
            return 2 * length
        if vr in _WIDTHS:
            return length // _WIDTHS[vr] * _COSTS[vr]
        count = bytes(self.data[start : start + length]).count(b"\\") + 1
        return count * _COSTS[vr] + _CHARACTER_COST * length

    def _as_bulk(self, vr: str, tag: int, start: int, length: int, scope: Scope) -> dict[str, Any]:
        path = f"{scope.path}{key_of(tag)}"
        self._spend(_BULK_COST + len(path))
        self.bulk[path] = (start, length)
        return {"vr": vr, "BulkDataURI": path}

    def _outermost_sequence(
        self, tag: int, start: int, length: int, end: int, scope: Scope
    ) -> tuple[dict[str, Any], int]:
        """A sequence of the outermost data set; as bulk data when the model would become too large with it."""
        cost, bulk = self._cost, len(self.bulk)
        if not self._exhausted:
            try:
                items, position = self._sequence(start, length, end, scope)
                return ({"vr": "SQ", "Value": items} if items else {"vr": "SQ"}), position
            except _OutOfMemory:
                self._exhausted = True
                self._cost = cost
                while len(self.bulk) > bulk:
                    self.bulk.popitem()
        self.warn("A sequence has too many elements; it is kept as it is, and its content is not described.")
        position = self._skim(start, length, end, scope)
        # An undefined length ends with the eight bytes of the delimiter.
        stop = position if length != UNDEFINED else position - 8
        return self._as_bulk("SQ", tag, start, stop - start, Scope(scope.explicit)), position

    def _sequence(self, start: int, length: int, end: int, scope: Scope) -> tuple[list[DicomJson], int]:
        """The items of a sequence, and the position after it (PS3.5 section 7.5)."""
        if scope.depth > DEEPEST:
            raise InvalidDicom(f"Sequences are nested deeper than {DEEPEST} levels.")
        stop = end if length == UNDEFINED else start + length
        if stop > end:
            raise InvalidDicom("A sequence is longer than what holds it.")
        items: list[DicomJson] = []
        position = start
        while position < stop:
            group, element, item_length = self._implicit(self.data, position)
            tag = group << 16 | element
            position += 8
            if tag == SEQUENCE_END:
                if length == UNDEFINED:
                    return items, position
                continue
            if tag != ITEM:
                raise InvalidDicom("Something other than an item stands in a sequence.")
            self._spend(_EMPTY_COST)
            undefined = item_length == UNDEFINED
            item_end = stop if undefined else position + item_length
            if item_end > stop:
                raise InvalidDicom("An item is longer than its sequence.")
            inside = Scope(scope.explicit, scope.charset, scope.signed, scope.depth, f"{scope.path}/{len(items) + 1}/")
            item, position = self._data_set(position, item_end, inside, delimited=undefined)
            items.append(item)
        if length == UNDEFINED:
            raise InvalidDicom("A sequence of undefined length is not closed.")
        return items, position

    def _encapsulated(self, tag: int, vr: str, start: int, end: int, scope: Scope) -> tuple[dict[str, Any], int]:
        if vr not in BINARY:
            raise InvalidDicom(f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) may not have an undefined length.")
        found = read_fragments(self.data, start, end, self._implicit)
        if not found.closed:
            self.warn("Encapsulated Pixel Data is not closed by a delimiter.")
        if scope.depth == 0 and tag in PIXEL_TAGS:
            self.pixels = PixelElement(tag, start, found.stop - start, found.table, found.fragments)
        return self._as_bulk(vr, tag, start, found.stop - start, scope), found.after


@lru_cache(maxsize=8192)
def key_of(tag: int) -> str:
    """The tag as DICOM JSON has it; one and the same text for all elements of a tag, which saves memory."""
    return f"{tag:08X}"


def swapped(value: bytes, width: int) -> bytes:
    """The bytes with each word of ``width`` bytes turned round; bytes that make no whole word are left out."""
    out = bytearray(len(value) // width * width)
    for i in range(width):
        out[i::width] = value[width - 1 - i :: width][: len(value) // width]
    return bytes(out)


def _bulk_paths(dicom: DicomJson) -> Iterator[str]:
    """The paths of all bulk data that the model names."""
    for entry in dicom.values():
        if "BulkDataURI" in entry:
            yield entry["BulkDataURI"]
        elif entry["vr"] == "SQ":
            for item in entry.get("Value", ()):
                yield from _bulk_paths(item)

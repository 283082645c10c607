"""The walk through a data set: one pass over its bytes, to DICOM JSON and the byte ranges of bulk data.

It stands on ``struct`` and reads no bulk data; nesting, the number of elements and fragments and the size of what is
taken into memory are bounded. Explicit and implicit VR, little and big endian (PS3.5 section 7 and annex A).
"""

import struct
from binascii import b2a_base64
from dataclasses import dataclass, field
from mmap import mmap
from typing import Any, Final

from libs.dicom import dictionary
from libs.dicom.errors import InvalidDicom
from libs.dicom.text import CharacterSet, character_set
from libs.dicom.values import BINARY, CONVERT, SWAP_WIDTH

Buffer = bytes | memoryview | mmap
DicomJson = dict[str, dict[str, Any]]

DEEPEST: Final = 32
MOST_ELEMENTS: Final = 200_000
MOST_FRAGMENTS: Final = 262_144
MOST_WARNINGS: Final = 50
LONGEST_INLINE_BINARY: Final = 256
LONGEST_TEXT: Final = 64 * 1024
LONGEST_NUMBERS: Final = 1024 * 1024
LONGEST_TOTAL: Final = 32 * 1024 * 1024
"""Bytes of all values over 256 bytes that are taken into memory; further ones of that size are bulk data."""

_UNDEFINED: Final = 0xFFFFFFFF
_ITEM: Final = 0xFFFEE000
_ITEM_END: Final = 0xFFFEE00D
_SEQUENCE_END: Final = 0xFFFEE0DD
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
_LONG_HEADER: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
_SHORT_HEADER: Final = frozenset(CONVERT) - _LONG_HEADER
_REPRESENTATIONS: Final[dict[bytes, tuple[str, bool]]] = {
    **{vr.encode(): (vr, True) for vr in _LONG_HEADER},
    **{vr.encode(): (vr, False) for vr in _SHORT_HEADER},
}
_LONGEST: Final = {
    **dict.fromkeys(CONVERT, LONGEST_TEXT),
    **dict.fromkeys(("DS", "IS", "US", "SS", "UL", "SL", "FL", "FD", "SV", "UV", "AT", "UI"), LONGEST_NUMBERS),
    **dict.fromkeys(BINARY, LONGEST_INLINE_BINARY),
}
_DEFAULT_CHARACTER_SET: Final = CharacterSet([])


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data element of the outermost data set is.

    Attributes:
        tag: which of the three it is.
        offset: of its value.
        length: of its value; of encapsulated data, all items with their headers.
        table: (offset, length) of the Basic Offset Table's content; none when not encapsulated.
        fragments: (offset, length) of each fragment's content; none when not encapsulated.
    """

    tag: int
    offset: int
    length: int
    table: tuple[int, int] | None = None
    fragments: list[tuple[int, int]] | None = None


@dataclass(frozen=True, slots=True)
class Scope:
    """What holds inside one data set, and for those nested in it unless they say otherwise."""

    explicit: bool
    charset: CharacterSet = _DEFAULT_CHARACTER_SET
    signed: bool = False
    depth: int = 0
    path: str = ""


@dataclass
class Walk:
    """One walk. Call ``run`` once, then read the attributes.

    Attributes:
        data: the file, or the inflated file.
        little: whether numbers are little endian.
        bulk: path → (offset, length).
        warnings: each once, in order.
        pixels: the pixel data element of the outermost data set.
    """

    data: Buffer
    little: bool = True
    bulk: dict[str, tuple[int, int]] = field(default_factory=dict)
    warnings: dict[str, None] = field(default_factory=dict)
    pixels: PixelElement | None = None

    def __post_init__(self) -> None:
        order = "<" if self.little else ">"
        self._explicit = struct.Struct(f"{order}HH2sH").unpack_from
        self._implicit = struct.Struct(f"{order}HHI").unpack_from
        self._long = struct.Struct(f"{order}I").unpack_from
        self._elements = 0
        self._fragments = 0
        self._taken = 0

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
            return self._data_set(start, end, Scope(explicit), delimited=False)[0]
        except struct.error as error:
            raise InvalidDicom("The data set ends in the middle of an element.") from error

    def warn(self, text: str) -> None:
        """Notes what was lived with, each text once."""
        if len(self.warnings) < MOST_WARNINGS:
            self.warnings[text] = None

    def _looks_explicit(self, start: int, end: int) -> bool | None:
        if end - start < 8:
            return None
        return bytes(self.data[start + 4 : start + 6]) in _REPRESENTATIONS

    def _data_set(self, position: int, end: int, scope: Scope, *, delimited: bool) -> tuple[DicomJson, int]:
        """One data set up to its delimiter, or to ``end``; returns it and the position after it."""
        elements: DicomJson = {}
        creators: dict[int, str] = {}
        ordered, previous = True, -1
        while position < end:
            tag, vr, length, start, implicit = self._header(position, end, scope)
            if vr in _SHORT_HEADER and tag & 0xFFFF and tag > _LAST_UNWANTED and start + length <= end:
                # Nearly all elements of an explicit data set: no sequence, no pixels, nothing to be left out.
                self._count()
                position = start + length
                entry = self._plain(vr, start, length, scope, tag)
            elif tag >> 16 == 0xFFFE:
                position = self._stray_delimiter(tag, length, start)
                if tag == _ITEM_END and delimited:
                    return self._finished(elements, ordered), position
                continue
            elif tag == 0 and scope.depth == 0 and self._only_zeros(position, end):
                self.warn("Zero bytes follow the data set.")
                break
            else:
                self._count()
                if vr is None or vr == dictionary.UNKNOWN:
                    vr = self._inferred(tag, vr, length, elements, creators, scope)
                entry, position = self._element(tag, vr, length, start, end, scope, implicit=implicit)
                if not self._wanted(tag, scope):
                    continue
            key = f"{tag:08X}"
            if tag <= previous:
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

    def _count(self) -> None:
        self._elements += 1
        if self._elements > MOST_ELEMENTS:
            raise InvalidDicom(f"There are more than {MOST_ELEMENTS} elements.")

    def _header(self, position: int, end: int, scope: Scope) -> tuple[int, str | None, int, int, bool]:
        """Tag, representation (none when not given), length, offset of the value, and whether it is implicit VR."""
        if end - position < 8:
            raise InvalidDicom("The data set ends in the middle of an element.")
        data = self.data
        if not scope.explicit:
            group, element, length = self._implicit(data, position)
            return group << 16 | element, None, length, position + 8, True
        group, element, code, short = self._explicit(data, position)
        tag = group << 16 | element
        known = _REPRESENTATIONS.get(code)
        if known is not None:
            vr, long = known
            if not long:
                return tag, vr, short, position + 8, False
            if end - position < 12:
                raise InvalidDicom("The data set ends in the middle of an element.")
            return tag, vr, self._long(data, position + 8)[0], position + 12, vr == dictionary.UNKNOWN
        return self._odd_header(tag, code, short, position, end)

    def _odd_header(
        self, tag: int, code: bytes, short: int, position: int, end: int
    ) -> tuple[int, str | None, int, int, bool]:
        """An item or delimiter, a representation of a future edition, or implicit VR amid explicit."""
        if tag >> 16 == 0xFFFE:
            return tag, None, self._long(self.data, position + 4)[0], position + 8, True
        if code.isalpha() and code.isupper():
            self.warn("A value representation is not known; its values were taken as unknown (UN).")
            if short == 0 and end - position >= 12:
                length = self._long(self.data, position + 8)[0]
                if length <= end - position - 12:
                    return tag, dictionary.UNKNOWN, length, position + 12, False
            return tag, dictionary.UNKNOWN, short, position + 8, False
        if tag:
            self.warn("An element in explicit VR has no value representation; it was read as implicit VR.")
        return tag, None, self._long(self.data, position + 4)[0], position + 8, True

    def _stray_delimiter(self, tag: int, length: int, start: int) -> int:
        if tag not in {_ITEM_END, _SEQUENCE_END}:
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
        if tag in _IDENTITY and key in elements and elements[key] != entry:
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
        if length == _UNDEFINED and found != "SQ" and tag not in PIXEL_TAGS:
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
            path = f"{scope.path}{tag:08X}"
            inner = Scope(scope.explicit and not implicit, scope.charset, scope.signed, scope.depth + 1, path)
            items, position = self._sequence(start, length, end, inner)
            return ({"vr": "SQ", "Value": items} if items else {"vr": "SQ"}), position
        if length == _UNDEFINED:
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
            return {"vr": vr}
        if length > LONGEST_INLINE_BINARY:
            if length > _LONGEST[vr] or self._taken + length > LONGEST_TOTAL:
                return self._as_bulk(vr, tag, start, length, scope)
            self._taken += length
        value = bytes(self.data[start : start + length])
        if vr in BINARY:
            if not self.little and vr in SWAP_WIDTH:
                value = swapped(value, SWAP_WIDTH[vr])
            return {"vr": vr, "InlineBinary": b2a_base64(value, newline=False).decode()}
        values = CONVERT[vr](value, scope.charset, self.little, self.warn)
        return {"vr": vr, "Value": values} if values else {"vr": vr}

    def _as_bulk(self, vr: str, tag: int, start: int, length: int, scope: Scope) -> dict[str, Any]:
        path = f"{scope.path}{tag:08X}"
        self.bulk[path] = (start, length)
        return {"vr": vr, "BulkDataURI": path}

    def _sequence(self, start: int, length: int, end: int, scope: Scope) -> tuple[list[DicomJson], int]:
        """The items of a sequence, and the position after it (PS3.5 section 7.5)."""
        if scope.depth > DEEPEST:
            raise InvalidDicom(f"Sequences are nested deeper than {DEEPEST} levels.")
        stop = end if length == _UNDEFINED else start + length
        if stop > end:
            raise InvalidDicom("A sequence is longer than what holds it.")
        items: list[DicomJson] = []
        position = start
        while position < stop:
            group, element, item_length = self._implicit(self.data, position)
            tag = group << 16 | element
            position += 8
            if tag == _SEQUENCE_END:
                if length == _UNDEFINED:
                    return items, position
                continue
            if tag != _ITEM:
                raise InvalidDicom("Something other than an item stands in a sequence.")
            self._count()
            undefined = item_length == _UNDEFINED
            item_end = stop if undefined else position + item_length
            if item_end > stop:
                raise InvalidDicom("An item is longer than its sequence.")
            inside = Scope(scope.explicit, scope.charset, scope.signed, scope.depth, f"{scope.path}/{len(items) + 1}/")
            item, position = self._data_set(position, item_end, inside, delimited=undefined)
            items.append(item)
        if length == _UNDEFINED:
            raise InvalidDicom("A sequence of undefined length is not closed.")
        return items, position

    def _encapsulated(self, tag: int, vr: str, start: int, end: int, scope: Scope) -> tuple[dict[str, Any], int]:
        """Fragments (PS3.5 section A.4): only their headers are read."""
        if vr not in BINARY:
            raise InvalidDicom(f"Element ({tag >> 16:04X},{tag & 0xFFFF:04X}) may not have an undefined length.")
        fragments: list[tuple[int, int]] = []
        position = start
        while True:
            if position == end:
                self.warn("Encapsulated Pixel Data is not closed by a delimiter.")
                stop = after = position
                break
            if end - position < 8:
                raise InvalidDicom("Encapsulated Pixel Data ends in the middle of a fragment.")
            group, element, length = self._implicit(self.data, position)
            item = group << 16 | element
            if item == _SEQUENCE_END:
                stop, after = position, position + 8
                break
            if item != _ITEM or length > end - position - 8:
                raise InvalidDicom("A fragment of Pixel Data is broken or longer than the file.")
            self._fragments += 1
            if self._fragments > MOST_FRAGMENTS:
                raise InvalidDicom(f"There are more than {MOST_FRAGMENTS} fragments.")
            fragments.append((position + 8, length))
            position += 8 + length
        if scope.depth == 0 and tag in PIXEL_TAGS:
            table = fragments[0] if fragments else (start, 0)
            self.pixels = PixelElement(tag, start, stop - start, table, fragments[1:])
        return self._as_bulk(vr, tag, start, stop - start, scope), after


def swapped(value: bytes, width: int) -> bytes:
    """The bytes with each word of ``width`` bytes turned round; bytes that make no whole word are left out."""
    out = bytearray(len(value) // width * width)
    for i in range(width):
        out[i::width] = value[width - 1 - i :: width][: len(value) // width]
    return bytes(out)

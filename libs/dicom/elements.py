"""Elements and their headers: what stands before a value, and where a sequence ends (PS3.5 section 7)."""

import struct
from dataclasses import dataclass, field
from typing import Final

from libs.dicom import dictionary
from libs.dicom.encapsulated import Buffer
from libs.dicom.errors import InvalidDicom
from libs.dicom.text import CharacterSet
from libs.dicom.values import CONVERT

DEEPEST: Final = 32
MOST_SKIMMED: Final = 1_000_000
"""Elements and items of undefined length that are gone through to find the end of a sequence that is bulk data."""
MOST_WARNINGS: Final = 50

UNDEFINED: Final = 0xFFFFFFFF
ITEM: Final = 0xFFFEE000
ITEM_END: Final = 0xFFFEE00D
SEQUENCE_END: Final = 0xFFFEE0DD
_LONG_HEADER: Final = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "SQ", "SV", "UC", "UN", "UR", "UT", "UV"})
SHORT_HEADER: Final = frozenset(CONVERT) - _LONG_HEADER
REPRESENTATIONS: Final[dict[bytes, tuple[str, bool]]] = {
    **{vr.encode(): (vr, True) for vr in _LONG_HEADER},
    **{vr.encode(): (vr, False) for vr in SHORT_HEADER},
}
_DEFAULT_CHARACTER_SET: Final = CharacterSet([])


@dataclass(frozen=True, slots=True)
class Scope:
    """What holds inside one data set, and for those nested in it unless they say otherwise."""

    explicit: bool
    charset: CharacterSet = _DEFAULT_CHARACTER_SET
    signed: bool = False
    depth: int = 0
    path: str = ""


@dataclass
class ElementReader:
    """Reads element headers.

    Attributes:
        data: the file, or the inflated file.
        little: whether numbers are little endian.
        warnings: each once, in order.
    """

    data: Buffer
    little: bool = True
    warnings: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        order = "<" if self.little else ">"
        self._explicit = struct.Struct(f"{order}HH2sH").unpack_from
        self._implicit = struct.Struct(f"{order}HHI").unpack_from
        self._long = struct.Struct(f"{order}I").unpack_from
        self._skimmed = 0

    def warn(self, text: str) -> None:
        """Notes what was lived with, each text once."""
        if len(self.warnings) < MOST_WARNINGS:
            self.warnings[text] = None

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
        known = REPRESENTATIONS.get(code)
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

    def _skim(self, start: int, length: int, end: int, scope: Scope) -> int:
        """Where a sequence ends whose content is not looked at."""
        if scope.depth > DEEPEST:
            raise InvalidDicom(f"Sequences are nested deeper than {DEEPEST} levels.")
        if length != UNDEFINED:
            if length > end - start:
                raise InvalidDicom("A sequence is longer than what holds it.")
            return start + length
        position, depth = start, 0  # depth 0: between items; 1: between the elements of an item of undefined length
        while position < end:
            self._skimmed += 1
            if self._skimmed > MOST_SKIMMED:
                raise InvalidDicom("There are too many elements.")
            tag, _, size, value, implicit = self._header(position, end, scope)
            position = value
            if tag == SEQUENCE_END and not depth:
                return position
            if tag == ITEM_END and depth:
                depth = 0
            elif tag == ITEM and not depth and size == UNDEFINED:
                depth = 1
            elif (tag == ITEM) == bool(depth) or tag in {ITEM_END, SEQUENCE_END}:
                raise InvalidDicom("Something other than an item stands in a sequence.")
            elif size == UNDEFINED:
                inner = Scope(scope.explicit and not implicit, depth=scope.depth + 1)
                position = self._skim(position, size, end, inner)
            elif size > end - position:
                raise InvalidDicom("An element or item is longer than what holds it.")
            else:
                position += size
        raise InvalidDicom("A sequence of undefined length is not closed.")

"""Encapsulated Pixel Data: where its fragments are (PS3.5 section A.4). Only their headers are read."""

import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass
from mmap import mmap
from typing import Final

from libs.dicom.errors import InvalidDicom

Buffer = bytes | memoryview | mmap
MOST_FRAGMENTS: Final = 262_144
_ITEM: Final = 0xFFFEE000
_SEQUENCE_END: Final = 0xFFFEE0DD


@dataclass(frozen=True)
class PixelElement:
    """Where the pixel data element of the outermost data set is.

    Attributes:
        tag: which of the three it is.
        offset: of its value.
        length: of its value; of encapsulated data, all items with their headers.
        table: (offset, length) of the Basic Offset Table's content; none when not encapsulated.
        fragments: where each fragment's content is; none when not encapsulated.
    """

    tag: int
    offset: int
    length: int
    table: tuple[int, int] | None = None
    fragments: "Fragments | None" = None


class Fragments:
    """Offset and length of many fragments, 16 bytes each: a slide of a microscope has a hundred thousand."""

    __slots__ = ("lengths", "offsets")

    def __init__(self) -> None:
        self.offsets = array("Q")
        self.lengths = array("Q")

    def __len__(self) -> int:
        return len(self.offsets)

    def between(self, first: int, last: int) -> list[list[int]]:
        """``[offset, length]`` of the fragments from ``first`` up to, not including, ``last``."""
        return [[self.offsets[i], self.lengths[i]] for i in range(first, last)]

    def all(self) -> list[list[int]]:
        """``[offset, length]`` of each."""
        return self.between(0, len(self))

    def add(self, offset: int, length: int) -> None:
        """One more."""
        self.offsets.append(offset)
        self.lengths.append(length)


@dataclass(frozen=True)
class Encapsulated:
    """What was found between the element's header and its delimiter.

    Attributes:
        stop: where the items end.
        after: where the next element begins.
        table: (offset, length) of the content of the first item, the Basic Offset Table.
        fragments: the other items.
        closed: whether a delimiter ended them.
    """

    stop: int
    after: int
    table: tuple[int, int]
    fragments: Fragments
    closed: bool


def read_fragments(
    data: Buffer, start: int, end: int, header: Callable[[Buffer, int], tuple[int, int, int]]
) -> Encapsulated:
    """Reads the item headers.

    Arguments:
        data: the file.
        start: where the first item begins.
        end: of what holds the element.
        header: unpacks group, element and length in the byte order of the data set.

    Raises:
        InvalidDicom: an item is broken, or there are too many.
    """
    fragments = Fragments()
    table: tuple[int, int] | None = None
    position = start
    while position != end:
        if end - position < 8:
            raise InvalidDicom("Encapsulated Pixel Data ends in the middle of a fragment.")
        group, element, length = header(data, position)
        item = group << 16 | element
        position += 8
        if item == _SEQUENCE_END:
            return Encapsulated(position - 8, position, table or (start, 0), fragments, closed=True)
        if item != _ITEM or length > end - position:
            raise InvalidDicom("A fragment of Pixel Data is broken or longer than the file.")
        if table is None:
            table = position, length
        elif len(fragments) == MOST_FRAGMENTS:
            raise InvalidDicom(f"There are more than {MOST_FRAGMENTS} fragments.")
        else:
            fragments.add(position, length)
        position += length
    return Encapsulated(position, position, table or (start, 0), fragments, closed=False)


def offsets_of(data: Buffer, place: tuple[int, int], width: int, count: int, *, little: bool) -> tuple[int, ...]:
    """The numbers of an offset table; none when it is not as long as it must be, whatever length it declares.

    Arguments:
        data: the file.
        place: (offset, length) of the table.
        width: bytes of one number, 4 or 8.
        count: how many frames there are.
        little: whether the numbers are little endian.
    """
    if place[1] != width * count:
        return ()
    return struct.unpack_from(f"{'<' if little else '>'}{count}{'I' if width == 4 else 'Q'}", data, place[0])

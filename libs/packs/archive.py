"""The ZIP form of a pack: stored entries, ZIP64, fixed times (APPNOTE.TXT 6.3.10, sections 4.3 to 4.5).

Every local header has its ZIP64 field and known sizes, so that a pack is written in one pass with two seeks an entry,
and its bytes depend on its content alone.
"""

import struct
from dataclasses import dataclass
from typing import Final

# 1980-01-01 00:00, the first moment that ZIP knows: a pack says in its index when it was stored.
_TIME: Final = 0
_DATE: Final = 0x21
_VERSION: Final = 45
_MADE_BY: Final = 3 << 8 | _VERSION
_FILE_MODE: Final = 0o100444 << 16
_NAMES_ARE_UTF8: Final = 0x800
_EVERYTHING: Final = 0xFFFFFFFF

_LOCAL: Final = struct.Struct("<IHHHHHIIIHH")
_CENTRAL: Final = struct.Struct("<IHHHHHHIIIHHHHHII")
_END64: Final = struct.Struct("<IQHHIIQQQQ")
_LOCATOR: Final = struct.Struct("<IIQI")
_END: Final = struct.Struct("<IHHHHIIH")
_LOCAL_ZIP64: Final = struct.Struct("<HHQQ")
_CENTRAL_ZIP64: Final = struct.Struct("<HHQQQ")
LOCAL_SIGNATURE: Final = 0x04034B50
CENTRAL_SIGNATURE: Final = 0x02014B50
END64_SIGNATURE: Final = 0x06064B50
LOCATOR_SIGNATURE: Final = 0x07064B50
END_SIGNATURE: Final = 0x06054B50
ENDING_LENGTH: Final = _END64.size + _LOCATOR.size + _END.size
"""Bytes at the end of a pack after its central directory."""


class MalformedArchive(ValueError):
    """The bytes are not an archive as this module writes it."""


@dataclass(frozen=True)
class Entry:
    """One file in the archive.

    Attributes:
        name: its name.
        header: offset of its local header.
        offset: of its content.
        length: of its content.
        crc: CRC-32 of its content.
    """

    name: str
    header: int
    offset: int
    length: int
    crc: int


@dataclass(frozen=True)
class Ending:
    """What the end of the archive says: entries, and offset and length of the central directory."""

    entries: int
    directory: int
    directory_length: int


def local_header_length(name: str) -> int:
    """Bytes of the local header of an entry."""
    return _LOCAL.size + len(name.encode()) + _LOCAL_ZIP64.size


def local_header(name: str, length: int, crc: int) -> bytes:
    """The header before an entry's content (section 4.3.7)."""
    raw = name.encode()
    fixed = _LOCAL.pack(
        LOCAL_SIGNATURE,
        _VERSION,
        _NAMES_ARE_UTF8,
        0,
        _TIME,
        _DATE,
        crc,
        _EVERYTHING,
        _EVERYTHING,
        len(raw),
        _LOCAL_ZIP64.size,
    )
    return fixed + raw + _LOCAL_ZIP64.pack(1, 16, length, length)


def central_header(entry: Entry) -> bytes:
    """The entry in the central directory (section 4.3.12)."""
    raw = entry.name.encode()
    fixed = _CENTRAL.pack(
        CENTRAL_SIGNATURE,
        _MADE_BY,
        _VERSION,
        _NAMES_ARE_UTF8,
        0,
        _TIME,
        _DATE,
        entry.crc,
        _EVERYTHING,
        _EVERYTHING,
        len(raw),
        _CENTRAL_ZIP64.size,
        0,
        0,
        0,
        _FILE_MODE,
        _EVERYTHING,
    )
    return fixed + raw + _CENTRAL_ZIP64.pack(1, 24, entry.length, entry.length, entry.header)


def ending(entries: int, directory: int, directory_length: int) -> bytes:
    """What follows the central directory (sections 4.3.14 to 4.3.16)."""
    few = min(entries, 0xFFFF)
    return (
        _END64.pack(
            END64_SIGNATURE, _END64.size - 12, _MADE_BY, _VERSION, 0, 0, entries, entries, directory_length, directory
        )
        + _LOCATOR.pack(LOCATOR_SIGNATURE, 0, directory + directory_length, 1)
        + _END.pack(END_SIGNATURE, 0, 0, few, few, _EVERYTHING, _EVERYTHING, 0)
    )


def read_ending(tail: bytes, size: int) -> Ending:
    """The end of the archive, from its last bytes.

    Raises:
        MalformedArchive: it is not as ``ending`` writes it, or points outside of the archive.
    """
    if len(tail) < ENDING_LENGTH or size < ENDING_LENGTH:
        raise MalformedArchive("The archive is too short.")
    start = len(tail) - ENDING_LENGTH
    signature, _, _, _, _, _, here, entries, length, directory = _END64.unpack_from(tail, start)
    locator = _LOCATOR.unpack_from(tail, start + _END64.size)
    (end,) = struct.unpack_from("<I", tail, start + _END64.size + _LOCATOR.size)
    if (signature, locator[0], end) != (END64_SIGNATURE, LOCATOR_SIGNATURE, END_SIGNATURE):
        raise MalformedArchive("The archive has no ending.")
    if here != entries or directory + length != size - ENDING_LENGTH or locator[2] != size - ENDING_LENGTH:
        raise MalformedArchive("The archive's ending does not fit its size.")
    return Ending(entries, directory, length)


def read_directory(directory: bytes, at: int, entries: int) -> list[Entry]:
    """The entries of the central directory.

    Arguments:
        directory: its bytes.
        at: its offset in the archive, which no entry may reach.
        entries: how many there must be.

    Raises:
        MalformedArchive: an entry is broken or points outside.
    """
    found: list[Entry] = []
    position = 0
    while position < len(directory):
        entry, position = _central_entry(directory, position)
        if entry.offset + entry.length > at:
            raise MalformedArchive("An entry of the archive reaches into its directory.")
        found.append(entry)
    if len(found) != entries:
        raise MalformedArchive("The archive's directory has another number of entries than its ending says.")
    return found


def _central_entry(directory: bytes, position: int) -> tuple[Entry, int]:
    try:
        signature, _, _, _, method, _, _, crc, _, _, name_length, extra_length, comment, *_ = _CENTRAL.unpack_from(
            directory, position
        )
        start = position + _CENTRAL.size
        name = directory[start : start + name_length].decode("ascii")
        kind, _, length, packed, header = _CENTRAL_ZIP64.unpack_from(directory, start + name_length)
    except (struct.error, UnicodeDecodeError) as error:
        raise MalformedArchive("The archive's directory is broken.") from error
    if (signature, method, extra_length, comment, kind) != (CENTRAL_SIGNATURE, 0, _CENTRAL_ZIP64.size, 0, 1):
        raise MalformedArchive("The archive's directory is not that of a pack.")
    if length != packed:
        raise MalformedArchive("An entry of the archive is compressed.")
    entry = Entry(name, header, header + local_header_length(name), length, crc)
    return entry, start + name_length + extra_length

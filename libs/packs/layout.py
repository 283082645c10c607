"""Laying a pack out without writing it: what is sent to the object store piece by piece from where it lies."""

import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from libs.dicom.header import Header
from libs.packs.archive import Entry, central_header, ending, local_header
from libs.packs.checksum import crc32_combined
from libs.packs.index import INDEX_NAME, InvalidPack, PackIndex, Rule
from libs.packs.writer import PackInfo, PackInput, checked, packed_instance


@dataclass(frozen=True)
class MeasuredInput:
    """One instance whose file was measured when it came in.

    Attributes:
        header: as ``read_header`` gave it.
        source: its Part 10 file.
        length: bytes of the file.
        sha256: of the file, in hexadecimal.
        crc32: of the file.
    """

    header: Header
    source: Path
    length: int
    sha256: str
    crc32: int


@dataclass(frozen=True)
class PackLayout:
    """A pack that is not written anywhere yet.

    Attributes:
        pieces: what it consists of, in order: bytes, and files of which all is meant.
        crc32: of all of it; whoever stores the pieces has it checked, since the files are not read here.
        info: what ``write_pack`` would say of it.
    """

    pieces: tuple[bytes | Path, ...]
    crc32: int
    info: PackInfo


def lay_out_pack(
    instances: Iterable[MeasuredInput],
    *,
    study: str,
    series: str,
    stored: datetime,
    source: str,
    rule: Rule = "keep-first",
) -> PackLayout:
    """The same pack as ``write_pack`` writes, from what is known of its files.

    Arguments:
        instances: in the order in which they shall lie.
        study: Study Instance UID of all of them.
        series: Series Instance UID of all of them.
        stored: the time for the index, with a time zone.
        source: who sent them, for the index.
        rule: what holds where their UIDs are taken by other bytes, for the index.

    Raises:
        InvalidPack: no instance, a SOP Instance UID twice, or another study or series.
    """
    if stored.tzinfo is None:
        raise InvalidPack("The time of a pack needs a time zone.")
    archive = _Archive()
    packed = []
    measured = list(instances)
    inputs = (PackInput(item.header, item.source, item.sha256) for item in measured)
    for item, known in zip(measured, checked(inputs, study, series), strict=True):
        name = f"{known.header.sop_instance_uid}.dcm"
        entry = archive.add(name, item.source, item.length, item.crc32)
        packed.append(packed_instance(known.header, entry, known.sha256.lower()))
    if not packed:
        raise InvalidPack("A pack needs at least one instance.")
    index = PackIndex(study, series, stored, source, packed, rule)
    content = index.to_bytes()
    entry = archive.add(INDEX_NAME, content, len(content), zlib.crc32(content))
    archive.finish()
    return PackLayout(tuple(archive.pieces), archive.crc32, PackInfo(archive.size, entry.offset, entry.length, index))


class _Archive:
    """The pieces of the archive, one after another, and the CRC-32 of all that is there."""

    def __init__(self) -> None:
        self.pieces: list[bytes | Path] = []
        self.size = 0
        self.crc32 = 0
        self._entries: list[Entry] = []

    def add(self, name: str, content: bytes | Path, length: int, crc32: int) -> Entry:
        start = self.size
        self._bytes(local_header(name, length, crc32))
        entry = Entry(name, start, self.size, length, crc32)
        self._entries.append(entry)
        self._append(content, length, crc32)
        return entry

    def finish(self) -> None:
        directory = b"".join(central_header(entry) for entry in self._entries)
        self._bytes(directory + ending(len(self._entries), self.size, len(directory)))

    def _bytes(self, data: bytes) -> None:
        self._append(data, len(data), zlib.crc32(data))

    def _append(self, piece: bytes | Path, length: int, crc32: int) -> None:
        self.pieces.append(piece)
        self.size += length
        self.crc32 = crc32_combined(self.crc32, crc32, length)

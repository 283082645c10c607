"""Writing a pack: streamed from files, ZIP64, entries stored, the same input gives the same bytes."""

import hashlib
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from libs.dicom.header import Header
from libs.dicom.identifiers import require_uid
from libs.packs.archive import Entry, central_header, ending, local_header, local_header_length
from libs.packs.index import INDEX_NAME, MOST_INSTANCES, InvalidPack, PackedInstance, PackIndex, Rule

_STEP: Final = 1024 * 1024


@dataclass(frozen=True)
class PackInput:
    """One instance to be packed.

    Attributes:
        header: as ``read_header`` gave it.
        source: its Part 10 file, on disk or in memory.
        sha256: of that file, in hexadecimal; checked while it is copied.
    """

    header: Header
    source: Path | bytes
    sha256: str


@dataclass(frozen=True)
class PackInfo:
    """What the event about a stored pack says.

    Attributes:
        size: bytes of the pack.
        index_offset: bytes from its start to the content of its index entry.
        index_length: bytes of that content, compressed.
        index: what it says.
    """

    size: int
    index_offset: int
    index_length: int
    index: PackIndex


def pack_key(study: str, series: str, contents: Iterable[tuple[str, str]]) -> str:
    """The object key of a pack: a retry of the same batch has the same key.

    Arguments:
        study: Study Instance UID.
        series: Series Instance UID.
        contents: SOP Instance UID and SHA-256 (hexadecimal) of each instance, in any order.

    Raises:
        InvalidUid: the study or series is not a unique identifier; it becomes a part of the key.
    """
    require_uid(study, "Study Instance UID")
    require_uid(series, "Series Instance UID")
    lines = "\n".join(sorted(f"{uid} {sha256.lower()}" for uid, sha256 in contents))
    return f"packs/{study}/{series}/{hashlib.sha256(lines.encode()).hexdigest()[:32]}.zip"


def write_pack(
    target: Path | BinaryIO,
    instances: Iterable[PackInput],
    *,
    study: str,
    series: str,
    stored: datetime,
    source: str,
    rule: Rule = "keep-first",
) -> PackInfo:
    """Writes a pack. Files are copied in pieces of 1 MiB; only their headers are in memory.

    Arguments:
        target: a path, created or replaced; or a seekable file, written from its beginning. Neither is synchronised to
            disk.
        instances: in the order in which they shall lie.
        study: Study Instance UID of all of them.
        series: Series Instance UID of all of them.
        stored: the time for the index, with a time zone.
        source: who sent them, for the index.
        rule: what holds where their UIDs are taken by other bytes, for the index.

    Raises:
        InvalidPack: no instance, a SOP Instance UID twice, another study or series, or a file whose bytes do not have
            its SHA-256.
        OSError: a file can't be read or the target not be written.
    """
    if isinstance(target, Path):
        with target.open("w+b") as file:
            return write_pack(file, instances, study=study, series=series, stored=stored, source=source, rule=rule)
    if stored.tzinfo is None:
        raise InvalidPack("The time of a pack needs a time zone.")
    writer = _Writer(target)
    packed = [writer.add(item) for item in checked(instances, study, series)]
    if not packed:
        raise InvalidPack("A pack needs at least one instance.")
    index = PackIndex(study, series, stored, source, packed, rule)
    content = index.to_bytes()
    entry, _ = writer.entry(INDEX_NAME, content)
    return PackInfo(writer.finish(), entry.offset, entry.length, index)


def packed_instance(header: Header, entry: Entry, sha256: str) -> PackedInstance:
    """What the index says of one instance."""
    return PackedInstance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax=header.transfer_syntax,
        offset=entry.offset,
        length=entry.length,
        sha256=sha256,
        frames=header.frames,
        bulk=header.bulk,
        dicom=header.dicom,
        warnings=header.warnings,
    )


def checked(instances: Iterable[PackInput], study: str, series: str) -> Iterator[PackInput]:
    """The instances, each looked at: whether it belongs into the pack, and is there once.

    Raises:
        InvalidPack: it is not as it must be.
    """
    seen: set[str] = set()
    for item in instances:
        if (item.header.study_uid, item.header.series_uid) != (study, series):
            raise InvalidPack("An instance belongs to another study or series than its pack.")
        if item.header.sop_instance_uid in seen:
            raise InvalidPack("A SOP Instance UID is there twice; a pack holds each once.")
        if len(seen) >= MOST_INSTANCES:
            raise InvalidPack(f"A pack holds at most {MOST_INSTANCES} instances.")
        seen.add(item.header.sop_instance_uid)
        yield item


class _Writer:
    """Appends entries to the archive; the header of each is written after its content."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._position = 0
        self._entries: list[Entry] = []

    def add(self, item: PackInput) -> PackedInstance:
        header = item.header
        entry, sha256 = self.entry(f"{header.sop_instance_uid}.dcm", item.source)
        if sha256 != item.sha256.lower():
            raise InvalidPack("The bytes of an instance do not have the SHA-256 that they came with.")
        return packed_instance(header, entry, sha256)

    def entry(self, name: str, source: Path | bytes) -> tuple[Entry, str]:
        start = self._position
        offset = start + local_header_length(name)
        if isinstance(source, bytes):
            length, crc, sha256 = self._copy(BytesIO(source), offset)
        else:
            with source.open("rb") as file:
                length, crc, sha256 = self._copy(file, offset)
        self._file.seek(start)
        self._file.write(local_header(name, length, crc))
        self._position = offset + length
        entry = Entry(name, start, offset, length, crc)
        self._entries.append(entry)
        return entry, sha256

    def _copy(self, source: BinaryIO, offset: int) -> tuple[int, int, str]:
        self._file.seek(offset)
        length, crc, digest = 0, 0, hashlib.sha256()
        while piece := source.read(_STEP):
            digest.update(piece)
            crc = zlib.crc32(piece, crc)
            self._file.write(piece)
            length += len(piece)
        return length, crc, digest.hexdigest()

    def finish(self) -> int:
        directory = b"".join(central_header(entry) for entry in self._entries)
        self._file.seek(self._position)
        self._file.write(directory)
        self._file.write(ending(len(self._entries), self._position, len(directory)))
        self._file.truncate()
        self._file.flush()
        return self._file.tell()

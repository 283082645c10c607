"""Segments: files of the spool that are written over in place, so that a sync waits for the data and nothing else.

A file system that gives a file new blocks writes its own journal before a sync returns; over blocks that are there and
written it does not. A segment is written in full once, in advance, then used again and again. It holds records::

    header (1024 bytes) | content (a Part 10 file) | padding to 4096 bytes

one after the other. The header says what the record is, with a digest of the content and one of itself, and names the
segment's generation, a random number that changes with each use: what an earlier use left never looks like a record.
Header and content are made durable by one sync; what was torn by a loss of power fails its digests and does not count.
"""

import hashlib
import os
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson

from libs.crash import crash_point

ALIGNMENT: Final = 4096
HEADER_BYTES: Final = 1024
_MAGIC: Final = b"LBXSPOOL"
_HEAD: Final = struct.Struct("<8s16sQQ32sH")
_DIGEST_BYTES: Final = 32
_SYNC_EVERY: Final = 64 << 20
_SLICE: Final = 1 << 20
_LARGE: Final = 1 << 20


class Arrival(NamedTuple):
    """What is known of a new instance; see ``domain.Instance`` for the words.

    Attributes:
        file: the file of the spool that holds it.
        offset: where in it the Part 10 file begins.
        end: where the next record of the segment begins; 0 when the file is no segment.
    """

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax: str
    study_uid: str
    series_uid: str
    calling_ae_title: str
    received: float
    size: int
    sha256: str
    file: str
    offset: int
    end: int


def new_generation() -> bytes:
    """A number that no segment has had before."""
    return os.urandom(16)


def create(path: Path, size: int, *, written: bool) -> None:
    """Makes a segment file, durably, with its blocks: written over with zeros, or only reserved.

    Raises:
        OSError: the disk is full or broken; nothing stays.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        if written:
            zeros = bytes(_SLICE)
            for start in range(0, size, _SLICE):
                write_all(descriptor, zeros[: size - start], start)
        elif size:
            os.posix_fallocate(descriptor, 0, size)
        os.fsync(descriptor)
        sync_folder(path.parent)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    finally:
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Makes durable which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, part: bytes | memoryview, offset: int) -> None:
    """Writes all of it."""
    view = memoryview(part)
    while view:
        count = os.pwrite(descriptor, view, offset)
        view, offset = view[count:], offset + count


class Segment:
    """A segment that is open for writing. One thread uses it at a time.

    Arguments:
        path: the file.
        generation: of this use.
        capacity: bytes whose blocks are there; records may go beyond, more slowly.

    Attributes:
        position: where the next record begins.
        last_size: bytes of content of the last one.

    Raises:
        OSError: it can't be opened.
    """

    header_bytes: Final = HEADER_BYTES

    def __init__(self, path: Path, generation: bytes, capacity: int) -> None:
        self.path = path
        self.generation = generation
        self.capacity = capacity
        self.position = 0
        self.last_size = 0
        self._descriptor = os.open(path, os.O_WRONLY)

    @property
    def room(self) -> int:
        """Bytes of content that fit into the blocks that are there."""
        return max(0, self.capacity - self.position - HEADER_BYTES)

    def close(self) -> None:
        """Nothing is written to it any more."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    def begin(self, head: bytes) -> "Draft":
        """Begins a record whose content begins with ``head``.

        Raises:
            OSError: the disk is full or broken.
        """
        return Draft(self, self._descriptor, head)


class Draft:
    """A record that is being written. It does not count until ``seal`` has returned.

    Whole pages are written, and what is left over with what comes next: a part of a page that is not in memory any more
    would be read from the disk first.

    Attributes:
        size: bytes of content so far.
    """

    def __init__(self, segment: Segment, descriptor: int, head: bytes) -> None:
        self._segment = segment
        self._descriptor = descriptor
        self._start = segment.position
        self._digest = hashlib.sha256(head)
        self._unsynced = 0
        self._position = segment.position
        self._left_over = bytes(HEADER_BYTES) + head
        self.size = len(head)

    @property
    def beyond(self) -> int:
        """Bytes for which the file has to grow."""
        return max(0, self._start + HEADER_BYTES + self.size - self._segment.capacity)

    def write(self, part: bytes | memoryview) -> None:
        """Appends to the content.

        Raises:
            OSError: the disk is full or broken.
        """
        size = len(part)
        pages = (len(self._left_over) + size) // ALIGNMENT * ALIGNMENT
        if pages:
            taken = pages - len(self._left_over)
            self._write_pages(memoryview(part)[:taken], pages)
            self._left_over = bytes(part[taken:])
        else:
            self._left_over += part
        self._digest.update(part)
        self.size += size
        self._unsynced += size
        if self._unsynced > _SYNC_EVERY:
            # So that the sync that the sender waits for has little left to do.
            os.fdatasync(self._descriptor)
            self._unsynced = 0

    def _write_pages(self, part: memoryview, size: int) -> None:
        count = os.pwritev(self._descriptor, [self._left_over, part], self._position)
        if count < size:
            write_all(self._descriptor, (self._left_over + bytes(part))[count:], self._position + count)
        self._position += size

    def flush(self) -> None:
        """Writes what is left over, so that the content can be read.

        Raises:
            OSError: the disk is full or broken.
        """
        if self._left_over:
            padding = -len(self._left_over) % ALIGNMENT
            write_all(self._descriptor, self._left_over + bytes(padding), self._position)

    def seal(
        self,
        *,
        sop_instance_uid: str,
        sop_class_uid: str,
        transfer_syntax: str,
        study_uid: str,
        series_uid: str,
        calling_ae_title: str,
        received: float,
    ) -> Arrival:
        """Makes the record durable: when this returns, a start after any crash finds it.

        Raises:
            OSError: the disk is full or broken; the record does not count.
        """
        segment = self._segment
        arrival = Arrival(
            sop_instance_uid=sop_instance_uid,
            sop_class_uid=sop_class_uid,
            transfer_syntax=transfer_syntax,
            study_uid=study_uid,
            series_uid=series_uid,
            calling_ae_title=calling_ae_title,
            received=received,
            size=self.size,
            sha256=self._digest.hexdigest(),
            file=segment.path.name,
            offset=self._start + HEADER_BYTES,
            end=_aligned(self._start + HEADER_BYTES + self.size),
        )
        self.flush()
        write_all(self._descriptor, _header(arrival, segment.generation, self._digest.digest()), self._start)
        crash_point("edge.written")
        os.fdatasync(self._descriptor)
        crash_point("edge.synced")
        segment.position, segment.last_size = arrival.end, arrival.size
        return arrival

    def discard(self) -> None:
        """Drops it; what the file had to grow is given back."""
        if self.beyond:
            with suppress(OSError):
                os.ftruncate(self._descriptor, max(self._segment.capacity, self._start))


def _aligned(position: int) -> int:
    return -(-position // ALIGNMENT) * ALIGNMENT


def _header(arrival: Arrival, generation: bytes, digest: bytes) -> bytes:
    facts = orjson.dumps(
        [
            arrival.sop_instance_uid,
            arrival.sop_class_uid,
            arrival.transfer_syntax,
            arrival.study_uid,
            arrival.series_uid,
            arrival.calling_ae_title,
            arrival.received,
        ]
    )
    start = arrival.offset - HEADER_BYTES
    head = _HEAD.pack(_MAGIC, generation, start, arrival.size, digest, len(facts)) + facts
    head = head.ljust(HEADER_BYTES - _DIGEST_BYTES, b"\0")
    return head + hashlib.sha256(head).digest()


def read_records(path: Path, generation: bytes, start: int) -> Iterator[Arrival]:
    """The whole records of a segment from ``start`` on; the first that is not ends them.

    Raises:
        OSError: the file can't be read.
    """
    with path.open("rb", buffering=0) as file:
        while (arrival := _read_record(file.fileno(), path.name, generation, start)) is not None:
            yield arrival
            start = arrival.end


def _read_record(descriptor: int, name: str, generation: bytes, start: int) -> Arrival | None:
    head = os.pread(descriptor, HEADER_BYTES, start)
    if len(head) < HEADER_BYTES or hashlib.sha256(head[:-_DIGEST_BYTES]).digest() != head[-_DIGEST_BYTES:]:
        return None
    magic, found, offset, size, digest, length = _HEAD.unpack_from(head)
    if (magic, found, offset) != (_MAGIC, generation, start):
        return None
    content = hashlib.sha256()
    for position in range(0, size, _LARGE):
        content.update(os.pread(descriptor, min(_LARGE, size - position), start + HEADER_BYTES + position))
    if content.digest() != digest:
        return None
    facts: list[Any] = orjson.loads(head[_HEAD.size : _HEAD.size + length])
    instance, sop_class, syntax, study, series, calling, received = facts
    return Arrival(
        sop_instance_uid=instance,
        sop_class_uid=sop_class,
        transfer_syntax=syntax,
        study_uid=study,
        series_uid=series,
        calling_ae_title=calling,
        received=received,
        size=size,
        sha256=digest.hex(),
        file=name,
        offset=start + HEADER_BYTES,
        end=_aligned(start + HEADER_BYTES + size),
    )

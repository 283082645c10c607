"""The spool folder: segments that are being written, waiting to be forwarded, or spare, and files of their own."""

import fcntl
import os
import queue
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from mmap import ACCESS_READ, ALLOCATIONGRANULARITY, mmap
from pathlib import Path
from typing import Final
from uuid import uuid4

import structlog

from libs.crash import crash_point
from services.edge_gateway.domain import Instance
from services.edge_gateway.errors import OutOfResources, SpoolInUse
from services.edge_gateway.segments import Arrival, Segment, create, new_generation, read_records, sync_folder
from services.edge_gateway.store import Journal

SEGMENT: Final = ".segment"
_OWN_FILE: Final = ".dcm"
_FOR_THE_JOURNAL: Final = 1 << 20
"""Bytes of the disk that instances never get, however little is to be left free: without them nothing could leave."""
_LEAST_ROOM: Final = 64 << 10
_SHARE_OF_DISK: Final = 20
_COPIED_AT_ONCE: Final = 1 << 20
_RETRY_SECONDS: Final = 30.0
_FREE_SEEN_SECONDS: Final = 0.1
_QUIET_SECONDS: Final = 0.4
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class SegmentRow:
    """What the journal knows of a segment; see ``Journal.renew``."""

    file: str
    generation: bytes
    capacity: int
    applied: int


class Spool:
    """The folder. One process works on it at a time.

    Arguments:
        root: the folder; made when missing, for the owner only.
        segment_bytes: the size of a segment.
        spare_bytes: how much of the disk is kept ready as spare segments.
        minimum_free: bytes of the disk that must stay free.

    Raises:
        SpoolInUse: another process holds it.
    """

    def __init__(self, root: Path, *, segment_bytes: int, spare_bytes: int, minimum_free: int) -> None:
        self._segments = root / "segments"
        self._instances = root / "instances"
        self._segment_bytes = segment_bytes
        self._spare_bytes = spare_bytes
        self._minimum_free = max(minimum_free, _FOR_THE_JOURNAL)
        for folder in (root, self._segments, self._instances):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock_file = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock_file)
            raise SpoolInUse(f"another edge gateway works on the spool {root}") from error
        self._lock = threading.Lock()
        self._open: list[Segment] = []
        self._spare: list[tuple[str, bytes]] = []
        self._in_use: set[str] = set()
        self._written: set[str] = set()
        self._counts: Counter[str] = Counter()
        self._chores: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._housekeeper: threading.Thread | None = None
        self._journal: Journal | None = None
        self._last_used = 0.0
        self._free_seen, self._free_looked = 0, float("-inf")

    def open(self, journal: Journal) -> tuple[int, int]:
        """Takes up what the last run left, and begins to keep spare segments.

        Arguments:
            journal: what counts.

        Returns:
            How many instances were acknowledged and not yet in the journal, and how many files were removed because
            nothing counts on them.
        """
        self._journal = journal
        known = [SegmentRow(*row) for row in journal.segments()]
        recovered = sum(self._recover(journal, row) for row in known if (self._segments / row.file).exists())
        self._counts = Counter(journal.counted_on())
        removed = self._remove_stray(known)
        for row in known:
            path = self._segments / row.file
            if not path.exists():
                journal.forget_segment(row.file).result()
                continue
            if row.capacity == self._segment_bytes and path.stat().st_size >= row.capacity:
                self._written.add(row.file)
            if not self._counts[row.file]:
                self._chores.put(row.file)
        self._chores.put("")
        self._housekeeper = threading.Thread(target=self._keep_house, name="spool", daemon=True)
        self._housekeeper.start()
        return recovered, removed

    def settle(self) -> None:
        """Ends the housekeeping; the journal may be closed then."""
        if self._housekeeper is not None:
            self._chores.put(None)
            self._housekeeper.join()

    def close(self) -> None:
        """Lets another process have the spool."""
        with self._lock:
            for segment in self._open:
                segment.close()
            self._open.clear()
        os.close(self._lock_file)

    def _recover(self, journal: Journal, row: SegmentRow) -> int:
        """Enters the records that were made durable and not entered before the last run ended."""
        found = list(read_records(self._segments / row.file, row.generation, row.applied))
        for arrival in found:
            journal.enter(arrival, lambda _: None)
        if found:
            journal.settle()
        return len(found)

    def _remove_stray(self, known: list[SegmentRow]) -> int:
        names = {row.file for row in known}
        stray = [path for path in self._segments.iterdir() if path.name not in names]
        stray += [path for path in self._instances.iterdir() if not self._counts[path.name]]
        # Half-written files of an edge from before there were segments.
        incoming = self._instances.parent / "incoming"
        if incoming.is_dir():
            stray += incoming.iterdir()
        for path in stray:
            path.unlink(missing_ok=True)
        return len(stray)

    # Room

    def disk_free(self) -> int:
        """What an ordinary user may still write on this disk."""
        disk = os.statvfs(self._segments)
        return disk.f_bavail * disk.f_frsize

    def free_bytes(self, *, within: float = 0.0) -> int:
        """What can still be stored: on the disk, and in segments whose blocks are there already.

        Arguments:
            within: how many seconds old the look at the disk may be.
        """
        now = time.monotonic()
        if now - self._free_looked > within:
            self._free_seen, self._free_looked = self.disk_free(), now
        with self._lock:
            ready = len(self._spare) * self._segment_bytes + sum([segment.room for segment in self._open])
        return self._free_seen + ready

    def require_room(self, *, growing: bool = False) -> None:
        """Checks that the disk is not nearly full.

        Arguments:
            growing: what is to be written needs new blocks.

        Raises:
            OutOfResources: it is.
        """
        if growing:
            self._free_seen = self.disk_free()
            left = self._free_seen
        else:
            left = self.free_bytes(within=_FREE_SEEN_SECONDS)
        if left < self._minimum_free:
            raise OutOfResources("the disk of the edge gateway is nearly full")

    # Writing

    def take(self) -> Segment:
        """A segment to write one record to; it is given back with ``give_back`` or ``give_up``.

        Raises:
            OutOfResources: the disk is nearly full, or the journal can't be written.
            OSError: it is full or broken.
        """
        self.require_room()
        with self._lock:
            if self._open:
                return self._open.pop()
            spare = self._spare.pop() if self._spare else None
            if spare is not None:
                self._in_use.add(spare[0])
        self._chores.put("")
        if spare is not None:
            return Segment(self._segments / spare[0], spare[1], self._segment_bytes)
        return self._new_segment()

    def give_back(self, segment: Segment) -> None:
        """The record is sealed or discarded; the segment is used on while there is room for another like it."""
        self._last_used = time.monotonic()
        with self._lock:
            if segment.room >= max(_LEAST_ROOM, segment.last_size):
                self._open.append(segment)
                return
        self.give_up(segment)

    def give_up(self, segment: Segment) -> None:
        """Nothing more is written to this segment."""
        segment.close()
        with self._lock:
            self._in_use.discard(segment.path.name)
            empty = not self._counts[segment.path.name]
        if empty:
            self._chores.put(segment.path.name)

    def _new_segment(self) -> Segment:
        """One whose blocks are reserved and not yet written, since no spare one is ready."""
        name, generation = f"{uuid4().hex}{SEGMENT}", new_generation()
        reserve = self._segment_bytes if self.disk_free() - self._segment_bytes > self._minimum_free else 0
        create(self._segments / name, reserve, written=False)
        try:
            self._required_journal().renew(name, generation, reserve).result()
        except sqlite3.Error as error:
            (self._segments / name).unlink(missing_ok=True)
            raise OutOfResources(f"the journal can't be written: {error}") from error
        with self._lock:
            self._in_use.add(name)
        return Segment(self._segments / name, generation, reserve)

    # What counts

    def count(self, file: str) -> None:
        """One more instance is in this file."""
        with self._lock:
            self._counts[file] += 1

    def release(self, file: str) -> None:
        """The journal counts on one instance less in this file."""
        with self._lock:
            self._counts[file] -= 1
            left = self._counts[file]
            if left <= 0:
                del self._counts[file]
        if left > 0:
            return
        if file.endswith(SEGMENT):
            self._chores.put(file)
        else:
            with suppress(OSError):
                self.path(file).unlink(missing_ok=True)

    def in_segment(self, instance: Instance) -> bool:
        """Whether an instance shares its file with others."""
        return instance.file.endswith(SEGMENT)

    def path(self, file: str) -> Path:
        """Where a file of the spool lies."""
        return (self._segments if file.endswith(SEGMENT) else self._instances) / file

    @contextmanager
    def mapped(self, segment: Segment, size: int) -> Iterator[memoryview]:
        """The content of the record that is being written to a segment, as it lies in the page cache.

        Arguments:
            segment: the segment.
            size: bytes of content.
        """
        start = segment.position + segment.header_bytes
        base = start // ALLOCATIONGRANULARITY * ALLOCATIONGRANULARITY
        with (
            segment.path.open("rb") as file,
            mmap(file.fileno(), start - base + size, access=ACCESS_READ, offset=base) as whole,
            memoryview(whole) as view,
            view[start - base :] as content,
        ):
            yield content

    def set_apart(self, instance: Instance) -> str:
        """Copies an instance that stays for long to a file of its own, so that it does not hold a whole segment.

        Returns:
            The name of the file, which is durable. It counts as one instance.

        Raises:
            OSError: the disk is full or broken; nothing stays.
        """
        name = f"{uuid4().hex}{_OWN_FILE}"
        path = self._instances / name
        try:
            with self.path(instance.file).open("rb", buffering=0) as source, path.open("xb", buffering=0) as copy:
                source.seek(instance.offset)
                left = instance.size
                while left and (piece := source.read(min(left, _COPIED_AT_ONCE))):
                    copy.write(piece)
                    left -= len(piece)
                os.fsync(copy.fileno())
            sync_folder(self._instances)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        self.count(name)
        return name

    # Housekeeping

    def _required_journal(self) -> Journal:
        if self._journal is None:
            raise RuntimeError("the spool is not open")
        return self._journal

    def _keep_house(self) -> None:
        """Makes emptied segments spare again, and new spare ones where there are too few; ends at ``None``."""
        while True:
            try:
                file = self._chores.get(timeout=_RETRY_SECONDS)
            except queue.Empty:
                file = ""
            if file is None:
                return
            try:
                if file:
                    self._recycle(file)
                self._prepare()
            except Exception as error:
                _log.warning("a spare segment could not be made ready", reason=str(error))

    def _wanted(self) -> int:
        """How many segments are kept spare: what is set, and never more than a share of the disk."""
        share = (self.disk_free() - self._minimum_free) // _SHARE_OF_DISK
        with self._lock:
            ready = len(self._spare) * self._segment_bytes
        return max(0, min(self._spare_bytes, share + ready)) // self._segment_bytes

    def _recycle(self, file: str) -> None:
        """A segment that nothing counts on becomes spare, or goes."""
        with self._lock:
            if self._counts[file] or any(name == file for name, _ in self._spare) or not self._close_unused(file):
                return
            ready = len(self._spare)
        path, journal = self._segments / file, self._required_journal()
        if file not in self._written or ready >= self._wanted():
            self._written.discard(file)
            journal.forget_segment(file).result()
            path.unlink(missing_ok=True)
            return
        # A new generation, durably, before a byte is written over: the journal's deletions are durable with it.
        generation = new_generation()
        journal.renew(file, generation, self._segment_bytes).result()
        crash_point("edge.renewed")
        os.truncate(path, self._segment_bytes)
        with self._lock:
            self._spare.insert(0, (file, generation))

    def _close_unused(self, file: str) -> bool:
        """Whether nobody writes to a segment. One that only has blocks reserved is not kept open for more."""
        if file not in self._in_use:
            return True
        unused = [segment for segment in self._open if segment.path.name == file and file not in self._written]
        for segment in unused:
            self._open.remove(segment)
            self._in_use.discard(file)
            segment.close()
        return bool(unused)

    def _prepare(self) -> None:
        """Writes one more spare segment, if there are few: room is left for those that are emptied.

        While instances arrive it waits, so as not to take the disk from them, unless no segment is left.
        """
        while True:
            with self._lock:
                ready = len(self._spare)
            quiet = time.monotonic() - self._last_used
            if 2 * ready >= self._wanted():
                return
            if not ready or quiet > _QUIET_SECONDS:
                break
            if not self._chores.empty():
                return  # to come back: every chore ends in a look at the spare segments
            time.sleep(_QUIET_SECONDS / 4)
        name, generation = f"{uuid4().hex}{SEGMENT}", new_generation()
        create(self._segments / name, self._segment_bytes, written=True)
        self._required_journal().renew(name, generation, self._segment_bytes).result()
        self._written.add(name)
        with self._lock:
            self._spare.insert(0, (name, generation))
        self._chores.put("")


__all__ = ["Arrival", "Spool"]

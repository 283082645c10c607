"""The journal of the spool: the clinic's proof of what was acknowledged."""

import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import structlog

from libs.crash import crash_point
from services.edge_gateway.domain import Instance, SeriesKey
from services.edge_gateway.segments import Arrival

T = TypeVar("T")
_LARGEST_GROUP: Final = 200
_GATHER_SECONDS: Final = 0.025
_RETRY_SECONDS: Final = 1.0
_SETTLE_SECONDS: Final = 2.0
_MOST_BEHIND: Final = 4000
_INSTANCES: Final = """
CREATE TABLE instances (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    sop_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    file TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    received REAL NOT NULL,
    calling_ae_title TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'refused')),
    reason TEXT NOT NULL DEFAULT '',
    offset INTEGER NOT NULL DEFAULT 0,
    UNIQUE (file, offset),
    UNIQUE (sop_instance_uid, sha256)
) STRICT;
CREATE INDEX instances_state ON instances (state, sequence);
CREATE TABLE segments (
    file TEXT PRIMARY KEY,
    generation BLOB NOT NULL,
    capacity INTEGER NOT NULL,
    applied INTEGER NOT NULL
) STRICT;
"""
# Until version 1 each instance had a file of its own, as those have still that were in the spool then.
_FROM_ONE_FILE_EACH: Final = f"""
BEGIN;
ALTER TABLE instances RENAME TO old;
DROP INDEX instances_state;
{_INSTANCES}
INSERT INTO instances SELECT *, 0 FROM old;
DROP TABLE old;
PRAGMA user_version = 1;
COMMIT;
"""
_NEW: Final = f"BEGIN; {_INSTANCES} PRAGMA user_version = 1; COMMIT;"
_COLUMNS: Final = "sequence, sop_instance_uid, study_uid, series_uid, file, size, sha256, received, offset"
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Refused:
    """An instance that the cloud will not take, kept until somebody decides."""

    sop_instance_uid: str
    study_uid: str
    reason: str
    received: float


@dataclass(frozen=True)
class Added:
    """What became of an arrival.

    Attributes:
        sequence: its number in the journal.
        fate: ``new``; ``known`` when the same bytes wait already; ``revived`` when they had been refused before.
        unneeded: the file that the journal counts on once less than was said, or an empty text.
    """

    sequence: int
    fate: Literal["new", "known", "revived"]
    unneeded: str = ""


class Journal:
    """The SQLite journal of the spool.

    All writes go through one thread, which commits what has gathered in one transaction. New instances are durable in
    their segments already, so that nobody waits for their rows: a start enters those that a crash kept out. Nor does
    losing the last deletions in a loss of power do harm, since sending again does none; only before a segment is
    written over, ``renew`` waits until everything before is on the disk. Reads use a connection of their own.
    """

    def __init__(self, path: Path) -> None:
        self._writer = _connect(path)
        _migrate(self._writer)
        self._reader = _connect(path)
        self._reading = threading.Lock()
        self._work: queue.SimpleQueue[_Write | _Entry | None] = queue.SimpleQueue()
        self._delayed: list[_Entry] = []
        self._durable = True
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes what is queued, then closes."""
        self._work.put(None)
        self._thread.join()
        self._writer.close()
        self._reader.close()

    @property
    def behind(self) -> bool:
        """Whether so much waits to be entered that nothing more should be taken."""
        return self._work.qsize() + len(self._delayed) > _MOST_BEHIND

    def enter(self, arrival: Arrival, entered: "Entered") -> None:
        """Enters a new instance soon, or finds the entry that has the same UID and the same bytes.

        Arguments:
            arrival: the instance, durable in its segment. Those of one segment are entered in their order there.
            entered: is told in the journal's thread when it is done.
        """
        self._work.put(_Entry(arrival, entered))

    def settle(self) -> None:
        """Waits until everything that was to be written before is written."""
        with suppress(sqlite3.Error, TimeoutError):
            self._submit(lambda _: None).result(_SETTLE_SECONDS)

    def segments(self) -> list[tuple[str, bytes, int, int]]:
        """Of each segment its file, generation, capacity, and up to where its records are entered."""
        return [
            (file, generation, capacity, applied)
            for file, generation, capacity, applied in self._read(
                "SELECT file, generation, capacity, applied FROM segments"
            )
        ]

    def renew(self, file: str, generation: bytes, capacity: int) -> Future[None]:
        """A segment begins a new generation; when done, this and everything before is on the disk."""
        statement = "INSERT OR REPLACE INTO segments (file, generation, capacity, applied) VALUES (?, ?, ?, 0)"
        return self._submit(
            lambda connection: _none(connection.execute(statement, (file, generation, capacity))), durable=True
        )

    def forget_segment(self, file: str) -> Future[None]:
        """A segment is going to be removed; when done, that is on the disk."""
        return self._submit(
            lambda connection: _none(connection.execute("DELETE FROM segments WHERE file = ?", (file,))), durable=True
        )

    def delete(self, sequences: list[int], *, durable: bool) -> Future[None]:
        """Forgets instances that the cloud has proven to keep.

        Arguments:
            sequences: their numbers.
            durable: done when that is on the disk, since files are going to be removed.
        """
        rows = [(sequence,) for sequence in sequences]
        statement = "DELETE FROM instances WHERE sequence = ?"
        return self._submit(lambda connection: _none(connection.executemany(statement, rows)), durable=durable)

    def refuse(self, reasons: dict[int, str]) -> Future[None]:
        """Marks instances that the cloud will not take; they stay in the spool."""
        rows = [(reason, sequence) for sequence, reason in reasons.items()]
        statement = "UPDATE instances SET state = 'refused', reason = ? WHERE sequence = ?"
        return self._submit(lambda connection: _none(connection.executemany(statement, rows)))

    def retry_refused(self) -> Future[list[tuple[SeriesKey, int, int]]]:
        """Lets all refused instances wait again; gives series, sequence and size of each."""
        return self._submit(_retry_refused)

    def move(self, instance: Instance, file: str) -> Future[bool]:
        """A refused instance is in a file of its own from now on; False when it is not any more what it was."""
        statement = (
            "UPDATE instances SET file = ?, offset = 0"
            " WHERE sequence = ? AND state = 'refused' AND file = ? AND offset = ?"
        )
        values = (file, instance.sequence, instance.file, instance.offset)
        return self._submit(lambda connection: connection.execute(statement, values).rowcount == 1)

    def load(self, sequences: list[int]) -> list[Instance]:
        """The entries with these numbers, in order; those that are gone are left out."""
        marks = ",".join("?" * len(sequences))
        rows = self._read(
            f"SELECT {_COLUMNS} FROM instances WHERE sequence IN ({marks}) ORDER BY sequence",
            sequences,
        )
        return [Instance(*row) for row in rows]

    def waiting(self) -> Iterator[tuple[SeriesKey, int, int]]:
        """Series, sequence and size of everything that waits, oldest first."""
        statement = (
            "SELECT study_uid, series_uid, sequence, size FROM instances WHERE state = 'waiting' ORDER BY sequence"
        )
        for study, series, sequence, size in self._read(statement):
            yield (study, series), sequence, size

    def counted_on(self) -> dict[str, int]:
        """The files that the journal counts on, and how many instances are in each."""
        return dict(self._read("SELECT file, count(*) FROM instances GROUP BY file"))

    def count(self) -> dict[str, tuple[int, int]]:
        """Instances and bytes by state, everything included that is acknowledged."""
        self.settle()
        rows = self._read("SELECT state, count(*), coalesce(sum(size), 0) FROM instances GROUP BY state")
        found = {state: (number, size) for state, number, size in rows}
        return {state: found.get(state, (0, 0)) for state in ("waiting", "refused")}

    def oldest_waiting(self) -> float | None:
        """When the oldest waiting instance was received, seconds since 1970."""
        rows = self._read("SELECT received FROM instances WHERE state = 'waiting' ORDER BY state, sequence LIMIT 1")
        return float(rows[0][0]) if rows else None

    def refused(self, limit: int) -> list[Refused]:
        """The refused instances, newest first."""
        statement = (
            "SELECT sop_instance_uid, study_uid, reason, received FROM instances"
            " WHERE state = 'refused' ORDER BY sequence DESC LIMIT ?"
        )
        return [Refused(*row) for row in self._read(statement, [limit])]

    def _read(self, statement: str, values: Iterable[object] = ()) -> list[tuple[Any, ...]]:
        with self._reading:
            return self._reader.execute(statement, tuple(values)).fetchall()

    def _submit(self, operation: "Callable[[sqlite3.Connection], T]", *, durable: bool = False) -> "Future[T]":
        future: Future[T] = Future()
        self._work.put(_Write(operation, future, durable))
        return future

    def _run(self) -> None:
        """Takes what has gathered, commits it at once, tells the callers; ends at ``None``."""
        ending = False
        while not ending:
            items: list[_Write | _Entry | None] = []
            with suppress(queue.Empty):
                items.append(self._work.get(timeout=_RETRY_SECONDS if self._delayed else None))
            if items and isinstance(items[0], _Entry):
                # Nobody waits for a row. Fewer commits leave the processor to those who receive.
                time.sleep(_GATHER_SECONDS)
            with suppress(queue.Empty):
                while len(items) < _LARGEST_GROUP and items and items[-1] is not None:
                    items.append(self._work.get_nowait())
            ending = bool(items) and items[-1] is None
            self._write([item for item in items if item is not None])

    def _write(self, items: "list[_Write | _Entry]") -> None:
        """Commits entries and writes together; where that fails, the writes one by one, the entries later."""
        entries = [*self._delayed, *(item for item in items if isinstance(item, _Entry))]
        writes = [item for item in items if isinstance(item, _Write)]
        self._delayed = []
        if self._commit(entries, writes):
            return
        for write in writes:
            self._commit([], [write], last=True)
        late: set[str] = set()
        for entry in entries:
            # After one that has to wait, none of its segment may be entered: a start would not look for it any more.
            if entry.arrival.file in late or not self._commit([entry], []):
                late.add(entry.arrival.file)
                self._delayed.append(entry)

    def _commit(self, entries: "list[_Entry]", writes: "list[_Write]", *, last: bool = False) -> bool:
        """One transaction; False when it failed. A write that fails as the last resort is told so."""
        durable = any(write.durable for write in writes)
        try:
            if durable != self._durable:
                self._writer.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                self._durable = durable
            self._writer.execute("BEGIN IMMEDIATE")
            fates = [_add(self._writer, entry.arrival) for entry in entries]
            self._writer.executemany(_APPLIED, _applied(entry.arrival for entry in entries))
            results = [write.operation(self._writer) for write in writes]
            self._writer.execute("COMMIT")
        except Exception as error:
            with suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            if last:
                writes[0].future.set_exception(error)
            else:
                _log.warning("the journal could not be written", reason=str(error), entries=len(entries))
            return last
        if entries:
            crash_point("edge.entered")
        for entry, fate in zip(entries, fates, strict=True):
            entry.entered(fate)
        for write, result in zip(writes, results, strict=True):
            write.future.set_result(result)
        return True


Entered = Callable[[Added], None]
"""Is told what became of an arrival."""
_APPLIED: Final = "UPDATE segments SET applied = ? WHERE file = ?"


@dataclass(frozen=True)
class _Entry:
    arrival: Arrival
    entered: Entered


@dataclass(frozen=True)
class _Write:
    operation: Callable[[sqlite3.Connection], Any]
    future: "Future[Any]"
    durable: bool = False


def _applied(arrivals: Iterable[Arrival]) -> list[tuple[int, str]]:
    """Up to where the records of each segment are entered now."""
    ends = {arrival.file: arrival.end for arrival in arrivals}
    return [(end, file) for file, end in ends.items()]


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _migrate(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version == 0:
        there = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'instances'").fetchone()
        connection.executescript(_FROM_ONE_FILE_EACH if there else _NEW)


def _none(_: object) -> None:
    """Drops what a statement gives back."""


def _add(connection: sqlite3.Connection, arrival: Arrival) -> Added:
    cursor = connection.execute(
        "INSERT INTO instances (sop_instance_uid, sop_class_uid, transfer_syntax, study_uid, series_uid,"
        " file, size, sha256, calling_ae_title, received, offset) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (sop_instance_uid, sha256) DO NOTHING",
        _values(arrival),
    )
    if cursor.rowcount == 1:
        return Added(int(cursor.lastrowid or 0), "new")
    sequence, state, file = connection.execute(
        "SELECT sequence, state, file FROM instances WHERE sop_instance_uid = ? AND sha256 = ?",
        (arrival.sop_instance_uid, arrival.sha256),
    ).fetchone()
    if state == "refused":
        connection.execute(
            "UPDATE instances SET state = 'waiting', reason = '', file = ?, offset = ? WHERE sequence = ?",
            (arrival.file, arrival.offset, sequence),
        )
        return Added(sequence, "revived", file)
    return Added(sequence, "known", arrival.file)


def _values(arrival: Arrival) -> tuple[str | int | float, ...]:
    return (
        arrival.sop_instance_uid,
        arrival.sop_class_uid,
        arrival.transfer_syntax,
        arrival.study_uid,
        arrival.series_uid,
        arrival.file,
        arrival.size,
        arrival.sha256,
        arrival.calling_ae_title,
        arrival.received,
        arrival.offset,
    )


def _retry_refused(connection: sqlite3.Connection) -> list[tuple[SeriesKey, int, int]]:
    rows = connection.execute(
        "UPDATE instances SET state = 'waiting', reason = '' WHERE state = 'refused'"
        " RETURNING study_uid, series_uid, sequence, size"
    ).fetchall()
    return [((study, series), sequence, size) for study, series, sequence, size in rows]

"""The spool folder and the journal: the clinic's proof of what was acknowledged."""

import fcntl
import hashlib
import os
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
from uuid import uuid4

from libs.crash import crash_point
from services.edge_gateway.domain import Instance, SeriesKey
from services.edge_gateway.errors import SpoolInUse

T = TypeVar("T")
_SLICE: Final = 1 << 20
_LARGEST_GROUP: Final = 200
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS instances (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    sop_instance_uid TEXT NOT NULL,
    sop_class_uid TEXT NOT NULL,
    transfer_syntax TEXT NOT NULL,
    study_uid TEXT NOT NULL,
    series_uid TEXT NOT NULL,
    file TEXT NOT NULL UNIQUE,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    received REAL NOT NULL,
    calling_ae_title TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'refused')),
    reason TEXT NOT NULL DEFAULT '',
    UNIQUE (sop_instance_uid, sha256)
) STRICT;
CREATE INDEX IF NOT EXISTS instances_state ON instances (state, sequence);
"""
_COLUMNS: Final = "sequence, sop_instance_uid, study_uid, series_uid, file, size, sha256, received"


@dataclass(frozen=True)
class Draft:
    """A file that is written and synced, and not yet part of the spool."""

    path: Path
    size: int
    sha256: str


@dataclass(frozen=True)
class Arrival:
    """What the journal is told of a new instance; see ``Instance`` for the words."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax: str
    study_uid: str
    series_uid: str
    file: str
    size: int
    sha256: str
    calling_ae_title: str


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
        unneeded: the file that the journal does not count on any more, or an empty text.
    """

    sequence: int
    fate: Literal["new", "known", "revived"]
    unneeded: str = ""


class Spool:
    """The folder of Part 10 files. One process works on it at a time.

    Arguments:
        root: the folder; made when missing, for the owner only.

    Raises:
        SpoolInUse: another process holds it.
    """

    def __init__(self, root: Path) -> None:
        self._incoming = root / "incoming"
        self._instances = root / "instances"
        for folder in (root, self._incoming, self._instances):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = os.open(root / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise SpoolInUse(f"another edge gateway works on the spool {root}") from error

    def close(self) -> None:
        """Lets another process have the spool."""
        os.close(self._lock)

    def clean(self, counted_on: set[str]) -> int:
        """Removes what a crash left: half-written files, and files that the journal does not count on.

        Neither was acknowledged, or the cloud has it already.

        Returns:
            How many files were removed.
        """
        stray = [*self._incoming.iterdir()]
        stray += [path for path in self._instances.iterdir() if path.name not in counted_on]
        for path in stray:
            path.unlink(missing_ok=True)
        return len(stray)

    def free_bytes(self) -> int:
        """What an ordinary user may still write on this disk."""
        disk = os.statvfs(self._instances)
        return disk.f_bavail * disk.f_frsize

    def write(self, pieces: Iterable[bytes | memoryview]) -> Draft:
        """Writes a file and syncs it; nothing stays when that fails.

        Raises:
            OSError: the disk is full or broken.
        """
        path = self._incoming / f"{uuid4().hex}.dcm"
        digest = hashlib.sha256()
        size = 0
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            try:
                for piece in pieces:
                    view = memoryview(piece)
                    for start in range(0, len(view), _SLICE):
                        part = view[start : start + _SLICE]
                        digest.update(part)
                        _write_all(descriptor, part)
                    size += len(view)
                crash_point("edge.written")
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return Draft(path, size, digest.hexdigest())

    def keep(self, draft: Draft) -> str:
        """Makes a draft part of the spool, durably, and gives its name.

        Raises:
            OSError: the disk is full or broken; nothing stays.
        """
        kept = self._instances / draft.path.name
        try:
            draft.path.rename(kept)
            descriptor = os.open(self._instances, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except BaseException:
            draft.path.unlink(missing_ok=True)
            kept.unlink(missing_ok=True)
            raise
        return draft.path.name

    def discard(self, draft: Draft) -> None:
        """Drops a draft."""
        draft.path.unlink(missing_ok=True)

    def path(self, file: str) -> Path:
        """Where a file of the spool lies."""
        return self._instances / file

    def remove(self, file: str) -> None:
        """Removes a file that the journal no longer counts on; a start removes what is left here."""
        with suppress(OSError):
            self.path(file).unlink(missing_ok=True)


def _write_all(descriptor: int, part: memoryview) -> None:
    while part:
        part = part[os.write(descriptor, part) :]


class Journal:
    """The SQLite journal of the spool.

    All writes go through one thread, which commits what has gathered in one transaction; a caller's future is done
    when its write is on the disk. Reads use a connection of their own.
    """

    def __init__(self, path: Path) -> None:
        self._writer = _connect(path)
        self._writer.executescript(_SCHEMA)
        self._reader = _connect(path)
        self._reading = threading.Lock()
        self._work: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="journal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Writes what is queued, then closes."""
        self._work.put(None)
        self._thread.join()
        self._writer.close()
        self._reader.close()

    def add(self, arrival: Arrival) -> Future[Added]:
        """Enters a new instance, or finds the entry that has the same UID and the same bytes."""
        return self._submit(lambda connection: _add(connection, arrival))

    def delete(self, sequences: list[int]) -> Future[None]:
        """Forgets instances that the cloud has proven to keep."""
        return self._submit(
            lambda connection: _none(
                connection.executemany("DELETE FROM instances WHERE sequence = ?", [(n,) for n in sequences])
            )
        )

    def refuse(self, reasons: dict[int, str]) -> Future[None]:
        """Marks instances that the cloud will not take; they stay in the spool."""
        rows = [(reason, sequence) for sequence, reason in reasons.items()]
        statement = "UPDATE instances SET state = 'refused', reason = ? WHERE sequence = ?"
        return self._submit(lambda connection: _none(connection.executemany(statement, rows)))

    def retry_refused(self) -> Future[list[tuple[SeriesKey, int, int]]]:
        """Lets all refused instances wait again; gives series, sequence and size of each."""
        return self._submit(_retry_refused)

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

    def files(self) -> set[str]:
        """The names of all files that the journal counts on."""
        return {row[0] for row in self._read("SELECT file FROM instances")}

    def count(self) -> dict[str, tuple[int, int]]:
        """Instances and bytes by state."""
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

    def _submit(self, operation: "Callable[[sqlite3.Connection], T]") -> "Future[T]":
        future: Future[T] = Future()
        self._work.put(_Write(operation, future))
        return future

    def _run(self) -> None:
        """Takes what has gathered, commits it at once, tells the callers; ends at ``None``."""
        ending = False
        while not ending:
            group: list[_Write] = []
            item = self._work.get()
            while item is not None:
                group.append(item)
                if len(group) == _LARGEST_GROUP:
                    break
                try:
                    item = self._work.get_nowait()
                except queue.Empty:
                    break
            else:
                ending = True
            if not self._commit(group):
                for write in group:
                    self._commit([write], last=True)

    def _commit(self, group: list["_Write"], *, last: bool = False) -> bool:
        """Runs the writes in one transaction; False when it failed and each should be tried alone."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            results = [write.operation(self._writer) for write in group]
            self._writer.execute("COMMIT")
        except Exception as error:
            with suppress(sqlite3.Error):
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
            if last:
                group[0].future.set_exception(error)
            return last
        for write, result in zip(group, results, strict=True):
            write.future.set_result(result)
        return True


@dataclass(frozen=True)
class _Write:
    operation: Callable[[sqlite3.Connection], Any]
    future: "Future[Any]"


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _none(_: object) -> None:
    """Drops what a statement gives back."""


def _add(connection: sqlite3.Connection, arrival: Arrival) -> Added:
    found = connection.execute(
        "SELECT sequence, state, file FROM instances WHERE sop_instance_uid = ? AND sha256 = ?",
        (arrival.sop_instance_uid, arrival.sha256),
    ).fetchone()
    if found is None:
        cursor = connection.execute(
            "INSERT INTO instances (sop_instance_uid, sop_class_uid, transfer_syntax, study_uid, series_uid,"
            " file, size, sha256, calling_ae_title, received) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*_values(arrival), time.time()),
        )
        return Added(int(cursor.lastrowid or 0), "new")
    sequence, state, file = found
    if state == "refused":
        connection.execute(
            "UPDATE instances SET state = 'waiting', reason = '', file = ? WHERE sequence = ?",
            (arrival.file, sequence),
        )
        return Added(sequence, "revived", file)
    return Added(sequence, "known", arrival.file)


def _values(arrival: Arrival) -> tuple[str | int, ...]:
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
    )


def _retry_refused(connection: sqlite3.Connection) -> list[tuple[SeriesKey, int, int]]:
    rows = connection.execute(
        "UPDATE instances SET state = 'waiting', reason = '' WHERE state = 'refused'"
        " RETURNING study_uid, series_uid, sequence, size"
    ).fetchall()
    return [((study, series), sequence, size) for study, series, sequence, size in rows]

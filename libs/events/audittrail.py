"""Recording who did what, so that no record is lost between the deed and Kafka.

A record is appended to a spool file before ``record`` returns; a task publishes what the files hold and deletes a file
once Kafka has acknowledged all of it. So a record survives kill -9 of the process, and Kafka being away. Consumers know
an event by its id: one that is published twice is kept once.
"""

import asyncio
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self
from uuid import uuid4

import structlog
from prometheus_client import Counter

from libs.crash import crash_point
from libs.events.envelopes import encode, envelope
from libs.events.errors import AuditUnavailable, EventsUnavailable
from libs.events.models import AuditRecorded, Envelope
from libs.events.producer import Message, Producer
from libs.events.topics import AUDIT_RECORDED

_SUFFIX = ".spool"
_BATCH_BYTES = 1 << 20
_MAX_FILE_BYTES = 8 << 20
_RECORDED = Counter("lightbox_audit_recorded_total", "Audit records spooled", ["service"])
_log = structlog.get_logger(__name__)


class AuditTrail:
    """The way of a service to the audit record. Use it as an async context manager, or ``run`` it as a task.

    Arguments:
        producer: where records are published; must be started.
        service: the service's name; file names begin with it.
        spool_dir: a private folder that outlives the process; it is created. Several processes may share it.
        max_bytes: how much may wait for Kafka; beyond that ``record`` refuses.
    """

    def __init__(self, producer: Producer, service: str, spool_dir: Path, *, max_bytes: int = 256 << 20) -> None:
        self._producer = producer
        self._service = service
        self._folder = spool_dir
        self._max_bytes = max_bytes
        self._active: _Segment | None = None
        self._closed: list[_Segment] = []
        self._recorded = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Takes over what earlier processes left, and begins to publish."""
        self._task = asyncio.create_task(self.run(), name="audit trail")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Publishes what waits, for at most three seconds; the rest stays in the spool for the next process."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        with suppress(EventsUnavailable, TimeoutError, OSError):
            async with asyncio.timeout(3):
                await self.flush()
        self.close()

    async def record(self, tenant: str, event: AuditRecorded) -> None:
        """Keeps one record. It is on file when this returns, and published soon after.

        Arguments:
            tenant: whose data it is about.
            event: what happened.

        Raises:
            AuditUnavailable: it can't be kept (disk full, too much waits); what it records must not go on.
        """
        line = encode(envelope(AUDIT_RECORDED, tenant, event)) + b"\n"
        try:
            self._segment(len(line)).append(line)
        except OSError as error:
            raise AuditUnavailable("The audit spool can't be written.") from error
        crash_point("audit.spooled")
        _RECORDED.labels(self._service).inc()
        self._recorded.set()

    async def run(self) -> None:
        """Publishes what is recorded until it is cancelled."""
        delay = 0.5
        self._adopt()
        while True:
            await self._recorded.wait()
            self._recorded.clear()
            try:
                await self.flush()
                delay = 0.5
            except (EventsUnavailable, OSError) as error:
                _log.warning("audit records wait in the spool", error=repr(error), seconds=delay)
                self._recorded.set()
                await asyncio.sleep(delay)
                delay = min(delay * 2, 10)
                self._adopt()

    async def flush(self) -> None:
        """Publishes all that waits.

        Raises:
            EventsUnavailable: Kafka did not take it; it waits on, and is on disk for certain.
        """
        if self._active is not None and self._active.size:
            self._closed.append(self._active)
            self._active = None
        while self._closed:
            segment = self._closed[0]
            try:
                await self._publish(segment)
            except EventsUnavailable:
                for waiting in self._closed:
                    await asyncio.to_thread(waiting.sync)
                raise
            crash_point("audit.published")
            segment.delete()
            self._closed.pop(0)

    @property
    def waiting_bytes(self) -> int:
        """Bytes that are recorded and not yet acknowledged by Kafka."""
        return sum(s.size for s in self._closed) + (self._active.size if self._active else 0)

    def close(self) -> None:
        """Lets go of the files; another process may take them over."""
        for segment in (*self._closed, *([self._active] if self._active else [])):
            segment.close()
        self._closed.clear()
        self._active = None

    def _segment(self, length: int) -> "_Segment":
        if self.waiting_bytes + length > self._max_bytes:
            raise AuditUnavailable("Too many audit records wait for the event log.")
        if self._active is not None and self._active.size > _MAX_FILE_BYTES:
            self._closed.append(self._active)
            self._active = None
        if self._active is None:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._active = _Segment(self._folder / f"{self._service}-{uuid4().hex}{_SUFFIX}", new=True)
        return self._active

    def _adopt(self) -> None:
        """Takes over the files of processes that are no more: those whose lock is free."""
        mine = {segment.path for segment in self._closed}
        if self._active is not None:
            mine.add(self._active.path)
        paths = self._folder.glob(f"{self._service}-*{_SUFFIX}") if self._folder.is_dir() else []
        for path in sorted(paths):
            if path not in mine:
                with suppress(OSError):
                    self._closed.append(_Segment(path, new=False))
                    self._recorded.set()

    async def _publish(self, segment: "_Segment") -> None:
        for lines in segment.batches():
            messages = []
            for line in lines:
                try:
                    event = Envelope[AuditRecorded].model_validate_json(line)
                except ValueError:
                    _log.error("a damaged line in the audit spool was left out", bytes=len(line))
                    continue
                messages.append(Message(AUDIT_RECORDED.name, AUDIT_RECORDED.key_of(event), line))
            if messages:
                await self._producer.send(messages)


class _Segment:
    """One spool file, locked while it is in use.

    Arguments:
        path: the file.
        new: whether to create it.

    Raises:
        OSError: it can't be opened, or another process has it.
    """

    def __init__(self, path: Path, *, new: bool) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if new else 0)
        self._file = os.open(path, flags, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(self._file)
            raise
        self.size = os.fstat(self._file).st_size
        self._synced = -1

    def append(self, line: bytes) -> None:
        """Adds one line; a line that fits only in part is taken back."""
        written = os.write(self._file, line)
        if written != len(line):
            os.ftruncate(self._file, self.size)
            raise OSError("the disk is full")
        self.size += written

    def batches(self) -> "list[list[bytes]]":
        """The lines, about a megabyte at a time. A file has little more than eight."""
        content = os.pread(self._file, self.size, 0)
        batches: list[list[bytes]] = [[]]
        size = 0
        for line in content.split(b"\n"):
            if not line:
                continue
            if size > _BATCH_BYTES:
                batches.append([])
                size = 0
            batches[-1].append(line)
            size += len(line)
        return batches

    def sync(self) -> None:
        """Has the file, and its name, survive a loss of power."""
        if self._synced == self.size:
            return
        os.fsync(self._file)
        folder = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        self._synced = self.size

    def delete(self) -> None:
        """Removes the file."""
        self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Gives up the lock."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

"""The spool: temporary files of the requests under way, bounded by the free space of their disk.

Nothing in it is proof of anything: what counts is in the object store. So nothing is synchronised to disk, and what a
crash leaves behind is removed at the next start.
"""

import asyncio
import errno
import hashlib
import shutil
import zlib
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, Final, ParamSpec, TypeVar
from uuid import uuid4

from libs.crash import crash_point
from services.ingest_gateway.domain import CANNOT_UNDERSTAND, PartNote, Reason, SpooledPart, part_too_large
from services.ingest_gateway.errors import StorageFull
from services.ingest_gateway.fairness import Turns

_WRITE_SIZE: Final = 1 << 20
"""Bytes that are gathered before a thread measures and writes them."""
_MOST_WAITING: Final = 1024
"""Chunks and ends of parts that are gathered at most, however small they are."""
_CHECK_SIZE: Final = 64 << 20
"""Bytes of a request between two looks at the disk's free space."""

P = ParamSpec("P")
T = TypeVar("T")


class Spool:
    """The folder of the temporary files.

    Arguments:
        folder: a private folder on the disk that takes them; it is created when missing.
        min_free: bytes that must stay free on that disk.
        max_part: the most bytes one part may have.
        executor: the threads that do the blocking work.
        turns: which tenant's work the threads do next.
    """

    def __init__(self, folder: Path, *, min_free: int, max_part: int, executor: Executor, turns: Turns) -> None:
        self.folder = folder
        self.max_part = max_part
        self._min_free = min_free
        self._executor = executor
        self.turns = turns
        self._expected = 0

    async def run(self, work: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Does blocking work in one of the threads."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._executor, lambda: work(*arguments, **keywords))

    def clear(self) -> int:
        """Removes what an earlier process left behind; to be called before the first request.

        Returns:
            how many requests had left something.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        left = list(self.folder.glob("request-*"))
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        return len(left)

    def require_space(self, more: int = 0) -> None:
        """Checks that the disk has room, also for what the requests under way still expect.

        Arguments:
            more: bytes about to be written.

        Raises:
            StorageFull: fewer than the wanted number of bytes would stay free.
        """
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError as error:
            raise StorageFull(f"The spool can't be used: {error.strerror}.") from error
        if free - more - self._expected < self._min_free:
            raise StorageFull("There is too little disk space left to take this in at the moment.")

    @asynccontextmanager
    async def request(self, declared: int, tenant: str) -> AsyncIterator["RequestSpool"]:
        """A folder for one request, removed at its end whatever happens.

        Arguments:
            declared: bytes that the body will have, 0 when it does not say.
            tenant: whose request it is.

        Raises:
            StorageFull: the disk has no room for the body.
        """
        expected = declared
        await self.run(self.require_space, expected)
        folder = self.folder / f"request-{uuid4().hex}"
        self._expected += expected
        request = RequestSpool(self, folder, partial(self.turns.turn, tenant))
        try:
            await self.run(_guarded, folder.mkdir, 0o700)
            yield request
        finally:
            self._expected -= expected
            await asyncio.shield(self._end(request))

    async def _end(self, request: "RequestSpool") -> None:
        await request.abandon()
        await self.run(_remove, request.folder)


class RequestSpool:
    """The parts of one request: each is written to a file of its own and measured on the way.

    What was received is written by a thread while more is received; ``settle`` waits until all of it is there.

    Attributes:
        folder: where the files are.
        parts: the parts that are whole, in the order of their arrival; complete after ``settle``.
        begun: how many parts were begun.
    """

    def __init__(self, spool: Spool, folder: Path, turn: Callable[[], AbstractAsyncContextManager[None]]) -> None:
        self.folder = folder
        self.parts: list[SpooledPart] = []
        self.begun = 0
        self._spool = spool
        self._turn = turn
        self._part: OpenPart | None = None
        self._waiting: list[tuple[OpenPart, bytes | None]] = []
        self._gathered = 0
        self._unchecked = 0
        self._writing: asyncio.Future[list[SpooledPart]] | None = None

    async def run(self, work: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Does blocking work in one of the spool's threads, when it is the tenant's turn.

        Raises:
            StorageFull: the disk has no room left.
        """
        async with self._turn():
            return await self._spool.run(lambda: _guarded(work, *arguments, **keywords))

    def new_part(self) -> "OpenPart":
        """A part for another thread to fill; ``add_part`` takes it once it is whole. Its file goes with the request."""
        self.begun += 1
        return OpenPart(self.folder / f"part-{self.begun - 1:05}.dcm", None, self._spool.max_part, PartNote())

    def require_space(self) -> None:
        """Checks that the disk has room; blocking.

        Raises:
            StorageFull: it has not.
        """
        self._spool.require_space()

    def add_part(self, part: SpooledPart) -> None:
        """Takes a part that another thread has filled."""
        self.parts.append(part)

    async def begin_part(self, refusal: Reason | None = None, note: PartNote | None = None) -> None:
        """Opens the next part; the bytes of one that is refused already are dropped."""
        self._part = OpenPart(
            self.folder / f"part-{self.begun:05}.dcm", refusal, self._spool.max_part, note or PartNote()
        )
        self.begun += 1

    async def write(self, data: bytes) -> None:
        """Adds bytes to the open part.

        Raises:
            StorageFull: the disk has no room left.
        """
        part = self._open_part()
        if not part.takes(len(data)):
            return
        self._waiting.append((part, data))
        self._gathered += len(data)
        if self._gathered >= _WRITE_SIZE:
            await self._write_on()
        if self._unchecked >= _CHECK_SIZE:
            self._unchecked = 0
            await self.run(self._spool.require_space)

    async def end_part(self) -> None:
        """Closes the part, which is whole.

        Raises:
            StorageFull: the disk has no room left.
        """
        self._waiting.append((self._open_part(), None))
        self._part = None
        if len(self._waiting) >= _MOST_WAITING:
            await self._write_on()

    async def settle(self) -> None:
        """Waits until every part that was ended is on the disk and in ``parts``.

        Raises:
            StorageFull: the disk has no room left.
        """
        await self._write_on()
        await self._written()

    async def abandon(self) -> None:
        """Waits for the thread that may still be writing, and closes the files that may still be open."""
        if self._writing is not None:
            await asyncio.gather(self._writing, return_exceptions=True)
        for part in {part for part, _ in self._waiting} | {self._part}:
            if part is not None:
                part.close()

    async def _write_on(self) -> None:
        """Has a thread write what has been gathered, when it is done with what was gathered before."""
        await self._written()
        work, self._waiting = self._waiting, []
        self._unchecked += self._gathered
        self._gathered = 0
        if work:
            self._writing = asyncio.ensure_future(self.run(_write, work))

    async def _written(self) -> None:
        if self._writing is not None:
            # A request that is cancelled must not cancel what a thread is doing, but wait for it in ``abandon``.
            self.parts += await asyncio.shield(self._writing)
            self._writing = None

    def _open_part(self) -> "OpenPart":
        if self._part is None:
            raise RuntimeError("no part is open")
        return self._part


def _write(work: Sequence[tuple["OpenPart", bytes | None]]) -> list[SpooledPart]:
    """Writes what was gathered, part by part.

    Arguments:
        work: bytes of parts in their order; nothing ends a part.

    Returns:
        the parts that were ended.
    """
    ended: list[SpooledPart] = []
    try:
        for part, group in groupby(work, key=lambda item: item[0]):
            pieces = [data for _, data in group]
            part.write(b"".join(data for data in pieces if data is not None))
            if pieces[-1] is None:
                ended.append(part.finish())
                crash_point("ingest.part_spooled")
    except BaseException:
        for part, _ in work:
            part.close()
        raise
    return ended


class OpenPart:
    """A part that is still being written. Its methods block, except for ``takes``."""

    def __init__(self, path: Path, refusal: Reason | None, limit: int, note: PartNote) -> None:
        self._path = path
        self._note = note
        self._refusal = refusal
        self._limit = limit
        self._size = 0
        self._hash = hashlib.sha256()
        self._crc32 = 0
        self._file: BinaryIO | None = None

    def takes(self, more: int) -> bool:
        """Counts bytes that arrived; whether they are wanted: those of a part that is refused are not."""
        self._size += more
        if self._refusal is None and self._size > self._limit:
            self._refusal = part_too_large(self._limit)
        return self._refusal is None

    def write(self, data: bytes) -> None:
        """Measures and writes bytes; of a part without any there is no file."""
        if not data:
            return
        if self._file is None:
            self._file = self._path.open("xb", buffering=0)
        self._hash.update(data)
        self._crc32 = zlib.crc32(data, self._crc32)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def finish(self) -> SpooledPart:
        """Closes the file."""
        self.close()
        if self._refusal is None and not self._size:
            self._refusal = Reason(CANNOT_UNDERSTAND, "the part is empty")
        if self._refusal is not None:
            self._path.unlink(missing_ok=True)
        return SpooledPart(self._path, self._size, self._hash.hexdigest(), self._crc32, self._refusal, note=self._note)

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def _guarded(work: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Says of a full disk that it is full."""
    try:
        return work(*arguments, **keywords)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EMFILE, errno.ENFILE):
            raise StorageFull(f"The spool can't be written: {error.strerror}.") from error
        raise


def _remove(folder: Path) -> None:
    """Removes the folder, also when a thread of a cancelled request adds a last file meanwhile."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return

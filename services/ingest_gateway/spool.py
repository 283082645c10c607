"""The spool: temporary files of the requests under way, bounded by the free space of their disk.

Nothing in it is proof of anything: what counts is in the object store. So nothing is synchronised to disk, and what a
crash leaves behind is removed at the next start.
"""

import asyncio
import errno
import hashlib
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, Final, ParamSpec, TypeVar
from uuid import uuid4

from libs.crash import crash_point
from services.ingest_gateway.domain import Reason, SpooledPart, part_too_large
from services.ingest_gateway.errors import StorageFull

_WRITE_SIZE: Final = 1 << 20
"""Bytes that are gathered before a thread hashes and writes them."""
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
    """

    def __init__(self, folder: Path, *, min_free: int, max_part: int, executor: Executor) -> None:
        self.folder = folder
        self.max_part = max_part
        self._min_free = min_free
        self._executor = executor
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
    async def request(self, declared: int) -> AsyncIterator["RequestSpool"]:
        """A folder for one request, removed at its end whatever happens.

        Arguments:
            declared: bytes that the body will have, 0 when it does not say.

        Raises:
            StorageFull: the disk has no room for the body and the packs made of it.
        """
        expected = 2 * declared
        await self.run(self.require_space, expected)
        folder = self.folder / f"request-{uuid4().hex}"
        self._expected += expected
        request = RequestSpool(self, folder)
        try:
            await self.run(_guarded, folder.mkdir, 0o700)
            yield request
        finally:
            self._expected -= expected
            await asyncio.shield(self.run(_remove, folder, request.close))


class RequestSpool:
    """The parts of one request: each is written to a file of its own and hashed on the way.

    Attributes:
        folder: where the files are.
        parts: the parts that are whole, in the order of their arrival.
    """

    def __init__(self, spool: Spool, folder: Path) -> None:
        self.folder = folder
        self.parts: list[SpooledPart] = []
        self._spool = spool
        self._part: _OpenPart | None = None
        self._unchecked = 0

    async def run(self, work: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Does blocking work in one of the spool's threads.

        Raises:
            StorageFull: the disk has no room left.
        """
        return await self._spool.run(lambda: _guarded(work, *arguments, **keywords))

    async def begin_part(self, refusal: Reason | None = None) -> None:
        """Opens the next part; the bytes of one that is refused already are dropped."""
        path = self.folder / f"part-{len(self.parts):05}.dcm"
        self._part = _OpenPart(path, refusal, self._spool.max_part)

    async def write(self, data: bytes) -> None:
        """Adds bytes to the open part.

        Raises:
            StorageFull: the disk has no room left.
        """
        part = self._open_part()
        part.add(data)
        if part.gathered >= _WRITE_SIZE:
            await self.run(part.flush)
            self._unchecked += _WRITE_SIZE
        if self._unchecked >= _CHECK_SIZE:
            self._unchecked = 0
            await self.run(self._spool.require_space)

    async def end_part(self) -> None:
        """Closes the part, which is whole.

        Raises:
            StorageFull: the disk has no room left.
        """
        part = self._open_part()
        self.parts.append(await self.run(part.finish))
        crash_point("ingest.part_spooled")
        self._part = None

    def close(self) -> None:
        """Closes the file that may still be open."""
        if self._part is not None:
            self._part.close()

    def _open_part(self) -> "_OpenPart":
        if self._part is None:
            raise RuntimeError("no part is open")
        return self._part


class _OpenPart:
    """A part that is still being written. Its methods block, except for ``add``."""

    def __init__(self, path: Path, refusal: Reason | None, limit: int) -> None:
        self.gathered = 0
        self._path = path
        self._refusal = refusal
        self._limit = limit
        self._size = 0
        self._chunks: list[bytes] = []
        self._hash = hashlib.sha256()
        self._file: BinaryIO | None = None

    def add(self, data: bytes) -> None:
        """Gathers bytes; those of a part that is refused are forgotten."""
        self._size += len(data)
        if self._refusal is None and self._size > self._limit:
            self._refusal = part_too_large(self._limit)
        if self._refusal is not None:
            self._chunks, self.gathered = [], 0
            return
        self._chunks.append(data)
        self.gathered += len(data)

    def flush(self) -> None:
        """Hashes and writes what was gathered."""
        if self._file is None:
            self._file = self._path.open("xb", buffering=0)
        data = b"".join(self._chunks)
        self._chunks, self.gathered = [], 0
        self._hash.update(data)
        view = memoryview(data)
        while view:
            view = view[self._file.write(view) :]

    def finish(self) -> SpooledPart:
        """Writes the rest and closes the file."""
        if self._refusal is None:
            self.flush()
        self.close()
        if self._refusal is not None:
            self._path.unlink(missing_ok=True)
        return SpooledPart(self._path, self._size, self._hash.hexdigest(), self._refusal)

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


def _remove(folder: Path, close: Callable[[], None]) -> None:
    """Removes the folder, also when a thread of a cancelled request adds a last file meanwhile."""
    close()
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return

"""Retrieving instances (PS3.18 section 10.4): as they are stored, or decoded where the caller can't take that."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog

from libs.catalog.queries import InstanceRow
from libs.web.problems import Problem, Unavailable
from services.dicomweb import work
from services.dicomweb.audit import Operation
from services.dicomweb.domain import Content, Target, entity_tag, is_current, not_modified
from services.dicomweb.errors import CannotDecode, Damaged, NoSuchResource
from services.dicomweb.multipart import Multipart
from services.dicomweb.negotiate import DICOM, Tiers, choose_instances
from services.dicomweb.store import Store
from services.dicomweb.workers import Workers

BUFFERED: Final = 64 << 20
"""Bytes of an instance up to which its checksum is compared before the first byte is sent."""
_GAP: Final = 64 << 10
"""Bytes between two instances of a pack over which one request reads on."""
_ATTEMPTS: Final = 3
_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Retrieving:
    """What retrieving works with.

    Attributes:
        store: where everything is read.
        workers: decode.
        base: the address under which the service is seen.
        largest_transcode: bytes of an instance up to which it is decoded.
    """

    store: Store
    workers: Workers
    base: str
    largest_transcode: int


async def retrieve_instance(
    retrieving: Retrieving, operation: Operation, target: Target, tiers: Tiers, if_none_match: str
) -> Content:
    """One instance, as a part or alone."""
    row = await retrieving.store.locate_instance(
        operation.tenant, target.study, target.series or "", target.instance or ""
    )
    operation.patient_id, operation.instance_count = row.patient_id, 1
    answer = choose_instances(tiers, frozenset({row.transfer_syntax}), single=True)
    syntax = answer.targets[row.transfer_syntax]
    etag = entity_tag(row.sha256, syntax, answer.multipart)
    if is_current(etag, if_none_match):
        return not_modified(etag)
    media_type = f"{DICOM}; transfer-syntax={syntax}"
    if row.byte_length > BUFFERED and syntax == row.transfer_syntax:
        message = Multipart(DICOM) if answer.multipart else None
        stream = _deliver(retrieving, operation, _one(row), answer.targets, message)
        return Content(message.content_type if message else media_type, await _begun(stream), etag)
    data = await _instance(retrieving, operation.tenant, row, syntax)
    if not answer.multipart:
        return Content(media_type, data, etag)
    message = Multipart(DICOM)
    head = message.head(media_type, f"{retrieving.base}{target.path}", len(data))
    return Content(message.content_type, b"".join((head, data, message.end())), etag)


async def retrieve_version(
    retrieving: Retrieving, operation: Operation, target: Target, sha256: str, if_none_match: str
) -> Content:
    """One of several instances with the same UID: the Part 10 file as it was received.

    Raises:
        NoSuchResource: there is none with these bytes.
    """
    found = await retrieving.store.list_versions(
        operation.tenant, target.study, target.series or "", target.instance or ""
    )
    row = next((version.row for version in found if version.row.sha256.hex() == sha256), None)
    if row is None:
        raise NoSuchResource
    operation.patient_id, operation.instance_count = row.patient_id, 1
    etag = entity_tag(row.sha256, "version")
    if is_current(etag, if_none_match):
        return not_modified(etag)
    if row.byte_length > BUFFERED:
        stream = _deliver(retrieving, operation, _one(row), {row.transfer_syntax: row.transfer_syntax}, None)
        return Content(DICOM, await _begun(stream), etag)
    return Content(DICOM, await read_instance(retrieving.store, operation.tenant, row), etag)


async def retrieve_instances(retrieving: Retrieving, operation: Operation, target: Target, tiers: Tiers) -> Content:
    """A study or a series, streamed: memory doesn't grow with it."""
    count, syntaxes, patient_id = await retrieving.store.summarise(operation.tenant, target.study, target.series)
    if not count:
        raise NoSuchResource
    operation.patient_id, operation.instance_count = patient_id, count
    answer = choose_instances(tiers, syntaxes, single=False)
    message = Multipart(DICOM)
    pages = _pages(retrieving.store, operation.tenant, target)
    stream = _deliver(retrieving, operation, pages, answer.targets, message)
    return Content(message.content_type, await _begun(stream))


async def _begun(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The stream after its first piece has come, so that what is away is told before the answer begins."""
    first = await anext(stream)

    async def pieces() -> AsyncIterator[bytes]:
        yield first
        async for piece in stream:
            yield piece

    return pieces()


async def _one(row: InstanceRow) -> AsyncIterator[list[InstanceRow]]:
    yield [row]


async def _pages(store: Store, tenant: str, target: Target) -> AsyncIterator[list[InstanceRow]]:
    after = None
    while page := await store.locate_page(tenant, target.study, target.series, after=after):
        yield page
        after = page[-1]


async def _deliver(
    retrieving: Retrieving,
    operation: Operation,
    pages: AsyncIterator[list[InstanceRow]],
    targets: Mapping[str, str],
    message: Multipart | None,
) -> AsyncIterator[bytes]:
    """The bytes of the answer. What is wrong on the way breaks it off: the caller sees that it isn't whole."""
    begun = False
    try:
        async for page in pages:
            for run in _runs(page, targets):
                syntax = targets.get(run[0].transfer_syntax)
                if syntax is None:
                    raise CannotDecode("An instance came in meanwhile that can't be given in this transfer syntax.")
                if syntax == run[0].transfer_syntax:
                    pieces = _as_stored(retrieving, operation.tenant, run, message)
                else:
                    pieces = _transcoded(retrieving, operation.tenant, run[0], syntax, message)
                async for piece in pieces:
                    begun = True
                    yield piece
        if message is not None:
            yield message.end()
    except Problem as problem:
        if begun:
            _log.error("an answer was broken off", study=operation.study_uid, detail=problem.detail)
            await operation.broken_off(problem.detail or problem.title)
        raise


def _runs(page: Sequence[InstanceRow], targets: Mapping[str, str]) -> list[list[InstanceRow]]:
    """Instances that lie one behind the other and are given as they are: one request reads them all."""
    runs: list[list[InstanceRow]] = []
    for row in page:
        last = runs[-1][-1] if runs else None
        if (
            last is not None
            and last.pack == row.pack
            and 0 <= row.byte_offset - (last.byte_offset + last.byte_length) <= _GAP
            and all(targets.get(r.transfer_syntax) == r.transfer_syntax for r in (last, row))
        ):
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


async def _as_stored(
    retrieving: Retrieving, tenant: str, run: Sequence[InstanceRow], message: Multipart | None
) -> AsyncIterator[bytes]:
    """The instances of a run, each checked by its SHA-256 when its last byte has been sent."""
    last = run[-1]
    source = _Source(retrieving.store, tenant, last.pack, run[0].byte_offset, last.byte_offset + last.byte_length)
    for row in run:
        digest = hashlib.sha256()
        await source.skip_to(row.byte_offset)
        begun = False
        async for piece in source.take(row.byte_length):
            if message is not None and not begun:
                yield _head(retrieving, message, row, row.transfer_syntax, row.byte_length)
            begun = True
            digest.update(piece)
            yield piece
        if digest.digest() != row.sha256:
            _log.error("an instance does not match its checksum", pack=row.pack, offset=row.byte_offset)
            raise Damaged


async def _transcoded(
    retrieving: Retrieving, tenant: str, row: InstanceRow, syntax: str, message: Multipart | None
) -> AsyncIterator[bytes]:
    data = await _instance(retrieving, tenant, row, syntax)
    if message is not None:
        yield _head(retrieving, message, row, syntax, len(data))
    yield data


def _head(retrieving: Retrieving, message: Multipart, row: InstanceRow, syntax: str, length: int) -> bytes:
    place = Target(row.study_uid, row.series_uid, row.sop_uid).path
    return message.head(f"{DICOM}; transfer-syntax={syntax}", f"{retrieving.base}{place}", length)


async def _instance(retrieving: Retrieving, tenant: str, row: InstanceRow, syntax: str) -> bytes:
    """One instance in memory, checked; decoded where another transfer syntax is wanted."""
    if syntax != row.transfer_syntax and row.byte_length > retrieving.largest_transcode:
        raise CannotDecode("It is too large to be decoded; transfer-syntax=* takes what is stored.")
    data = await read_instance(retrieving.store, tenant, row)
    return data if syntax == row.transfer_syntax else await retrieving.workers.run(work.transcode_instance, data)


async def read_instance(store: Store, tenant: str, row: InstanceRow) -> bytes:
    """The Part 10 file of an instance, as it was stored.

    Raises:
        Damaged: it doesn't match its checksum.
    """
    data = (await store.read(tenant, row.pack, [(row.byte_offset, row.byte_length)]))[0]
    if (await asyncio.to_thread(hashlib.sha256, data)).digest() != row.sha256:
        _log.error("an instance does not match its checksum", pack=row.pack, offset=row.byte_offset)
        raise Damaged
    return data


class _Source:
    """A byte range of a pack, read on where a connection breaks.

    Arguments:
        store: reads.
        tenant: whose pack.
        pack: its object key.
        first: where reading begins.
        end: where it ends.
    """

    def __init__(self, store: Store, tenant: str, pack: str, first: int, end: int) -> None:
        self._store = store
        self._tenant = tenant
        self._pack = pack
        self._position = first
        self._end = end
        self._rest = b""
        self._pieces: AsyncIterator[bytes] | None = None

    async def skip_to(self, offset: int) -> None:
        """Passes over what lies before the offset."""
        async for _ in self.take(offset - self._position):
            pass

    async def take(self, length: int) -> AsyncIterator[bytes]:
        """The next bytes, piece by piece."""
        while length > 0:
            if not self._rest:
                self._rest = await self._next()
            piece, self._rest = self._rest[:length], self._rest[length:]
            length -= len(piece)
            self._position += len(piece)
            yield piece

    async def _next(self) -> bytes:
        for attempt in range(_ATTEMPTS):
            try:
                if self._pieces is None:
                    self._pieces = self._store.stream(
                        self._tenant, self._pack, self._position, self._end - self._position
                    )
                return await anext(self._pieces)
            except Unavailable:
                self._pieces = None
                if attempt == _ATTEMPTS - 1:
                    raise
            except StopAsyncIteration:
                raise Damaged from None
        raise AssertionError("not reached")

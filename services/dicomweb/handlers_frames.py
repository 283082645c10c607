"""Frames and bulk data (PS3.18 sections 10.4.1.1.5 and 10.4.1.1.6): byte ranges of a pack."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Final

from libs.catalog.queries import InstanceRow
from libs.dicom.frames import frame_bytes, frame_count, frame_ranges
from libs.dicom.identifiers import DEFLATED
from libs.dicom.pixels import FrameTable
from libs.web.problems import BadRequest, Problem
from services.dicomweb import work
from services.dicomweb.audit import Operation
from services.dicomweb.domain import Content, Target, entity_tag, is_current, not_modified
from services.dicomweb.errors import CannotDecode, NoSuchResource
from services.dicomweb.handlers_retrieve import Retrieving, read_instance
from services.dicomweb.multipart import Multipart
from services.dicomweb.negotiate import OCTETS, FramesAnswer, Tiers, choose_bulk, choose_frames
from services.dicomweb.store import Packed

MOST_FRAMES: Final = 10_000
_BATCH: Final = 8 << 20
"""Bytes of frames that are fetched together."""
_PATH: Final = re.compile(r"[0-9A-F]{8}(/[0-9]{1,6}/[0-9A-F]{8}){0,32}")


def read_frame_list(text: str) -> list[int]:
    """The numbers of a frame list such as ``1,2,5``, from 1 (PS3.18 section 10.4.1.1.6).

    Raises:
        BadRequest: it isn't such a list.
    """
    parts = text.split(",")
    if len(parts) > MOST_FRAMES:
        raise BadRequest(f"{MOST_FRAMES} frames at most can be asked for at once.")
    if not all(re.fullmatch(r"[0-9]{1,9}", part, re.ASCII) and int(part) > 0 for part in parts):
        raise BadRequest("A frame list has numbers from 1, separated by commas.")
    return [int(part) for part in parts]


class Instance:
    """An instance, and what its pack's index says of it."""

    def __init__(self, retrieving: Retrieving, tenant: str, row: InstanceRow, packed: Packed) -> None:
        self._retrieving = retrieving
        self._tenant = tenant
        self.row = row
        self.packed = packed

    @property
    def frames(self) -> FrameTable:
        """Where its frames are.

        Raises:
            NoSuchResource: it has none.
        """
        if self.packed.frames is None:
            raise NoSuchResource
        return self.packed.frames

    async def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Byte ranges (offset, length) of its Part 10 file."""
        if self.row.transfer_syntax in DEFLATED:
            if self.row.byte_length > self._retrieving.largest_transcode:
                raise CannotDecode("It is too large to be inflated.")
            whole = await read_instance(self._retrieving.store, self._tenant, self.row)
            return await self._retrieving.workers.run(work.inflated_ranges, whole, list(ranges))
        shifted = [(self.row.byte_offset + offset, length) for offset, length in ranges]
        return await self._retrieving.store.read(self._tenant, self.row.pack, shifted)

    async def read_frames(self, numbers: Sequence[int]) -> list[bytes]:
        """The stored bytes of frames."""
        table = self.frames
        ranges = [frame_ranges(table, number) for number in numbers]
        pieces = iter(await self.read([one for several in ranges for one in several]))
        joined = [b"".join(next(pieces) for _ in several) for several in ranges]
        return [frame_bytes(table, number, stored) for number, stored in zip(numbers, joined, strict=True)]


async def open_instance(retrieving: Retrieving, operation: Operation, target: Target) -> Instance:
    """Finds an instance and what its pack says of it.

    Raises:
        NoSuchResource: there is none.
    """
    tenant = operation.tenant
    row = await retrieving.store.locate_instance(tenant, target.study, target.series or "", target.instance or "")
    operation.patient_id = row.patient_id
    return Instance(retrieving, tenant, row, await retrieving.store.packed(tenant, row))


async def retrieve_frames(
    retrieving: Retrieving,
    operation: Operation,
    target: Target,
    numbers: list[int],
    *,
    tiers: Tiers,
    if_none_match: str,
) -> Content:
    """Frames, each a part: as they are stored, without delimiters of fragments, or as pixels."""
    instance = await open_instance(retrieving, operation, target)
    if max(numbers) > frame_count(instance.frames):
        raise NoSuchResource
    answer = choose_frames(tiers, instance.row.transfer_syntax, single=len(numbers) == 1)
    operation.instance_count = 1
    etag = entity_tag(instance.row.sha256, numbers, answer)
    if is_current(etag, if_none_match):
        return not_modified(etag)
    batches = _batches(instance.frames, numbers)
    first = await _frames(retrieving, instance, batches[0], answer)
    if not answer.multipart:
        return Content(answer.content_type, first[0], etag)
    message = Multipart(answer.asked)
    if len(batches) == 1:
        return Content(message.content_type, message.whole(answer.content_type, first), etag)
    rest = _streamed(retrieving, operation, instance, first, batches=batches[1:], answer=answer, message=message)
    return Content(message.content_type, rest, etag)


def _batches(table: FrameTable, numbers: list[int]) -> list[list[int]]:
    """The frames in groups of a few megabytes, in the order asked for."""
    batches: list[list[int]] = [[]]
    size = 0
    for number in numbers:
        length = sum(n for _, n in frame_ranges(table, number))
        if batches[-1] and size + length > _BATCH:
            batches.append([])
            size = 0
        batches[-1].append(number)
        size += length
    return batches


async def _frames(retrieving: Retrieving, instance: Instance, numbers: list[int], answer: FramesAnswer) -> list[bytes]:
    frames = await instance.read_frames(numbers)
    if not answer.decode:
        return frames
    dicom, syntax = instance.packed.dicom, instance.row.transfer_syntax
    return await retrieving.workers.run(work.decode_frames, frames, dicom, syntax)


async def _streamed(
    retrieving: Retrieving,
    operation: Operation,
    instance: Instance,
    first: list[bytes],
    *,
    batches: list[list[int]],
    answer: FramesAnswer,
    message: Multipart,
) -> AsyncIterator[bytes]:
    try:
        for position in range(len(batches) + 1):
            frames = await _frames(retrieving, instance, batches[position - 1], answer) if position else first
            for frame in frames:
                yield message.head(answer.content_type, length=len(frame))
                yield frame
        yield message.end()
    except Problem as problem:
        await operation.broken_off(problem.detail or problem.title)
        raise


async def retrieve_bulkdata(
    retrieving: Retrieving,
    operation: Operation,
    target: Target,
    path: str,
    *,
    tiers: Tiers,
    byte_range: str | None,
    if_none_match: str,
) -> Content:
    """The value of one element. Encapsulated Pixel Data is given frame by frame.

    Arguments:
        retrieving: what retrieving works with.
        operation: what is recorded.
        target: the instance.
        path: ``TAG``, or ``TAG/ITEM/TAG`` inside sequences, as metadata says it.
        tiers: the acceptable media types.
        byte_range: the ``Range`` header (RFC 9110 section 14.2); one range of bytes is honoured, of a single part.
        if_none_match: the entity tags that the caller has.
    """
    if _PATH.fullmatch(path.upper()) is None:
        raise BadRequest("This is not the path of an element.")
    instance = await open_instance(retrieving, operation, target)
    place = instance.packed.bulk.get(path) or instance.packed.bulk.get(path.upper())
    if place is None:
        raise NoSuchResource
    operation.instance_count = 1
    table = instance.packed.frames
    if path == "7FE00010" and table is not None and table["kind"] == "encapsulated":
        numbers = list(range(1, frame_count(table) + 1))
        return await retrieve_frames(retrieving, operation, target, numbers, tiers=tiers, if_none_match=if_none_match)
    multipart = choose_bulk(tiers)
    etag = entity_tag(instance.row.sha256, path, multipart)
    if is_current(etag, if_none_match):
        return not_modified(etag)
    if multipart:
        message = Multipart(OCTETS)
        return Content(message.content_type, message.whole(OCTETS, await instance.read([place])), etag)
    asked = _range(byte_range, place[1])
    if asked is None:
        return Content(OCTETS, (await instance.read([place]))[0], etag, headers={"Accept-Ranges": "bytes"})
    first, length = asked
    headers = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {first}-{first + length - 1}/{place[1]}"}
    data = (await instance.read([(place[0] + first, length)]))[0]
    return Content(OCTETS, data, etag, 206, headers)


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """Offset and length of the range asked for; none where there is none, or one that may be ignored."""
    matched = re.fullmatch(r"bytes=([0-9]{0,18})-([0-9]{0,18})", header or "", re.ASCII)
    if matched is None or not (matched[1] or matched[2]):
        return None
    if not matched[1]:
        length = min(int(matched[2]), size)
        return (size - length, length) if length else None
    first = int(matched[1])
    last = min(int(matched[2]), size - 1) if matched[2] else size - 1
    return (first, last - first + 1) if first <= last else None

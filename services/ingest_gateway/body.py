"""From the request's body to the spool: parts are written as they arrive, and a sender that falls silent is let go."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from starlette.types import Receive

from libs.web.problems import UnsupportedMediaType
from services.ingest_gateway.domain import refusal_of_part
from services.ingest_gateway.errors import SenderGone, SlowSender
from services.ingest_gateway.multipart import (
    MultipartReader,
    PartBegan,
    PartData,
    parse_media_type,
)
from services.ingest_gateway.spool import RequestSpool

_STEP: Final = 256 << 10
"""Bytes that the reader is fed at once."""


async def steady(receive: Receive, *, idle_timeout: float, min_progress: int) -> AsyncIterator[bytes]:
    """The bytes of a request's body, as long as they keep coming.

    Arguments:
        receive: where the server hands over the body (ASGI 3.0).
        idle_timeout: seconds.
        min_progress: bytes that must arrive within each ``idle_timeout``.

    Raises:
        SlowSender: fewer arrived.
        SenderGone: the connection ended before the body did.
    """
    waited, arrived = 0.0, 0
    while True:
        # Only the time that we wait counts: a sender must not be blamed for a disk that is slow here.
        begun = time.monotonic()
        try:
            async with asyncio.timeout(max(0.001, idle_timeout - waited)):
                message = await receive()
        except TimeoutError:
            if arrived < max(1, min_progress):
                raise SlowSender(f"Too little of the body came within {idle_timeout:g} s.") from None
            waited, arrived = 0.0, 0
            continue
        waited += time.monotonic() - begun
        if message["type"] == "http.disconnect":
            raise SenderGone("The connection ended before the body did; nothing was stored.")
        data: bytes = message.get("body", b"")
        arrived += len(data)
        for start in range(0, len(data), _STEP):
            yield data[start : start + _STEP]
        if not message.get("more_body", False):
            return


async def receive_multipart(
    chunks: AsyncIterator[bytes], reader: MultipartReader, spool: RequestSpool, *, typed: bool
) -> None:
    """Spools each part of a multipart body.

    Arguments:
        chunks: the body.
        reader: splits it.
        spool: takes the parts.
        typed: whether the request says that its parts are application/dicom; otherwise each part must say so.

    Raises:
        InvalidMultipart: the body does not follow RFC 2046, or was cut short.
        UnsupportedMediaType: neither the request nor its first part says application/dicom.
        StorageFull: the spool has no room left.
    """
    async for chunk in chunks:
        for event in reader.feed(chunk):
            if isinstance(event, PartData):
                await spool.write(event.data)
            elif isinstance(event, PartBegan):
                name = parse_media_type(event.headers.get("content-type", "")).name
                if not typed and not spool.begun and name != "application/dicom":
                    raise UnsupportedMediaType("The parts must be application/dicom; the request does not say so.")
                await spool.begin_part(refusal_of_part(event.headers, name))
            else:
                await spool.end_part()
    reader.finish()


async def receive_single(chunks: AsyncIterator[bytes], spool: RequestSpool) -> None:
    """Spools a body that is one instance.

    Raises:
        StorageFull: the spool has no room left.
    """
    await spool.begin_part()
    async for chunk in chunks:
        await spool.write(chunk)
    await spool.end_part()

"""Request bodies that are compressed as a whole (``Content-Encoding: gzip``, RFC 9110 section 8.4, RFC 1952)."""

import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final

from libs.web.problems import BadRequest, TooLarge

_STEP: Final = 1 << 20
"""Bytes that are inflated at once."""
_PLAUSIBLE: Final = 64 << 20
"""Bytes up to which any ratio is taken: an empty image of this size is nothing unusual."""

Run = Callable[..., Coroutine[Any, Any, tuple[bytes, bytes]]]
"""Does blocking work in a thread."""


async def inflated(chunks: AsyncIterator[bytes], *, largest: int, max_ratio: int, run: Run) -> AsyncIterator[bytes]:
    """The body as it was before it was compressed, in pieces of at most 1 MiB, whatever it inflates to.

    Arguments:
        chunks: the compressed body.
        largest: bytes that it may inflate to.
        max_ratio: how many times its size it may inflate to, beyond the first 64 MiB.
        run: does blocking work in a thread.

    Raises:
        BadRequest: it is not gzip, or ends too early.
        TooLarge: it inflates to more than is taken.
    """
    inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
    taken = given = 0
    begun = False
    async for chunk in chunks:
        taken += len(chunk)
        rest = chunk
        while rest:
            if inflater.eof:  # several members follow each other as if they were one
                inflater = zlib.decompressobj(16 + zlib.MAX_WBITS)
            begun = True
            data, rest = await run(_inflate, inflater, rest)
            given += len(data)
            if given > largest:
                raise TooLarge(f"The body inflates to more than {largest} bytes; send the rest in another request.")
            if given > _PLAUSIBLE and given > max_ratio * taken:
                raise TooLarge(f"The body inflates to more than {max_ratio} times its size; send it uncompressed.")
            if data:
                yield data
    if begun and not inflater.eof:
        raise BadRequest("The compressed body ends too early: it was cut short.")


def _inflate(inflater: Any, data: bytes) -> tuple[bytes, bytes]:
    """Some more of the body, and what of the input is still to be read."""
    try:
        out = inflater.decompress(data, _STEP)
    except zlib.error:
        raise BadRequest("The body is not gzip, or was damaged.") from None
    return out, inflater.unused_data if inflater.eof else inflater.unconsumed_tail

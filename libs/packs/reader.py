"""Reading a pack without unpacking it."""

from pathlib import Path
from typing import BinaryIO, Final

from libs.packs.index import PackIndex

TAIL: Final = 256 * 1024
"""How many last bytes of a pack hold its central directory, unless it has thousands of entries."""


def locate_index(tail: bytes, size: int) -> tuple[int, int]:
    """Where the index entry's content is, from the last bytes of the pack.

    Arguments:
        tail: the last bytes of the pack; ``TAIL`` of them, or all.
        size: bytes of the whole pack.

    Returns:
        (offset, length) of the compressed index, for ``read_index``.

    Raises:
        InvalidPack: there is no central directory, or the last entry is not the index.
    """
    raise NotImplementedError


def verify_pack(source: Path | BinaryIO) -> PackIndex:
    """Checks a whole pack: directory, local headers, CRC-32 and SHA-256 of each entry, and that the index fits.

    Raises:
        InvalidPack: anything does not fit, in words.
    """
    raise NotImplementedError

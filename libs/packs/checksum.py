"""CRC-32 of bytes that were taken apart: of two stretches that follow each other, without reading them again."""

from functools import lru_cache
from typing import Final

_POLYNOMIAL: Final = 0xEDB88320
"""That of ZIP and of S3's CRC32, its bits reversed (APPNOTE.TXT section 4.4.7)."""
_ONE: Final = 1 << 31
_X8: Final = 1 << 23
"""x to the 8th: one byte."""


def crc32_combined(first: int, second: int, length: int) -> int:
    """The CRC-32 of two stretches.

    Arguments:
        first: CRC-32 of the first.
        second: CRC-32 of the one that follows.
        length: bytes of the second.
    """
    return _product(first, _x_to_bytes(length)) ^ second


@lru_cache(maxsize=4096)
def _x_to_bytes(length: int) -> int:
    """What that many zero bytes do to a CRC: x to the power of 8 × ``length``, modulo the polynomial."""
    result, square = _ONE, _X8
    while length:
        if length & 1:
            result = _product(result, square)
        square = _product(square, square)
        length >>= 1
    return result


def _product(a: int, b: int) -> int:
    """The product of two polynomials modulo the CRC's; bit 31 is the coefficient of 1."""
    result = 0
    bit = _ONE
    while a:
        if a & bit:
            result ^= b
            a ^= bit
        bit >>= 1
        b = b >> 1 ^ (_POLYNOMIAL if b & 1 else 0)
    return result

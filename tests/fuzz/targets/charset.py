"""Text: any bytes under any character sets become Unicode that can be written as UTF-8 and kept in a database."""

from collections.abc import Iterator
from typing import Final

import orjson
from pydicom.charset import python_encoding

from libs.dicom.text import character_set
from libs.dicom.values import BINARY, CONVERT
from tests.fuzz.target import Target

_TERMS: Final = sorted(python_encoding)
_REPRESENTATIONS: Final = sorted(set(CONVERT) - BINARY)


def run(data: bytes) -> None:
    """The first byte chooses the representation, the second how many bytes of terms follow."""
    if len(data) < 3:
        return
    vr = _REPRESENTATIONS[data[0] % len(_REPRESENTATIONS)]
    count = data[1] % 8
    terms = "\\".join(_TERMS[byte % len(_TERMS)] for byte in data[2 : 2 + count])
    raw_terms = data[1] & 0x80
    charset = character_set(data[2 : 2 + count] if raw_terms else terms.encode())
    warnings: list[str] = []
    values = CONVERT[vr](data[2 + count :], charset, bool(data[1] & 0x40), warnings.append)
    text = orjson.dumps(values)
    assert b"\\u0000" not in text
    assert len(text) <= 64 * (len(data) + 8)
    for value in values:
        assert value is None or isinstance(value, str | int | float | dict)


def seeds() -> Iterator[bytes]:
    """Each representation, and each character set with text of its own."""
    samples = (
        b"Doe^Jane=\xc1=c",
        b"a\x1b$B;3ED\x1b(B^b",
        b"\x1b$)C\xb1\xe8\\b",
        "中文\\b".encode("gb18030"),
        b"1.5\\-2e3",
        b"1\\2 ",
        bytes(16),
    )
    for index in range(len(_REPRESENTATIONS)):
        for text in samples:
            yield bytes([index, 0]) + text
    for index in range(len(_TERMS)):
        yield bytes([_REPRESENTATIONS.index("PN"), 2, 0, index]) + samples[1]


TARGET: Final = Target("charset", run, seeds, ("libs.dicom",), 1024)

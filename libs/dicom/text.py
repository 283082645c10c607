"""Text values: from the bytes of a Specific Character Set to Unicode (PS3.3 section C.12.1.1.2, PS3.5 section 6.1)."""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

from pydicom.charset import CODES_TO_ENCODINGS, python_encoding

_ESCAPE: Final = 0x1B
_FRAGMENTS: Final = re.compile(rb"^[^\x1b]+|\x1b[^\x1b]*")
# These put the initial character sets back in force (PS3.5 section 6.1.2.5.3).
_RESETS: Final = re.compile(rb"[\\\r\n\t\f]")
_RESETS_IN_NAMES: Final = re.compile(rb"[\\^=]")
# Python's codecs for these read the escape sequences themselves.
_SELF_ESCAPING: Final = frozenset({"iso2022_jp", "iso2022_jp_2"})
DEFAULT: Final = "latin_1"
"""Without Specific Character Set only ASCII is allowed; devices that break this mostly send Latin 1."""


class CharacterSet:
    """Decodes text of one Specific Character Set (0008,0005).

    Attributes:
        faults: what was wrong with the terms, in words.
    """

    __slots__ = ("_extended", "_initial", "faults")

    def __init__(self, terms: Sequence[str]) -> None:
        self.faults: list[str] = []
        codecs = [self._codec(term) for term in terms] or [DEFAULT]
        self._initial = codecs[0]
        self._extended = frozenset(codecs)

    def _codec(self, term: str) -> str:
        if not term:
            return DEFAULT
        found = python_encoding.get(term) or python_encoding.get(
            term.upper().replace("ISO IR", "ISO_IR").replace("ISO-IR", "ISO_IR")
        )
        if found is None:
            self.faults.append("Specific Character Set has an unknown term; its text was read as Latin 1.")
            return DEFAULT
        return DEFAULT if found == "iso8859" else found

    def decode(self, value: bytes, *, name: bool = False) -> tuple[str, bool]:
        """The text, and whether every byte of it could be decoded.

        Arguments:
            value: the bytes, several values with their backslashes included.
            name: whether these are person names, in which ``^`` and ``=`` reset the character set.
        """
        if _ESCAPE not in value:
            return _decode(value, self._initial)
        parts = [self._fragment(part, name) for part in _FRAGMENTS.findall(value)]
        return "".join(text for text, _ in parts), all(clean for _, clean in parts)

    def _fragment(self, fragment: bytes, name: bool) -> tuple[str, bool]:
        if fragment[0] != _ESCAPE:
            return _decode(fragment, self._initial)
        width = 4 if fragment.startswith((b"\x1b$(", b"\x1b$)")) else 3
        codec = CODES_TO_ENCODINGS.get(fragment[:width])
        if codec is None:
            return _decode(fragment, self._initial)[0], False
        # A set that was not announced is decoded all the same: the escape sequence says plainly what it is.
        announced = codec in self._extended or codec == "iso8859"
        if codec in _SELF_ESCAPING:
            text, clean = _decode(fragment, codec)
            return text, clean and announced
        body = fragment[width:]
        reset = (_RESETS_IN_NAMES if name else _RESETS).search(body)
        if reset is None or codec == "iso8859":
            text, clean = _decode(body, DEFAULT if codec == "iso8859" else codec)
            return text, clean and announced
        head, tail = body[: reset.start()], body[reset.start() :]
        (first, first_clean), (rest, rest_clean) = _decode(head, codec), _decode(tail, self._initial)
        return first + rest, first_clean and rest_clean and announced


def _decode(value: bytes, codec: str) -> tuple[str, bool]:
    try:
        return value.decode(codec), True
    except UnicodeDecodeError:
        return value.decode(codec, "replace"), False


@lru_cache(maxsize=256)
def character_set(value: bytes) -> CharacterSet:
    """The character set that a value of (0008,0005) names."""
    text = value[:1024].decode("latin-1")
    return CharacterSet([term.strip(" \0") for term in text.split("\\")])

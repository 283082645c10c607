"""Reading ``multipart/related`` as it arrives (RFC 2046 section 5.1, RFC 2387).

The reader is fed with whatever the network brings and gives back what it has understood so far. It holds no more than
the last chunk and a few hundred bytes, so that memory does not grow with the body. It does no I/O.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from typing import Final

# RFC 2046 allows 70 characters; Orthanc's DICOMweb plug-in sends 73, and they do no harm.
_BOUNDARY: Final = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,127}[0-9A-Za-z'()+_,./:=?-]")
_DELIMITER_END: Final = re.compile(rb"(--)|[ \t]*\r\n")
_PADDING_LIMIT: Final = 128
_PREAMBLE_LIMIT: Final = 64 * 1024


class InvalidMultipart(ValueError):
    """The body does not follow RFC 2046; the text says where it departs from it."""


class TooManyParts(InvalidMultipart):
    """The body has more parts than are taken in one request."""


@dataclass(frozen=True)
class MediaType:
    """A media type with its parameters, names in lower case and values without their quotes (RFC 9110 section 8.3)."""

    name: str
    parameters: dict[str, str]


@dataclass(frozen=True)
class PartBegan:
    """The headers of a part were read: names in lower case."""

    headers: dict[str, str]


@dataclass(frozen=True)
class PartData:
    """The next bytes of the part's body."""

    data: bytes


@dataclass(frozen=True)
class PartEnded:
    """The delimiter after the part's body was read: the part is whole."""


Event = PartBegan | PartData | PartEnded


def parse_media_type(text: str) -> MediaType:
    """Reads the value of a Content-Type or of one media range; parameters may be quoted or not."""
    message = Message()
    message["Content-Type"] = text.replace("\r", " ").replace("\n", " ")
    pairs = message.get_params(failobj=[("", "")]) or [("", "")]
    parameters = {name.lower(): value for name, value in pairs[1:] if isinstance(value, str)}
    return MediaType(pairs[0][0].strip().lower(), parameters)


def require_boundary(media_type: MediaType) -> bytes:
    """The boundary parameter of a multipart type.

    Raises:
        InvalidMultipart: there is none, or it is not like those of RFC 2046 section 5.1.1; a longer one is taken.
    """
    boundary = media_type.parameters.get("boundary", "")
    if not boundary:
        raise InvalidMultipart("The Content-Type has no boundary parameter, so the parts can't be told apart.")
    if not _BOUNDARY.fullmatch(boundary):
        raise InvalidMultipart("The boundary is longer than 128 characters or has characters that RFC 2046 forbids.")
    return boundary.encode("ascii")


class MultipartReader:
    """Splits a multipart body into its parts, whatever chunks it comes in.

    Arguments:
        boundary: the boundary parameter, without the two hyphens.
        max_parts: the most parts that are taken.
        max_header: the most bytes that the headers of one part may have.
    """

    def __init__(self, boundary: bytes, *, max_parts: int, max_header: int) -> None:
        self._delimiter = b"\r\n--" + boundary
        self._max_parts = max_parts
        self._max_header = max_header
        # The first delimiter may begin the body: the line break that belongs to it is taken as read.
        self._buffer = b"\r\n"
        self._parts = 0
        self._preamble = 0
        self._step: Callable[[list[Event]], bool] = self._read_preamble
        self._complete = False

    @property
    def complete(self) -> bool:
        """Whether the closing delimiter was read."""
        return self._complete

    def feed(self, data: bytes) -> list[Event]:
        """Takes the next bytes of the body and gives back what they complete.

        Raises:
            InvalidMultipart: the body does not follow RFC 2046.
            TooManyParts: there are more parts than allowed.
        """
        events: list[Event] = []
        if self._complete:
            return events  # an epilogue says nothing
        self._buffer += data
        while not self._complete and self._step(events):
            pass
        return events

    def finish(self) -> None:
        """Must be called at the end of the body.

        Raises:
            InvalidMultipart: the body ended before its closing delimiter.
        """
        if self._complete:
            return
        if self._parts == 0:
            raise InvalidMultipart("The boundary that the Content-Type names does not begin a part of the body.")
        raise InvalidMultipart("The body ends before its closing boundary: it was cut short.")

    def _read_preamble(self, events: list[Event]) -> bool:
        before, found = self._until_delimiter()
        self._preamble += len(before)
        if self._preamble > _PREAMBLE_LIMIT:
            raise InvalidMultipart(f"No part begins within the first {_PREAMBLE_LIMIT} bytes of the body.")
        return found

    def _read_body(self, events: list[Event]) -> bool:
        data, found = self._until_delimiter()
        if data:
            events.append(PartData(data))
        if found:
            events.append(PartEnded())
        return found

    def _until_delimiter(self) -> tuple[bytes, bool]:
        """Takes what certainly comes before the next delimiter; with the delimiter itself when it is whole."""
        buffer, start = self._buffer, 0
        while (at := buffer.find(self._delimiter, start)) >= 0:
            after = at + len(self._delimiter)
            ending = _DELIMITER_END.match(buffer, after)
            if ending is None:
                if len(buffer) - after < _PADDING_LIMIT and not buffer[after:].strip(b" \t\r-"):
                    self._buffer = buffer[at:]
                    return buffer[:at], False  # the rest of the delimiter is still under way
                start = after  # longer text that merely begins as the delimiter does
                continue
            # The line break that ends a delimiter is left in place: it begins the block of headers.
            self._complete = ending.group(1) is not None
            self._buffer = b"" if self._complete else buffer[ending.end() - 2 :]
            self._step = self._read_headers
            return buffer[:at], True
        keep = min(len(buffer) - start, len(self._delimiter) - 1)
        split = len(buffer) - keep
        self._buffer = buffer[split:]
        return buffer[:split], False

    def _read_headers(self, events: list[Event]) -> bool:
        end = self._buffer.find(b"\r\n\r\n")
        if end > self._max_header or (end < 0 and len(self._buffer) > self._max_header + 4):
            raise InvalidMultipart(f"The headers of a part have more than {self._max_header} bytes.")
        if end < 0:
            return False
        self._parts += 1
        if self._parts > self._max_parts:
            raise TooManyParts(f"One request may have {self._max_parts} parts at most; send the rest in another.")
        events.append(PartBegan(_parse_headers(self._buffer[2:end])))
        # A part may be empty: then the line break after its headers belongs to the delimiter.
        self._buffer = self._buffer[end + 2 :]
        self._step = self._read_first_of_body
        return True

    def _read_first_of_body(self, events: list[Event]) -> bool:
        """Drops the line break before the body, unless the delimiter needs it (a part without any bytes)."""
        if len(self._buffer) < len(self._delimiter) and self._delimiter.startswith(self._buffer):
            return False
        if not self._buffer.startswith(self._delimiter):
            self._buffer = self._buffer[2:]
        self._step = self._read_body
        return True


def _parse_headers(block: bytes) -> dict[str, str]:
    """Reads the header lines of a part; of one that repeats, the first counts."""
    headers: dict[str, str] = {}
    for line in block.replace(b"\r\n ", b" ").replace(b"\r\n\t", b" ").split(b"\r\n"):
        name, colon, value = line.partition(b":")
        if line and not (colon and name.strip()):
            raise InvalidMultipart("A header line of a part has no name.")
        if line:
            headers.setdefault(name.strip().decode("latin-1").lower(), value.strip().decode("latin-1"))
    return headers

"""Writing ``multipart/related`` (RFC 2387, PS3.18 section 8.6.1.2.1)."""

from collections.abc import Sequence
from uuid import uuid4


class Multipart:
    """One message of parts.

    Arguments:
        media_type: the type of its parts, as the caller asked for it.
    """

    def __init__(self, media_type: str) -> None:
        self._boundary = f"lightbox-{uuid4().hex}"
        self.content_type = f'multipart/related; type="{media_type}"; boundary={self._boundary}'
        self._first = True

    def head(self, content_type: str, location: str = "", length: int | None = None) -> bytes:
        """What stands before the content of the next part."""
        lead = "" if self._first else "\r\n"
        self._first = False
        lines = [f"{lead}--{self._boundary}", f"Content-Type: {content_type}"]
        if length is not None:
            lines.append(f"Content-Length: {length}")
        if location:
            lines.append(f"Content-Location: {location}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")

    def end(self) -> bytes:
        """What stands after the last part."""
        return f"\r\n--{self._boundary}--\r\n".encode("ascii")

    def whole(self, content_type: str, parts: Sequence[bytes]) -> bytes:
        """The message of parts that are all at hand."""
        pieces = [piece for part in parts for piece in (self.head(content_type, length=len(part)), part)]
        return b"".join([*pieces, self.end()])

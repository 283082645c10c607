"""Taking apart what comes as several parts, with the standard library's reader of messages."""

from email.message import Message
from email.parser import BytesParser

import httpx


def parts_of(response: httpx.Response) -> list[tuple[str, bytes]]:
    """Content type and content of each part."""
    content_type = response.headers["content-type"]
    assert content_type.startswith("multipart/related"), content_type
    boundary = content_type.partition("boundary=")[2].split(";")[0].strip('"').encode()
    assert response.content.startswith(b"--" + boundary)
    assert response.content.endswith(b"\r\n--" + boundary + b"--\r\n")
    found = []
    for piece in response.content.split(b"--" + boundary)[1:-1]:
        head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        message: Message = BytesParser().parsebytes(head + b"\r\n\r\n")
        found.append((message["content-type"], body.removesuffix(b"\r\n")))
    return found

"""Storing what lies in pieces, in memory and on disk, without putting it together first: by one PUT, or in parts.

Both follow one rule. A CRC-32 that was taken when the bytes came in travels with them, and the store refuses what does
not have it; and the object appears whole or not at all, under a key that is not taken (``If-None-Match: *``).
"""

import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from io import SEEK_CUR, SEEK_END, SEEK_SET, RawIOBase
from pathlib import Path
from typing import Any, Final

from botocore.exceptions import BotoCoreError, ClientError

from libs.objects.administration import from_boto
from libs.objects.errors import ObjectError, ObjectsUnavailable

Piece = bytes | Path
"""Bytes, or a file of which all is meant."""

Before = Callable[[int], None]
"""Is told how many bytes come next."""

LARGEST_SINGLE_PUT: Final = 1 << 30
"""Bytes that are sent by one PUT; more goes in parts, so that a fault near the end does not cost all of it."""
_PART: Final = 128 << 20
_MOST_PARTS: Final = 10_000
_BLOCK: Final = 1 << 20


class Pieces(RawIOBase):
    """Pieces one after another as a file that can be read and rewound.

    Arguments:
        pieces: in their order.
        start: bytes that are left out at the beginning.
        length: bytes that are given at most.
        before: called with the size of each block before it is given, and with 0 at the end; it may make them wait.
    """

    def __init__(
        self, pieces: Sequence[Piece], start: int = 0, length: int | None = None, *, before: Before | None = None
    ) -> None:
        super().__init__()
        sizes = [len(piece) if isinstance(piece, bytes) else piece.stat().st_size for piece in pieces]
        self._pieces = list(zip(pieces, sizes, strict=True))
        self._start = min(start, sum(sizes))
        rest = sum(sizes) - self._start
        self.size = rest if length is None else min(length, rest)
        self._position = 0
        self._before = before
        self._blocks = self._read_from(self._start)

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be rewound."""
        return True

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Goes to a place."""
        base = {SEEK_SET: 0, SEEK_CUR: self._position, SEEK_END: self.size}[whence]
        self._position = max(0, min(self.size, base + offset))
        self._blocks = self._read_from(self._start + self._position)
        return self._position

    def tell(self) -> int:
        """Where it stands."""
        return self._position

    def read(self, size: int = -1) -> bytes:
        """The next block, whatever size is asked for: those who send ask for so little that they would be slow."""
        left = self.size - self._position
        block = next(self._blocks, b"")[:left] if left else b""
        self._position += len(block)
        if self._before is not None:
            self._before(len(block))
        return block

    def blocks(self) -> Iterator[bytes]:
        """All of it from the beginning, in blocks of at most 1 MiB."""
        self.seek(0)
        while block := self.read():
            yield block

    def _read_from(self, at: int) -> Iterator[bytes]:
        for piece, size in self._pieces:
            if at >= size:
                at -= size
                continue
            if isinstance(piece, bytes):
                for start in range(at, size, _BLOCK):
                    yield piece[start : start + _BLOCK]
            else:
                with piece.open("rb", buffering=0) as file:
                    file.seek(at)
                    while block := file.read(_BLOCK):
                        yield block
            at = 0


def put_pieces(
    client: Any, bucket: str, key: str, pieces: Sequence[Piece], crc32: int, before: Before | None = None
) -> None:
    """Stores an object that is not there yet. It blocks.

    Arguments:
        client: of ``administration_client``, that does not sign bodies.
        bucket: where to.
        key: under which key.
        pieces: what.
        crc32: of all of it.
        before: see ``Pieces``.

    Raises:
        AlreadyExists: the key is taken; that object was left as it is.
        BucketMissing: there is no such bucket.
        ObjectsUnavailable: the store does not answer, or what arrived was damaged.
        ObjectError: it refuses, or the object is too large for any upload.
        OSError: a file can't be read.
    """
    content = Pieces(pieces, before=before)
    try:
        if content.size > LARGEST_SINGLE_PUT:
            _put_in_parts(client, bucket, key, pieces, content.size, crc32, before)
            return
        client.put_object(
            Bucket=bucket,
            Key=key,
            Body=content,
            ContentLength=content.size,
            ChecksumCRC32=_encoded(crc32),
            IfNoneMatch="*",
        )
    except ClientError as error:
        raise from_boto(error) from error
    except BotoCoreError as error:
        raise ObjectsUnavailable("The object store does not answer.") from error


def _put_in_parts(
    client: Any, bucket: str, key: str, pieces: Sequence[Piece], size: int, crc32: int, before: Before | None
) -> None:
    part_size = max(_PART, -(-size // _MOST_PARTS))
    place = {"Bucket": bucket, "Key": key}
    upload = place | {"UploadId": client.create_multipart_upload(**place, ChecksumAlgorithm="CRC32")["UploadId"]}
    try:
        parts: list[dict[str, Any]] = []
        whole = 0
        for number, start in enumerate(range(0, size, part_size), 1):
            part = Pieces(pieces, start, part_size, before=before)
            own = 0
            for block in part.blocks():
                own, whole = zlib.crc32(block, own), zlib.crc32(block, whole)
            part.seek(0)
            sent = client.upload_part(
                **upload, PartNumber=number, Body=part, ContentLength=part.size, ChecksumCRC32=_encoded(own)
            )
            parts.append({"PartNumber": number, "ETag": sent["ETag"], "ChecksumCRC32": _encoded(own)})
        if whole != crc32:
            raise ObjectError("The data does not have the CRC-32 that was given.")
        client.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*")
    except BaseException:
        # The parts cost space until the upload is given up; what can't be given up now is by ``abort_uploads``.
        with suppress(ClientError, BotoCoreError):
            client.abort_multipart_upload(**upload)
        raise


def abort_uploads(client: Any, bucket: str, older_than: timedelta) -> int:
    """Gives up the multipart uploads that were begun long ago and never ended, whose parts nobody sees.

    Returns:
        how many.

    Raises:
        BucketMissing, ObjectsUnavailable, ObjectError: as they say.
    """
    before = datetime.now(UTC) - older_than
    given_up = 0
    try:
        for page in client.get_paginator("list_multipart_uploads").paginate(Bucket=bucket):
            for upload in page.get("Uploads", []):
                if upload["Initiated"] < before:
                    client.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                    given_up += 1
    except ClientError as error:
        raise from_boto(error) from error
    except BotoCoreError as error:
        raise ObjectsUnavailable("The object store does not answer.") from error
    return given_up


def _encoded(crc32: int) -> str:
    return b64encode(crc32.to_bytes(4, "big")).decode()
